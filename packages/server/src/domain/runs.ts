import {
  type AmbientAgentConfig,
  AppError,
  type CreateRunRequest,
  type CreateRunResponse,
  type ForkRunRequest,
  isLive,
  isTerminal,
  isUuid,
  type ListRunsQuery,
  type ListRunsResponse,
  type Run,
  type RunSource,
  runCan,
  type Share,
} from '@openoz/protocol'
import { maxPromptBytes, unsupportedConfigKeys } from '@openoz/protocol/schemas'
import { v7 as uuidv7 } from 'uuid'
import { insertAuditEvent } from '../store/audit-events.ts'
import { insertCommand } from '../store/commands.ts'
import type { Tx } from '../store/database.ts'
import { type ExecutionRecord, findCurrentExecutionForUpdate, updateExecutionEnded } from '../store/executions.ts'
import { findRunWithFacts, listRuns as listRunRecords, noEnvironment, type RunCursor } from '../store/run-lists.ts'
import {
  findRun,
  findRunForUpdate,
  insertRun,
  listRunsBehindConversation,
  type RunRecord,
  updateRunCancelRequested,
} from '../store/runs.ts'
import { insertShares } from '../store/shares.ts'
import { listWorkerConnections } from '../store/workers.ts'
import { type Actor, actorLabel, actorName } from './actors.ts'
import { type PlannedAttachment, planAttachments, storeAttachments } from './attachments.ts'
import { type Ctx, change, type Hint } from './context.ts'
import { claimConversation, copyConversation } from './conversation-use.ts'
import { checkEnvironmentConfig, requireEnvironment } from './environments.ts'
import { maySee, scopeFor } from './permissions.ts'
import { toRunItem } from './run-item.ts'
import { appendServerEvents, storableJson, storableText } from './session-log.ts'
import { readShares } from './shares.ts'
import { endCancelled } from './turns.ts'
import { waitingSentence, workerIds } from './why.ts'

/** Minutes that a managed run's agent waits for a follow-up when nobody said otherwise. */
const defaultIdleMinutes = 10

/** Everything about a new run that can be decided, and refused, before the transaction. */
export interface PlannedRun {
  request: CreateRunRequest
  /** The conversation that it shall have a copy of. */
  forkOf?: string
  /** A local run: the machine that performs it. No worker is asked. */
  host?: string
  shares: Share[]
  attachments: PlannedAttachment[]
  config: AmbientAgentConfig
  workerHost: string | null
  statusMessage: string
  atCapacity: boolean
}

/** `base`: what the request's config is put on, if it is not what the request itself continues. */
export async function planRun(
  ctx: Ctx,
  request: CreateRunRequest,
  actor: Actor,
  base?: AmbientAgentConfig,
): Promise<PlannedRun> {
  refuseUnsupportedRequest(request)
  requireText(request.prompt ?? '', 'prompt')
  const requested = JSON.parse(storableJson(request.config ?? {})) as AmbientAgentConfig
  const inherited = base ?? (await inheritedConfig(ctx, request.conversation_id, actor))
  const { environment: _environment, environment_id: _environmentId, ...rest } = { ...inherited, ...requested }
  const wanted = { ...rest, ...(await chosenEnvironment(ctx, requested, inherited, actor)) }
  refuseUnsupported(wanted)

  if (request.parent_run_id !== undefined) await requireRun(ctx, request.parent_run_id, actor)
  // `warp` and '' mean "the vendor's machines" in the reference: here, any worker of the team.
  const workerHost = wanted.worker_host && wanted.worker_host !== 'warp' ? wanted.worker_host : null
  const modelId = await resolveModelId(ctx, wanted.model_id)
  const workers = await listWorkerConnections(ctx.db, actor.teamId)
  const candidates = workers.filter((worker) => workerHost === null || worker.workerId === workerHost)
  const { connected, draining } = workerIds(workers)
  const hasFreeSlot = candidates.some(
    (worker) => !worker.draining && (worker.maxConcurrentTasks === 0 || worker.active < worker.maxConcurrentTasks),
  )
  return {
    request,
    shares: readShares(request.share ?? []),
    attachments: planAttachments(request),
    workerHost,
    atCapacity: !hasFreeSlot,
    statusMessage: waitingSentence(workerHost, connected, draining),
    config: {
      ...wanted,
      ...(modelId === undefined ? {} : { model_id: modelId }),
      idle_timeout_minutes: wanted.idle_timeout_minutes ?? defaultIdleMinutes,
      harness: { type: wanted.harness?.type ?? 'oz' },
    },
  }
}

/**
 * What the run keeps of its environment. A stored one is copied now: no later change of it reaches the run. What is inherited is a copy already,
 * and stays the one that its workspace was made from; the id beside it only says where it came from, to whoever may know that.
 */
async function chosenEnvironment(
  ctx: Ctx,
  requested: AmbientAgentConfig,
  inherited: AmbientAgentConfig,
  actor: Actor,
): Promise<Pick<AmbientAgentConfig, 'environment' | 'environment_id'>> {
  if (requested.environment && requested.environment_id !== undefined) throw new AppError('environment_given_twice')
  if (requested.environment) {
    checkEnvironmentConfig(requested.environment)
    return { environment: requested.environment }
  }
  if (requested.environment_id !== undefined) {
    const { id, config } = await requireEnvironment(ctx.db, requested.environment_id, actor)
    return { environment: config, environment_id: id }
  }
  const { environment, environment_id } = inherited
  return { ...(environment && { environment }), ...(environment_id !== undefined && { environment_id }) }
}

/** Throws for what is said to an agent and is empty or too large; `kind` is what the request calls it. */
export function requireText(text: string, kind: 'prompt' | 'message'): void {
  const bytes = Buffer.byteLength(text)
  if (text.trim() === '') throw new AppError(`${kind}_empty`)
  if (bytes > maxPromptBytes) throw new AppError(`${kind}_too_large`, { bytes, maxBytes: maxPromptBytes })
}

/** Of the conversation's last run, what decides what the agent is and where it works: its workspace is put back into the same repositories. */
export async function inheritedConfig(
  ctx: Ctx,
  conversationId: string | undefined,
  actor: Actor,
): Promise<AmbientAgentConfig> {
  if (conversationId === undefined) return {}
  const runs = await listRunsBehindConversation(ctx.db, conversationId)
  const last = runs.at(-1)
  if (!last || !runs.every((run) => maySee(run, actor)))
    throw new AppError('conversation_not_found', { conversationId })
  const { environment, environment_id, model_id, base_prompt, harness } = last.config
  return {
    ...(environment && { environment }),
    ...(environment_id !== undefined && { environment_id }),
    ...(model_id !== undefined && { model_id }),
    ...(base_prompt !== undefined && { base_prompt }),
    ...(harness && { harness }),
  }
}

/** A run that begins with copies of another one's conversation and workspace, and with its config. */
export async function planFork(
  ctx: Ctx,
  runId: string,
  { prompt, title }: ForkRunRequest,
  actor: Actor,
): Promise<PlannedRun> {
  const source = await requireRun(ctx, runId, actor)
  const request: CreateRunRequest = {
    prompt,
    title: title ?? `Fork of ${source.title}`.slice(0, 255),
    team: source.scope === 'team',
  }
  const base = {
    ...source.config,
    ...(source.workerHost === null ? {} : { worker_host: source.workerHost }),
    // A local run ends at once for whoever waits for it by hand; the copy is a worker's.
    ...(source.executionLocation === 'LOCAL' ? { idle_timeout_minutes: defaultIdleMinutes } : {}),
  }
  return { ...(await planRun(ctx, request, actor, base)), forkOf: source.conversationId }
}

/** One transaction: the run, its config snapshot, its first turn and its first events. */
export async function createRun(
  tx: Tx,
  hint: Hint,
  plan: PlannedRun,
  actor: Actor,
  source: RunSource,
): Promise<CreateRunResponse> {
  if (actor.kind !== 'user' && actor.kind !== 'team')
    throw new AppError('not_authorized', { actor: actorLabel(actor), action: 'start runs' })
  const { request, forkOf } = plan
  const prompt = storableText(request.prompt ?? '')
  const conversationId = request.conversation_id ?? uuidv7()
  const scope = scopeFor(actor, request.team)
  if (request.conversation_id !== undefined)
    await claimConversation(tx, hint, { conversationId, actor, forRunId: null, scope })
  const run = await insertRun(
    tx,
    {
      id: uuidv7(),
      teamId: actor.teamId,
      scope,
      createdByUser: actor.userId,
      createdByKey: actor.keyId,
      conversationId,
      parentRunId: request.parent_run_id ?? null,
      title: storableText(request.title ?? titleOf(prompt)),
      prompt,
      source,
      executionLocation: plan.host === undefined ? 'REMOTE' : 'LOCAL',
      host: plan.host ?? null,
      mode: request.mode ?? 'normal',
      config: plan.config,
      environmentId: plan.config.environment_id ?? null,
      metadata: JSON.parse(storableJson(request.metadata ?? {})),
      modelId: plan.config.model_id ?? null,
      workerHost: plan.workerHost,
      statusMessage: plan.statusMessage,
      maxAttempts: request.retry?.max_attempts ?? null,
    },
    { id: uuidv7(), author: actorName(actor) },
    forkOf ?? null,
  )
  if (forkOf !== undefined) await copyConversation(tx, { from: forkOf, to: { conversationId, runId: run.id }, actor })
  await insertShares(tx, run.id, plan.shares)
  await storeAttachments(tx, run.id, plan.attachments)
  await appendServerEvents(tx, run.id, [
    { type: 'run_state', data: { state: 'QUEUED', message: plan.statusMessage } },
    { type: 'user_message', data: { text: prompt, turn: 1, author: actorName(actor) } },
    ...(run.mode === 'orchestrate' ? [orchestrateNotice] : []),
  ])
  await insertAuditEvent(tx, {
    teamId: run.teamId,
    actor: actorLabel(actor),
    action: 'run.create',
    target: `run:${run.id}`,
  })
  hint(`run ${run.id}`)
  if (run.executionLocation === 'REMOTE') hint(`queue ${run.teamId} ${run.workerHost ?? ''}`)
  return { run_id: run.id, task_id: run.id, state: run.state, at_capacity: plan.atCapacity }
}

const orchestrateNotice = {
  type: 'notice' as const,
  data: { level: 'info' as const, text: 'The mode `orchestrate` is not built: the run is performed as a normal one.' },
}

/** Features of the reference's config that this server does not have are refused by name instead of being dropped silently. */
function refuseUnsupportedRequest(request: CreateRunRequest): void {
  const what = (['skill', 'agent_identity_uid', 'on_behalf_of'] as const).find((key) => request[key] !== undefined)
  if (what) throw new AppError('operation_not_supported', { what: `\`${what}\`` })
}

function refuseUnsupported(config: AmbientAgentConfig): void {
  if (config.harness?.type !== undefined && config.harness.type !== 'oz')
    throw new AppError('harness_unknown', { harness: config.harness.type, known: 'oz' })
  const ofHarness = (['model_id', 'reasoning_level'] as const).find((key) => config.harness?.[key] !== undefined)
  if (ofHarness) throw new AppError('operation_not_supported', { what: `config.harness.${ofHarness}` })
  const unsupported = unsupportedConfigKeys.find((key) => config[key] !== undefined)
  if (unsupported) throw new AppError('operation_not_supported', { what: `config.${unsupported}` })
  if (config.computer_use_enabled === true)
    throw new AppError('operation_not_supported', { what: 'config.computer_use_enabled' })
}

/** Without a provider, or with none that lists a model, a run is still taken: its agent ends it with the sentence that says what to set. */
async function resolveModelId(ctx: Ctx, modelId: string | undefined): Promise<string | undefined> {
  try {
    return (await ctx.models.resolve(modelId)).id
  } catch (error) {
    if (
      error instanceof AppError &&
      (error.code === 'model_provider_missing' || error.code === 'model_default_missing')
    )
      return modelId
    throw error
  }
}

function titleOf(prompt: string): string {
  const line = prompt.trim().split('\n', 1)[0] ?? ''
  return line.length <= 80 ? line : `${line.slice(0, 79).trimEnd()}…`
}

/** The run, if the actor may see it; else `run_not_found`, whether it exists or not. */
export async function requireRun(ctx: Ctx, runId: string, actor: Actor): Promise<RunRecord> {
  return visible(isUuid(runId) ? await findRun(ctx.db, runId) : undefined, runId, actor)
}

function visible<R extends RunRecord>(run: R | undefined, runId: string, actor: Actor): R {
  if (!run || !maySee(run, actor)) throw new AppError('run_not_found', { runId })
  return run
}

export async function getRun(ctx: Ctx, runId: string, actor: Actor): Promise<Run> {
  return toRunItem(visible(isUuid(runId) ? await findRunWithFacts(ctx.db, runId) : undefined, runId, actor))
}

export async function listRuns(ctx: Ctx, query: ListRunsQuery, actor: Actor): Promise<ListRunsResponse> {
  if (query.ancestor_run_id !== undefined) await requireRun(ctx, query.ancestor_run_id, actor)
  const { environment_id: environmentId } = query
  if (environmentId !== undefined && environmentId !== noEnvironment && !isUuid(environmentId))
    return { runs: [], page_info: { has_next_page: false } }
  const sort = `${query.sort_by} ${query.sort_order}`
  const found = await listRunRecords(ctx.db, actor, query, readCursor(query.cursor, sort))
  const page = found.slice(0, query.limit)
  const last = page.at(-1)
  const hasNextPage = found.length > page.length
  return {
    runs: page.map(({ run }) => toRunItem(run)),
    page_info: {
      has_next_page: hasNextPage,
      ...(hasNextPage && last ? { next_cursor: writeCursor(sort, { value: last.sortValue, id: last.run.id }) } : {}),
    },
  }
}

function writeCursor(sort: string, cursor: RunCursor): string {
  return Buffer.from(JSON.stringify([sort, cursor.value, cursor.id])).toString('base64url')
}

function readCursor(cursor: string | undefined, sort: string): RunCursor | null {
  if (cursor === undefined || cursor === '') return null
  try {
    const [madeFor, value, id] = JSON.parse(Buffer.from(cursor, 'base64url').toString()) as [string, string, string]
    const isValue = typeof value === 'string' && (!sort.includes('_at ') || !Number.isNaN(Date.parse(value)))
    if (madeFor === sort && isValue && isUuid(id)) return { value, id }
  } catch {
    // Falls through to the one answer for all unusable cursors.
  }
  throw new AppError('cursor_invalid')
}

/**
 * Stores the wish at once; the state follows when the execution has ended or is fenced. Cancelling twice is fine, cancelling what ended otherwise
 * is refused, and a finished outcome is never undone.
 */
export async function cancelRun(ctx: Ctx, runId: string, actor: Actor): Promise<void> {
  await requireRun(ctx, runId, actor)
  await change(ctx, async (tx, hint) => {
    const run = await findRunForUpdate(tx, runId)
    if (!run) throw new AppError('run_not_found', { runId })
    if (run.state === 'CANCELLED' || run.cancelRequestedAt !== null) {
      if (isTerminal(run.state) && run.state !== 'CANCELLED')
        throw new AppError('run_not_cancellable', { runId, state: run.state })
      return
    }
    if (!runCan('cancel', run)) throw new AppError('run_not_cancellable', { runId, state: run.state })

    await updateRunCancelRequested(tx, runId, actorLabel(actor))
    await insertAuditEvent(tx, {
      teamId: run.teamId,
      actor: actorLabel(actor),
      action: 'run.cancel',
      target: `run:${runId}`,
    })
    const execution = await findCurrentExecutionForUpdate(tx, runId)
    if (!execution || !isLive(execution.state) || !hasBegun(run, execution)) {
      if (execution) await updateExecutionEnded(tx, execution.id, { state: 'ended', message: 'The run was cancelled.' })
      return endCancelled(tx, hint, run, undefined)
    }
    await insertCommand(tx, {
      id: uuidv7(),
      runId,
      executionId: execution.id,
      type: 'cancel',
      payload: { reason: 'Cancelled by user.' },
      once: true,
    })
    hint(`commands ${execution.id}`)
    hint('cancellations')
    hint(`run ${run.id}`)
  })
}

/**
 * Whether somebody must be asked to stop. An offer is simply withdrawn: a worker that claims it now is told that it is superseded. A local agent
 * that comes now is turned away at its hello. What a worker has claimed it may have started already.
 */
function hasBegun(run: RunRecord, { state, helloAt }: ExecutionRecord): boolean {
  return run.executionLocation === 'LOCAL' ? helloAt !== null : state !== 'offered'
}
