import { z } from 'zod'
import { maxBatchEvents } from './agent-channel-paths.ts'
import type { AmbientAgentConfig } from './agent-config.ts'
import type { SavedRepository, SessionEventData } from './events.ts'
import { turnOutcomes } from './run-state.ts'

/**
 * The agent channel: plain HTTP from the agent (or from a worker that drains a dead agent's spool) to the control plane, authenticated by
 * the execution's token.
 *
 *   POST agent-channel/hello            who I am → everything the run needs
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
  wire: 'anthropic-messages' | 'openai-chat' | 'openai-responses'
  /** Path of the gateway on the control plane, e.g. `/llm/openai/v1`. The execution token is its key. */
  base_path: string
  context_window?: number
}

export interface HelloResponse {
  protocol: number
  run_id: string
  execution_id: string
  conversation_id: string
  /** 1 for the first attempt. */
  attempt: number
  turn: { turn_id: string; number: number; message: string }
  title: string
  config: AmbientAgentConfig
  /** null: no provider is configured; `model_problem` says what to tell the user. */
  model: ModelAccess | null
  model_problem?: string
  /** Where to go on from, when an earlier execution got that far. */
  checkpoint: { harness: string; format: string; step: number; blob_id: string } | null
  /** The workspace as last saved by an earlier execution of this run: put back after the clone. */
  workspace: { repositories: SavedRepository[] } | null
  limits: AgentLimits
  /** Already stored of this execution's stream. */
  acked_n: number
  run_url: string
}

/** Decided by the server's configuration; `docs/configuration.md` names the variables. Times are milliseconds. */
export interface AgentLimits {
  renew_every_ms: number
  /** Stop yourself when no renewal was acknowledged for this long. */
  stop_after_ms: number
  max_steps: number
  max_output_tokens: number
  llm_idle_timeout_ms: number
  llm_retry_for_ms: number
  setup_command_timeout_ms: number
  command_timeout_ms: number
  workspace_max_bytes: number
  spool_max_bytes: number
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
  }
  /** Stored in the same transaction as the events of its step. */
  checkpoint: { harness: string; format: string; step: number; blob_id: string }
  workspace_saved: { repositories: SavedRepository[]; left_out: string[] }
  /** The agent rests and can take a follow-up (`idle`), or works again (`running`). */
  execution_state: { state: 'running' | 'idle' }
}

const turnOutcome = z.enum(turnOutcomes)

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
  }),
  checkpoint: z.object({
    harness: z.string().max(64),
    format: z.string().max(64),
    step: z.int().min(0),
    blob_id: z.uuid(),
  }),
  workspace_saved: z.object({
    repositories: z.array(savedRepository).max(50),
    left_out: z.array(z.string()).max(1000),
  }),
  execution_state: z.object({ state: z.enum(['running', 'idle']) }),
} as const

/** Session events that agents write. `run_state` and `participant` are the server's own. */
export const agentSessionEventTypes = [
  'setup_step',
  'user_message',
  'agent_message_chunk',
  'agent_thought_chunk',
  'tool_call',
  'tool_call_update',
  'plan',
  'terminal_output',
  'usage',
  'artifact',
  'notice',
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

export const ackCommandsRequest = z.strictObject({ ids: z.array(z.uuid()).max(100) })
export const blobResponse = z.object({ blob_id: z.uuid(), size_bytes: z.int() })
export type BlobResponse = z.infer<typeof blobResponse>
