import { z } from 'zod'
import { ambientAgentConfig } from './agent-config.ts'
import { platformErrorCodes } from './error-spec.ts'
import { executionStates, runStates } from './run-state.ts'

/** 1 MiB: far above what a person writes and what a context window takes; larger material belongs into the repository. */
export const maxPromptBytes = 1_048_576

export const runSources = [
  'LINEAR',
  'API',
  'SLACK',
  'LOCAL',
  'SCHEDULED_AGENT',
  'WEB_APP',
  'GITHUB_ACTION',
  'CLOUD_MODE',
  'CLI',
] as const
export type RunSource = (typeof runSources)[number]

export const executionLocations = ['LOCAL', 'REMOTE'] as const

const timestamp = z.iso.datetime({ offset: true }).describe('RFC 3339, UTC')
const runState = z.enum(runStates).meta({ id: 'RunState' })

export const createRunRequest = z
  .strictObject({
    /** What the agent shall do. Not empty, at most 1 MiB of UTF-8. */
    prompt: z.string(),
    title: z.string().max(255).optional(),
    config: ambientAgentConfig.optional(),
    /** `false` makes a personal run. A team's key always makes team runs. Default: true. */
    team: z.boolean().optional(),
    /** Groups a child under its parent in lists. */
    parent_run_id: z.uuid().optional(),
    /** Continues this conversation, with its workspace. Environment, model and base prompt are those of its last run where `config` names none. */
    conversation_id: z.uuid().optional(),
    interactive: z.boolean().optional(),
  })
  .meta({ id: 'RunAgentRequest' })
export type CreateRunRequest = z.infer<typeof createRunRequest>

export const createRunResponse = z
  .object({
    run_id: z.uuid(),
    task_id: z.uuid().describe('Deprecated twin of `run_id`.'),
    state: runState,
    at_capacity: z.boolean().describe('No connected worker that may take it has a free slot right now.'),
  })
  .meta({ id: 'RunAgentResponse' })
export type CreateRunResponse = z.infer<typeof createRunResponse>

export const followUpModes = ['queue', 'steer', 'interrupt'] as const
export type FollowUpMode = (typeof followUpModes)[number]

export const followUpRequest = z
  .strictObject({
    /** Not empty, at most 1 MiB of UTF-8. */
    message: z.string(),
    /** `queue`: a turn of its own, after this one. `steer`: at the next safe boundary. `interrupt`: stop now, then this. Default `queue`, which the SDK's own three modes are taken for as well. */
    mode: z.enum([...followUpModes, 'normal', 'plan', 'orchestrate']).default('queue'),
  })
  .meta({ id: 'RunFollowupRequest' })
export type FollowUpRequest = z.input<typeof followUpRequest>

export const followUpResponse = z
  .object({
    run_id: z.uuid(),
    message_id: z.uuid(),
    /** What it was taken as: steering needs a turn at work, without one it begins a turn. */
    mode: z.enum(followUpModes),
    /** Number of the turn that it began, or was said to. */
    turn: z.int(),
    state: runState,
  })
  .meta({ id: 'RunFollowupResponse' })
export type FollowUpResponse = z.infer<typeof followUpResponse>

export const forkRunRequest = z
  .strictObject({
    /** What the copy shall do. Not empty, at most 1 MiB of UTF-8. */
    prompt: z.string(),
    title: z.string().max(255).optional(),
  })
  .meta({ id: 'ForkRunRequest' })
export type ForkRunRequest = z.infer<typeof forkRunRequest>

export const runUsage = z
  .object({
    requests: z.int(),
    input_tokens: z.int(),
    output_tokens: z.int(),
    cache_read_tokens: z.int(),
    cache_write_tokens: z.int(),
    reasoning_tokens: z.int(),
    cost_usd: z.number().optional().describe('US dollars, of the requests whose price is known.'),
  })
  .meta({ id: 'RunUsage' })

export const runItem = z
  .object({
    run_id: z.uuid(),
    task_id: z.uuid().describe('Deprecated twin of `run_id`.'),
    title: z.string(),
    state: runState,
    execution_location: z.enum(executionLocations),
    prompt: z.string(),
    created_at: timestamp,
    updated_at: timestamp,
    started_at: timestamp.nullable(),
    finished_at: timestamp.nullable(),
    /** What the run waits for, or why it ended. */
    status_message: z
      .object({
        message: z.string(),
        error_code: z.enum(platformErrorCodes).optional(),
        retryable: z.boolean().optional(),
      })
      .meta({ id: 'RunStatusMessage' })
      .optional(),
    source: z.enum(runSources),
    creator: z
      .object({
        type: z.enum(['user', 'service_account']),
        uid: z.string(),
        display_name: z.string(),
        email: z.string().optional(),
      })
      .meta({ id: 'RunCreatorInfo' }),
    scope: z.object({ type: z.enum(['User', 'Team']), uid: z.string() }).meta({ id: 'Scope' }),
    request_usage: z
      .object({
        total_tokens: z.int(),
        input_tokens: z.int(),
        output_tokens: z.int(),
        requests: z.int(),
        inference_cost: z.number().optional(),
      })
      .meta({ id: 'RequestUsage' }),
    usage: runUsage,
    agent_config: ambientAgentConfig,
    conversation_id: z.uuid(),
    parent_run_id: z.uuid().optional(),
    is_sandbox_running: z.boolean(),
    is_run_type_cancellable: z.boolean(),
    artifacts: z.array(z.unknown()),
    /** The last `seq` of the run's session log. */
    last_event_sequence: z.int(),
  })
  .meta({ id: 'RunItem' })
export type Run = z.infer<typeof runItem>

const manyOf = <T extends z.ZodType>(item: T) =>
  z.preprocess((value) => (value === undefined || Array.isArray(value) ? value : [value]), z.array(item).optional())

export const listRunsQuery = z.strictObject({
  limit: z.coerce.number().int().min(1).max(500).default(20),
  cursor: z.string().optional(),
  sort_by: z.enum(['updated_at', 'created_at', 'title', 'agent']).default('updated_at'),
  sort_order: z.enum(['asc', 'desc']).default('desc'),
  /** May repeat: any of them. */
  state: manyOf(runState),
  name: z.string().optional(),
  model_id: z.string().optional(),
  creator: z.string().optional(),
  source: z.enum(runSources).optional(),
  execution_location: z.enum(executionLocations).optional(),
  created_after: z.iso.datetime({ offset: true }).optional(),
  created_before: z.iso.datetime({ offset: true }).optional(),
  updated_after: z.iso.datetime({ offset: true }).optional(),
  environment_id: z.string().optional(),
  ancestor_run_id: z.uuid().optional(),
  /** Every word must occur in title or prompt, in any case. */
  q: z.string().optional(),
})
export type ListRunsQuery = z.infer<typeof listRunsQuery>

export const listRunsResponse = z
  .object({
    runs: z.array(runItem),
    page_info: z.object({ has_next_page: z.boolean(), next_cursor: z.string().optional() }).meta({ id: 'PageInfo' }),
  })
  .meta({ id: 'ListRunsResponse' })
export type ListRunsResponse = z.infer<typeof listRunsResponse>

/** One step of the way from the accepted run to the agent's first word, in order. Durations are milliseconds. */
const waterfallStep = z
  .object({ step: z.string(), started_at: timestamp, duration_ms: z.number().nullable(), status: z.string() })
  .meta({ id: 'WaterfallStep' })
export type WaterfallStep = z.infer<typeof waterfallStep>

export const executionItem = z
  .object({
    execution_id: z.uuid(),
    worker: z.string(),
    state: z.enum(executionStates),
    /** No renewal of the lease was acknowledged for `OZ_LEASE_UNREACHABLE`; nothing is decided by that. */
    unreachable: z.boolean(),
    created_at: timestamp,
    claimed_at: timestamp.nullable(),
    started_at: timestamp.nullable(),
    ended_at: timestamp.nullable(),
    outcome: z.string().nullable(),
    failure_reason: z.string().nullable(),
    exit_code: z.int().nullable(),
    message: z.string().nullable(),
    waterfall: z.array(waterfallStep),
  })
  .meta({ id: 'Execution' })
export type Execution = z.infer<typeof executionItem>

export const listExecutionsResponse = z
  .object({ executions: z.array(executionItem) })
  .meta({ id: 'ListExecutionsResponse' })

/** Why a run waits, or why it ended. */
export const whyResponse = z
  .object({
    run_id: z.uuid(),
    state: runState,
    summary: z.string(),
    /** What to do next, or that nothing needs doing. */
    next_step: z.string(),
    /** 1: it is the next one of those that the same workers could take; null when it is not queued. */
    place_in_queue: z.int().nullable(),
    /** Every worker that is connected, and why it does not take the run (`reason` null: it may). */
    workers: z.array(z.object({ worker_id: z.string(), connection_id: z.string(), reason: z.string().nullable() })),
    error_code: z.enum(platformErrorCodes).nullable(),
    failure_reason: z.string().nullable(),
  })
  .meta({ id: 'WhyResponse' })
export type Why = z.infer<typeof whyResponse>

/** What the run changed, as last saved. Bundle and diff of repository `n` are at `agent/runs/{id}/workspace/{n}/bundle` and `…/diff`. */
export const workspaceResponse = z
  .object({
    run_id: z.uuid(),
    saved_at: timestamp,
    repositories: z.array(
      z.object({
        dir: z.string(),
        url: z.string().nullable(),
        branch: z.string().nullable(),
        base: z.string().nullable(),
        head: z.string().nullable(),
        commits: z.int(),
        files_changed: z.int(),
        insertions: z.int(),
        deletions: z.int(),
        uncommitted: z.boolean(),
        has_bundle: z.boolean(),
        has_diff: z.boolean(),
      }),
    ),
    /** What was not saved, and why. */
    left_out: z.array(z.string()),
  })
  .meta({ id: 'WorkspaceResponse' })
export type SavedWorkspace = z.infer<typeof workspaceResponse>
