import { z } from 'zod'

/**
 * The session log: what happened in a run, in order. Conversation items use the shapes of the Agent Client Protocol (camelCase keys as
 * there); the rest is ours. Readers: viewers (`oz run watch`, dashboard), transcripts, the waterfall. Adding a type costs a row here, a
 * line in `docs/glossary.md` and a branch in every exhaustive renderer.
 */

/** One item as viewers get it. `seq` starts at 1 and has no holes. */
export const sessionEvent = z
  .object({
    seq: z.int(),
    type: z.string(),
    execution_id: z.uuid().optional(),
    at: z.string(),
    data: z.record(z.string(), z.unknown()),
  })
  .meta({ id: 'SessionEvent' })

export const listEventsQuery = z.strictObject({
  /** Exclusive, like `Last-Event-ID`. */
  since: z.coerce.number().int().min(0).default(0),
  limit: z.coerce.number().int().min(1).max(500).default(100),
})

export const listEventsResponse = z
  .object({
    events: z.array(sessionEvent),
    /** The last `seq` returned, or `since` when nothing was. */
    next_since: z.int(),
    /** The run is terminal, no execution is live, and this page reaches the end. */
    is_complete: z.boolean(),
  })
  .meta({ id: 'ListEventsResponse' })
export type ListEventsResponse = z.infer<typeof listEventsResponse>

/** Steps of the way to the agent's first word; `agent` is the harness itself. */
export const setupSteps = [
  'offer',
  'claim',
  'start',
  'worker_setup',
  'image_pull',
  'agent_bundle',
  'sidecars',
  'container',
  'mirror',
  'hello',
  'workspace',
  'clone',
  'setup_command',
  'harness',
  'teardown',
] as const

/** Payloads by type. What an agent may send is `agentEventTypes`; the rest is written by the server. */
export interface SessionEventData {
  /** One per transition, one terminal one per turn. */
  run_state: { state: string; message?: string; error_code?: string; failure_reason?: string; late?: boolean }
  /** A step of the cold-start waterfall. `started`, then any number of `progress`, then `completed` or `failed` with its duration. */
  setup_step: {
    /** Of a newer worker it may be none of these. */
    step: (typeof setupSteps)[number]
    status: 'started' | 'progress' | 'completed' | 'failed'
    title?: string
    detail?: string
    started_at?: string
    duration_ms?: number
    /** With `progress`: how far it is, in `bytes`. `total` is absent while nobody knows it. */
    progress?: { current: number; total?: number; unit: string }
  }
  /** `turn` is the one that it began, or for `steer` and `interrupt` the one that it was said to. */
  user_message: {
    text: string
    turn: number
    message_id?: string
    author?: string
    mode?: 'queue' | 'steer' | 'interrupt'
  }
  /** The harness has put a steering message before its model. */
  message_delivered: { message_id: string }
  agent_message_chunk: { messageId: string; content: { type: 'text'; text: string } }
  agent_thought_chunk: { messageId: string; content: { type: 'text'; text: string } }
  /** The answer that these chunks (by their `messageId`) are of was cut off, and the model is asked again: they do not count. */
  answer_withdrawn: { message_ids: string[] }
  tool_call: {
    toolCallId: string
    title: string
    kind: 'read' | 'edit' | 'delete' | 'move' | 'search' | 'execute' | 'think' | 'fetch' | 'other'
    status: 'pending' | 'in_progress'
    /** Name of the tool as the model called it. */
    tool: string
    rawInput: Record<string, unknown>
    locations?: { path: string; line?: number }[]
  }
  tool_call_update: {
    toolCallId: string
    status: 'in_progress' | 'completed' | 'failed'
    /** With `failed`: it did not fail, it was stopped (an interruption, a cancel, the end of the turn's time). */
    cancelled?: true
    content?: (
      | { type: 'content'; content: { type: 'text'; text: string } }
      | { type: 'diff'; path: string; oldText: string | null; newText: string }
    )[]
    rawOutput?: Record<string, unknown>
    duration_ms?: number
    /** The whole output, where the event holds only its head and tail. */
    blob_id?: string
  }
  plan: {
    entries: { content: string; priority: 'high' | 'medium' | 'low'; status: 'pending' | 'in_progress' | 'completed' }[]
  }
  /** Output of a command while it runs. `toolCallId` is absent for setup commands, which name their `step`. */
  terminal_output: { toolCallId?: string; step?: string; text: string }
  /** One per model request, counted by the gateway. `input_tokens` are those that no cache had a part in. */
  usage: ModelUsage & { model: string; provider: string; estimated?: boolean }
  /** The agent waits before it asks the model again; `until` is RFC 3339. */
  model_wait: { reason: string; until: string; attempt: number }
  artifact: { artifact_type: string } & Record<string, unknown>
  participant: { action: 'joined' | 'left'; name: string }
  /** A sentence of ours to the reader: something was ignored, cut, retried. */
  notice: { level: 'info' | 'warning'; text: string }
  /** The conversation can go on from here. */
  checkpoint: { step: number }
  /** The workspace was saved; `left_out` says what was not, and why. */
  workspace_saved: { repositories: SavedRepository[]; left_out?: string[] }
  /** An event that could not be stored as it was; `reason` says why. */
  event_invalid: { original_type: string; reason: string }
  /** Late evidence of an outcome that was not taken, because its execution was over. */
  turn_outcome: { outcome: string; message?: string; late?: boolean }
}
export type SessionEventType = keyof SessionEventData

/** Tokens, and what they cost where the price is known. */
export interface ModelUsage {
  input_tokens: number
  output_tokens: number
  cache_read_tokens: number
  cache_write_tokens: number
  /** Those of `output_tokens` that were spent on thinking. */
  reasoning_tokens: number
  /** US dollars. Absent: the price table does not have the model. */
  cost_usd?: number
}

export type SessionEvent = {
  [T in SessionEventType]: { seq: number; type: T; execution_id?: string; at: string; data: SessionEventData[T] }
}[SessionEventType]

/** One repository of a saved workspace: where it was, and what the run made of it. */
export interface SavedRepository {
  /** Folder inside the workspace, `.` for the workspace itself. */
  dir: string
  url?: string
  branch: string | null
  /**
   * Commit that the run started from; null for a repository that the run made. `branch`, `base` and `head` are all null for files that lie in
   * no repository: `refs/oz/worktree` is then a commit without a parent that holds them.
   */
  base: string | null
  head: string | null
  /** Commits since `base`. */
  commits: number
  /** Diff statistics of everything since `base`, uncommitted work included. */
  files_changed: number
  insertions: number
  deletions: number
  /** True when there was work that no commit holds. */
  uncommitted: boolean
  /**
   * A git bundle that builds on `base`: `refs/oz/head` is the branch's tip, `refs/oz/worktree` a commit on top of it with everything
   * uncommitted and untracked (equal to `refs/oz/head` when there was nothing, or when it was too large). Other branches, tags and the last
   * stash (`refs/oz/stash`) that nobody else has are in it too. null: nothing new, or left out for its size.
   */
  bundle_blob_id: string | null
  /** `git diff --binary` from `base` to `refs/oz/worktree`, as text. null as above. */
  diff_blob_id: string | null
}

/** What viewers may be shown as it is: everything else in a payload is for programs. */
export const sessionEventTypes = [
  'run_state',
  'setup_step',
  'user_message',
  'agent_message_chunk',
  'agent_thought_chunk',
  'answer_withdrawn',
  'tool_call',
  'tool_call_update',
  'plan',
  'terminal_output',
  'usage',
  'artifact',
  'participant',
  'notice',
  'message_delivered',
  'model_wait',
  'checkpoint',
  'workspace_saved',
  'event_invalid',
  'turn_outcome',
] as const satisfies readonly SessionEventType[]
