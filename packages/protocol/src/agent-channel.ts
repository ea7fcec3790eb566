import { z } from 'zod'
import { maxBatchEvents, maxSkillBytes, maxSkills, maxTurnMessages } from './agent-channel-paths.ts'
import type { AmbientAgentConfig } from './agent-config.ts'
import type { RunAttachment } from './attachments.ts'
import type { SavedRepository, SessionEventData } from './events.ts'
import { turnOutcomes } from './run-state.ts'
import type { RunMode } from './runs.ts'

/**
 * The agent channel: plain HTTP from the agent (or from a worker that drains a dead agent's spool) to the control plane, authenticated by
 * the execution's token.
 *
 *   POST agent-channel/hello            who I am → everything the run needs
 *   POST agent-channel/next-turn        {is_last} → the turn to perform next, or none: the agent rests, or says goodbye
 *   POST agent-channel/events           a batch of numbered events → acknowledgement; also renews the lease
 *   GET  agent-channel/commands         SSE of the execution's inbox, delivered until acknowledged
 *   POST agent-channel/commands/ack     {ids}
 *   POST agent-channel/blobs            raw bytes → {blob_id}
 *   GET  agent-channel/blobs/{id}       raw bytes
 *
 * Everything that an agent changes travels as an event in its numbered stream, the outcome and checkpoints too: so one spool makes all of it
 * durable, and the order on disk is the order in the database.
 */

export const helloRequest = z.strictObject({
  protocol: z.int(),
  agent_version: z.string().max(64),
  /** Made once per process: a repeated hello of the same process is answered again, another process is refused. */
  process_nonce: z.string().min(8).max(64),
  host: z.string().max(255),
  pid: z.int(),
})
export type HelloRequest = z.infer<typeof helloRequest>

/** How the harness reaches a model: the gateway's address for this wire, and the model's name there. */
export interface ModelAccess {
  /** `provider/model`, the id that users see. */
  id: string
  wire: ModelWire
  /** Path of the gateway, e.g. `/llm/openai/v1`. The execution token is its key. */
  base_path: string
  /** Address of the gateway where it is not the control plane's own: `OZ_GATEWAY_URL`. */
  base_url?: string
  /** Tokens; absent when the provider does not say. */
  context_window?: number
  /** It takes images. */
  vision?: boolean
}

/** What a provider speaks. Readers: the gateway's routes, the agent's model libraries. */
export const modelWires = [
  'anthropic-messages',
  'openai-chat',
  'openai-responses',
  'google-generate-content',
  'bedrock-converse',
] as const
export type ModelWire = (typeof modelWires)[number]

/** Something that a person said while a turn was at work, for that turn. */
export interface TurnMessage {
  message_id: string
  /** `steer`: at the next safe boundary. `interrupt`: stop what runs, then this. */
  mode: 'steer' | 'interrupt'
  text: string
}

export interface TurnInput {
  turn_id: string
  /** 1 for the run's prompt. */
  number: number
  message: string
  /** What was said to this turn so far and no checkpoint has taken up, in order. */
  messages: TurnMessage[]
}

export interface HelloResponse {
  protocol: number
  run_id: string
  execution_id: string
  conversation_id: string
  /** 1 for the first attempt. */
  attempt: number
  turn: TurnInput
  /** What this execution goes on from; null: it is the first one of its conversation. */
  continues: Continuation | null
  title: string
  mode: RunMode
  /** `LOCAL`: in a folder that belongs to a person, by hand. */
  execution_location: 'LOCAL' | 'REMOTE'
  /** Files that the run was given, so far. */
  attachments: RunAttachment[]
  config: AmbientAgentConfig
  /** null: no provider is configured; `model_problem` says what to tell the user. */
  model: ModelAccess | null
  model_problem?: string
  /** Where to go on from, when an earlier execution got that far. */
  checkpoint: { harness: string; format: string; step: number; blob_id: string } | null
  /** The workspace as last saved in this conversation: put back after the clone. */
  workspace: { repositories: SavedRepository[] } | null
  /** How long to wait for a follow-up after a turn that succeeded or asked something. 0: not at all. */
  idle_timeout_ms: number
  limits: AgentLimits
  /** Already stored of this execution's stream. */
  acked_n: number
  run_url: string
}

export interface Continuation {
  /** `retry`: an attempt at this turn was lost. `follow_up`: a later turn of the run. `conversation`: another run began it. */
  reason: 'retry' | 'follow_up' | 'conversation'
  /** The conversation knows of work that the saved workspace does not have: its files were lost with their machine. */
  is_workspace_stale: boolean
}

export const nextTurnRequest = z.strictObject({
  /** The agent will not ask again: where no turn waits its execution ends with this call. */
  is_last: z.boolean(),
})
export type NextTurnRequest = z.infer<typeof nextTurnRequest>
export interface NextTurnResponse {
  turn: TurnInput | null
  /** With a turn: all files that the run was given so far. */
  attachments?: RunAttachment[]
}

/** Decided by the server's configuration; `docs/configuration.md` names the variables. Times are milliseconds. */
export interface AgentLimits {
  renew_every_ms: number
  /** Stop yourself when no renewal was acknowledged for this long. */
  stop_after_ms: number
  /** Without an acknowledged renewal for this long another execution may be at work: nothing polite is left to do. */
  lost_after_ms: number
  /** At rest, or with only its end to do: stop when no renewal was acknowledged for this long. A follow-up may begin elsewhere soon after. */
  settled_stop_after_ms: number
  /** Model answers per turn. */
  max_steps: number
  /** Per answer. */
  max_output_tokens: number
  /** Per turn, over all its answers. */
  max_turn_output_tokens: number
  max_turn_ms: number
  llm_idle_timeout_ms: number
  llm_retry_for_ms: number
  setup_command_timeout_ms: number
  command_timeout_ms: number
  workspace_max_bytes: number
  spool_max_bytes: number
  /** Of one command's output, for people; the model reads less. */
  output_max_bytes: number
  /** Whether tools may fetch pages from the network. */
  web_fetch: boolean
}

/** What the agent sends beside session events; the server acts on these and writes what viewers see of them. */
export interface AgentControlData {
  /** Exactly one per turn; the first one counts. */
  turn_outcome: {
    turn_id: string
    outcome: z.infer<typeof turnOutcome>
    message: string
    /** Code of the error registry, or a platform code. */
    error_code?: string
    /** Every message of the turn that is in a checkpoint which was sent: what is missing here becomes a turn of its own. */
    taken_message_ids?: string[]
  }
  /** Stored in the same transaction as the events of its step. */
  checkpoint: {
    harness: string
    format: string
    step: number
    blob_id: string
    /** Messages that are in it: a later execution is not given them again. */
    taken_message_ids?: string[]
    /** Nothing was done since the workspace was saved (only said): it is no older than this. */
    is_work_saved?: boolean
  }
  workspace_saved: { repositories: SavedRepository[]; left_out: string[] }
  /** Skills of a repository that the run has cloned: what the server had of the repository before is replaced. */
  skills_found: {
    /** Without credentials. */
    repository_url: string
    skills: FoundSkill[]
  }
  /** Shown as the run's `status_message` until the next step is finished. */
  model_wait: SessionEventData['model_wait']
}

/** A `SKILL.md`. */
export interface FoundSkill {
  /** Inside the repository. */
  path: string
  name: string
  description: string
  /** The text behind its head. */
  base_prompt: string
  /** What is wrong with it. */
  error?: string
}

const turnOutcome = z.enum(turnOutcomes)
const messageIds = z.array(z.uuid()).max(maxTurnMessages)

const savedRepository = z.object({
  dir: z.string().max(4096),
  url: z.string().max(2048).optional(),
  branch: z.string().max(1024).nullable(),
  base: z.string().max(64).nullable(),
  head: z.string().max(64).nullable(),
  commits: z.int().min(0),
  files_changed: z.int().min(0),
  insertions: z.int().min(0),
  deletions: z.int().min(0),
  uncommitted: z.boolean(),
  bundle_blob_id: z.uuid().nullable(),
  diff_blob_id: z.uuid().nullable(),
}) satisfies z.ZodType<SavedRepository>

/** Checked by the server; an event that does not fit is kept as `event_invalid`, never refused. */
export const agentControlData = {
  turn_outcome: z.object({
    turn_id: z.uuid(),
    outcome: turnOutcome,
    message: z.string(),
    error_code: z.string().max(64).optional(),
    taken_message_ids: messageIds.optional(),
  }),
  checkpoint: z.object({
    harness: z.string().max(64),
    format: z.string().max(64),
    // The store's integer.
    step: z.int().min(0).max(2_147_483_647),
    blob_id: z.uuid(),
    taken_message_ids: messageIds.optional(),
    is_work_saved: z.boolean().optional(),
  }),
  workspace_saved: z.object({
    repositories: z.array(savedRepository).max(50),
    left_out: z.array(z.string()).max(1000),
  }),
  skills_found: z.object({
    repository_url: z.string().max(2048),
    skills: z
      .array(
        z.object({
          path: z.string().max(512),
          name: z.string().max(255),
          description: z.string().max(4096),
          base_prompt: z.string().max(maxSkillBytes),
          error: z.string().max(1024).optional(),
        }),
      )
      .max(maxSkills),
  }),
  model_wait: z.object({
    reason: z.string().max(2048),
    until: z.iso.datetime({ offset: true }),
    attempt: z.int().min(1),
  }),
} as const

/** Session events that agents write. `run_state`, `usage` and `participant` are the server's own. */
export const agentSessionEventTypes = [
  'setup_step',
  'user_message',
  'agent_message_chunk',
  'agent_thought_chunk',
  'answer_withdrawn',
  'tool_call',
  'tool_call_update',
  'plan',
  'terminal_output',
  'artifact',
  'notice',
  'message_delivered',
] as const satisfies readonly (keyof SessionEventData)[]

export type AgentEventData = Pick<SessionEventData, (typeof agentSessionEventTypes)[number]> & AgentControlData
export type AgentEventType = keyof AgentEventData

/** An event before it is numbered. */
export type AgentEvent = { [T in AgentEventType]: { type: T; data: AgentEventData[T] } }[AgentEventType]

/** One numbered event on the wire. `n` counts per execution from 1 without holes. */
export interface NumberedEvent {
  n: number
  type: string
  /** The agent's clock, RFC 3339; shown, never decided upon. */
  at: string
  data: Record<string, unknown>
}

/** Loose on purpose: an event may not fit, a batch must always be answerable. */
export const eventBatch = z.object({
  events: z
    .array(
      z.object({
        n: z.int().min(1),
        type: z.string().max(64).catch('unreadable'),
        at: z.string().max(64).catch(''),
        data: z.unknown(),
      }),
    )
    .max(maxBatchEvents),
})
export type EventBatch = { events: NumberedEvent[] }

export interface EventBatchResponse {
  /** Everything up to here is stored for good. */
  acked_n: number
  /** The batch left a gap: send again from here. */
  resend_from?: number
  /** The execution is over: what came was kept as late evidence; stop yourself and your tools. */
  superseded?: boolean
}

/** What the control plane asks of a live agent. Delivered until acknowledged, in order, de-duplicated by `id`. */
export type AgentCommand =
  | { id: string; type: 'cancel'; payload: { reason: string } }
  | { id: string; type: 'stop'; payload: { reason: string } }
  /** Somebody said something to the turn at work. */
  | { id: string; type: 'message'; payload: TurnMessage & { turn_id: string } }
  /** A turn waits: ask for it when you rest. */
  | { id: string; type: 'turn'; payload: Record<string, never> }
  /** Your slot is needed: leave if you rest. */
  | { id: string; type: 'end_idle'; payload: { reason: string } }

export const ackCommandsRequest = z.strictObject({ ids: z.array(z.uuid()).max(100) })
export const blobResponse = z.object({ blob_id: z.uuid(), size_bytes: z.int() })
export type BlobResponse = z.infer<typeof blobResponse>
