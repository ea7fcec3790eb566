import { z } from 'zod'
import { ambientAgentConfig, notSupported } from './agent-config.ts'
import { artifactItem, artifactTypes } from './artifacts.ts'
import { maxAttachments } from './attachment-limits.ts'
import { attachmentInput } from './attachments.ts'
import { platformErrorCodes } from './error-spec.ts'
import { executionStates, runStates } from './run-state.ts'
import { scope } from './scope.ts'
import { share } from './shares.ts'
import { instant, timestamp } from './timestamps.ts'

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
  // Of the reference; filters take them, nothing here makes such runs yet.
  'JIRA',
  'SELF_IMPROVEMENT',
  'GITHUB_WEBHOOK',
  'GITLAB_WEBHOOK',
  'AUTOFIX',
  'RUN_SCORER',
  'ORCHESTRATION',
] as const
export type RunSource = (typeof runSources)[number]

export const executionLocations = ['LOCAL', 'REMOTE'] as const

export const runModes = ['normal', 'plan', 'orchestrate'] as const
export type RunMode = (typeof runModes)[number]

const runState = z.enum(runStates).meta({ id: 'RunState' })

/** Labels of the caller's own: at most 20, found again by `metadata[key]=value`. */
const metadata = z
  .record(z.string().min(1).max(64), z.string().max(512))
  .refine((labels) => Object.keys(labels).length <= 20, 'takes at most 20 keys')

const imageTypes = ['image/jpeg', 'image/png', 'image/gif', 'image/webp'] as const

export const createRunRequest = z
  .strictObject({
    /** What the agent shall do. Not empty, at most 1 MiB of UTF-8. */
    prompt: z.string().optional(),
    title: z.string().max(255).optional(),
    /** `plan`: the agent makes a plan and changes nothing. Default `normal`, which `orchestrate` is taken for as well. */
    mode: z.enum(runModes).optional(),
    config: ambientAgentConfig.optional(),
    /** `false` makes a personal run. A team's key always makes team runs. Default: true. */
    team: z.boolean().optional(),
    /** Groups a child under its parent in lists. */
    parent_run_id: z.uuid().optional(),
    /** Continues this conversation, with its workspace. Environment, model and base prompt are those of its last run where `config` names none. */
    conversation_id: z.uuid().optional(),
    interactive: z.boolean().optional(),
    metadata: metadata.optional(),
    attachments: z.array(attachmentInput).max(maxAttachments).optional(),
    /** The older SDK's attachments. */
    images: z
      .array(z.strictObject({ data: z.string(), mime_type: z.enum(imageTypes) }))
      .max(maxAttachments)
      .optional(),
    /** How its attempts at one turn are limited. Default: as often as the retry policy of each failure's reason says. */
    retry: z.strictObject({ max_attempts: z.int().min(1).max(10) }).optional(),
    /** Who may look at it or steer it, beside its team or creator. */
    share: z.array(share).max(100).optional(),
    skill: notSupported,
    agent_identity_uid: notSupported,
    on_behalf_of: notSupported,
  })
  .meta({ id: 'RunAgentRequest' })
export type CreateRunRequest = z.infer<typeof createRunRequest>

/** A run that the caller's own machine performs (`oz agent run`): no worker is asked. `config.worker_host` has no meaning for it. */
export const startLocalRunRequest = createRunRequest
  .extend({
    /** Name of the machine, shown to people. */
    host: z.string().min(1).max(255),
    /** The agent will save what it made of the folder at the end of its turns. Default: true. */
    saves_workspace: z.boolean().optional(),
  })
  .meta({ id: 'StartLocalRunRequest' })
export type StartLocalRunRequest = z.infer<typeof startLocalRunRequest>

export const createRunResponse = z
  .object({
    run_id: z.uuid(),
    task_id: z.uuid().describe('Deprecated twin of `run_id`.'),
    state: runState,
    at_capacity: z.boolean().describe('No connected worker that may take it has a free slot right now.'),
  })
  .meta({ id: 'RunAgentResponse' })
export type CreateRunResponse = z.infer<typeof createRunResponse>

export const startLocalRunResponse = createRunResponse
  .extend({
    conversation_id: z.uuid(),
    execution_id: z.uuid(),
    execution_token: z.string().describe('The agent’s key: for this execution only, dead with it.'),
    run_url: z.string(),
  })
  .meta({ id: 'StartLocalRunResponse' })
export type StartLocalRunResponse = z.infer<typeof startLocalRunResponse>

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

const runCreator = z
  .object({
    type: z.enum(['user', 'service_account']),
    uid: z.string(),
    display_name: z.string(),
    email: z.string().optional(),
  })
  .meta({ id: 'RunCreatorInfo' })

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
        /** Finer than `error_code`: a code of docs/errors.md that the agent gave, a worker's reason for the end of its task, or `lost`. */
        failure_reason: z.string().optional(),
        retryable: z.boolean().optional(),
      })
      .meta({ id: 'RunStatusMessage' })
      .optional(),
    source: z.enum(runSources),
    creator: runCreator,
    /** Whose authority it runs with: the creator’s. */
    executor: runCreator,
    scope,
    request_usage: z
      .object({
        total_tokens: z.int(),
        input_tokens: z.int(),
        output_tokens: z.int(),
        requests: z.int(),
        inference_cost: z.number().optional(),
        inference_cost_usd: z.number().optional(),
      })
      .meta({ id: 'RequestUsage' }),
    usage: runUsage,
    agent_config: ambientAgentConfig,
    conversation_id: z.uuid(),
    forked_from_conversation_id: z.uuid().optional().describe('The conversation that this run’s began as a copy of.'),
    parent_run_id: z.uuid().optional(),
    is_sandbox_running: z.boolean(),
    is_run_type_cancellable: z.boolean(),
    artifacts: z.array(artifactItem),
    metadata: z.record(z.string(), z.string()),
    mode: z.enum(runModes),
    shares: z.array(share),
    host: z.string().optional().describe('Of a local run: the machine that it was started on.'),
    session_id: z.uuid().optional().describe('The newest execution.'),
    run_time: z.string().optional().describe('From the start to the end or to now, as an ISO 8601 duration.'),
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
  created_after: instant.optional(),
  created_before: instant.optional(),
  updated_after: instant.optional(),
  /** `empty-environment` finds those without one. */
  environment_id: z.string().optional(),
  ancestor_run_id: z.uuid().optional(),
  artifact_type: z.enum(artifactTypes).optional(),
  executor: z.string().optional(),
  /** Runs have none of these yet: a value finds nothing. */
  skill: z.string().optional(),
  skill_spec: z.string().optional(),
  schedule_id: z.string().optional(),
  automation_id: z.string().optional(),
  factory_uid: z.string().optional(),
  /** `metadata[key]=value`, at most 5: all of them. */
  metadata: z
    .record(z.string(), z.string())
    .refine((labels) => Object.keys(labels).length <= 5, 'takes at most 5 keys')
    .optional()
    .meta({ param: { style: 'deepObject', explode: true } }),
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
    /** The attempt at the same turn before this one, when this is a retry. */
    retry_of: z.uuid().nullable(),
    /** Of a local run: its host. */
    worker: z.string(),
    state: z.enum(executionStates),
    /** No renewal of the lease was acknowledged for `OZ_LEASE_UNREACHABLE`; nothing is decided by that. */
    unreachable: z.boolean(),
    created_at: timestamp,
    claimed_at: timestamp.nullable(),
    started_at: timestamp.nullable(),
    ended_at: timestamp.nullable(),
    outcome: z.string().nullable(),
    /** As in a run's `status_message`, of this attempt. */
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
    /** Of the registry (docs/errors.md), where something keeps a queued run from any worker; null while it only waits for its turn. */
    waiting_code: z.string().nullable(),
    /** 1: it is the next one of those that the same workers could take; null when it is not queued. */
    place_in_queue: z.int().nullable(),
    /** Every worker that is connected, and why it does not take the run (`reason` null: it may). */
    workers: z.array(z.object({ worker_id: z.string(), connection_id: z.string(), reason: z.string().nullable() })),
    error_code: z.enum(platformErrorCodes).nullable(),
    failure_reason: z.string().nullable(),
  })
  .meta({ id: 'WhyResponse' })
export type Why = z.infer<typeof whyResponse>

/** Which attempt’s: its place in the list of executions, from 1. Default: what the run goes on from. */
export const workspaceQuery = z.strictObject({ attempt: z.coerce.number().int().min(1).max(1_000_000).optional() })

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
