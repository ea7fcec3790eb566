import type { AmbientAgentConfig, PlatformErrorCode, RunMode, RunSource, RunState } from '@openoz/protocol'
import type { Queryable, Tx } from './database.ts'

/** A run as the rules see it. Times are Dates on the database's clock. */
export interface RunRecord {
  id: string
  teamId: string
  scope: 'team' | 'user'
  createdByUser: string | null
  createdByKey: string | null
  conversationId: string
  parentRunId: string | null
  title: string
  prompt: string
  source: RunSource
  executionLocation: 'LOCAL' | 'REMOTE'
  /** Of a local run: the machine that it was started on. */
  host: string | null
  mode: RunMode
  config: AmbientAgentConfig
  environmentId: string | null
  metadata: Record<string, string>
  modelId: string | null
  workerHost: string | null
  state: RunState
  statusMessage: string | null
  errorCode: PlatformErrorCode | null
  failureReason: string | null
  fence: number
  retries: Record<string, number>
  cancelRequestedAt: Date | null
  queuedAt: Date
  notBefore: Date | null
  /** Attempts at one turn; null: as many as the reasons of their failures allow. */
  maxAttempts: number | null
  /** Attempts in a row that ended together with their worker. */
  workerDeaths: number
  /** A lost execution whose worker has still to say that nothing of it runs, and until when that is waited for. */
  awaitsGone: string | null
  awaitsGoneUntil: Date | null
  createdAt: Date
  updatedAt: Date
  startedAt: Date | null
  endedAt: Date | null
}

export interface RunRow {
  id: string
  team_id: string
  scope: 'team' | 'user'
  created_by_user: string | null
  created_by_key: string | null
  conversation_id: string
  parent_run_id: string | null
  title: string
  prompt: string
  source: RunSource
  execution_location: 'LOCAL' | 'REMOTE'
  host: string | null
  mode: RunMode
  config: AmbientAgentConfig
  environment_id: string | null
  metadata: Record<string, string>
  model_id: string | null
  worker_host: string
  state: RunState
  status_message: string | null
  error_code: PlatformErrorCode | null
  failure_reason: string | null
  fence: number
  retries: Record<string, number>
  cancel_requested_at: Date | null
  queued_at: Date
  not_before: Date | null
  max_attempts: number | null
  worker_deaths: number
  awaits_gone: string | null
  awaits_gone_until: Date | null
  created_at: Date
  updated_at: Date
  started_at: Date | null
  ended_at: Date | null
}

export function toRun(row: RunRow): RunRecord {
  return {
    id: row.id,
    teamId: row.team_id,
    scope: row.scope,
    createdByUser: row.created_by_user,
    createdByKey: row.created_by_key,
    conversationId: row.conversation_id,
    parentRunId: row.parent_run_id,
    title: row.title,
    prompt: row.prompt,
    source: row.source,
    executionLocation: row.execution_location,
    host: row.host,
    mode: row.mode,
    config: row.config,
    environmentId: row.environment_id,
    metadata: row.metadata,
    modelId: row.model_id,
    workerHost: row.worker_host === '' ? null : row.worker_host,
    state: row.state,
    statusMessage: row.status_message,
    errorCode: row.error_code,
    failureReason: row.failure_reason,
    fence: row.fence,
    retries: row.retries,
    cancelRequestedAt: row.cancel_requested_at,
    queuedAt: row.queued_at,
    notBefore: row.not_before,
    maxAttempts: row.max_attempts,
    workerDeaths: row.worker_deaths,
    awaitsGone: row.awaits_gone,
    awaitsGoneUntil: row.awaits_gone_until,
    createdAt: row.created_at,
    updatedAt: row.updated_at,
    startedAt: row.started_at,
    endedAt: row.ended_at,
  }
}

/** A row as `to_json` writes it: times are text. */
export type RunJson = { [K in keyof RunRow]: Date extends RunRow[K] ? string | Extract<RunRow[K], null> : RunRow[K] }

export function fromRunJson(json: RunJson): RunRecord {
  const time = (text: string) => new Date(text)
  const timeOrNull = (text: string | null) => (text === null ? null : new Date(text))
  return toRun({
    ...json,
    cancel_requested_at: timeOrNull(json.cancel_requested_at),
    queued_at: time(json.queued_at),
    not_before: timeOrNull(json.not_before),
    awaits_gone_until: timeOrNull(json.awaits_gone_until),
    created_at: time(json.created_at),
    updated_at: time(json.updated_at),
    started_at: timeOrNull(json.started_at),
    ended_at: timeOrNull(json.ended_at),
  })
}

export type NewRun = Pick<
  RunRecord,
  | 'id'
  | 'teamId'
  | 'scope'
  | 'createdByUser'
  | 'createdByKey'
  | 'conversationId'
  | 'parentRunId'
  | 'title'
  | 'prompt'
  | 'source'
  | 'executionLocation'
  | 'host'
  | 'mode'
  | 'config'
  | 'environmentId'
  | 'metadata'
  | 'modelId'
  | 'workerHost'
  | 'statusMessage'
  | 'maxAttempts'
>

/** Writes a queued run with its conversation, its first turn and its empty session log: one statement. */
export async function insertRun(
  tx: Tx,
  run: NewRun,
  turn: { id: string; author: string },
  forkedFrom: string | null = null,
): Promise<RunRecord> {
  const { rows } = await tx.query<RunRow>(
    `with conversation as (
       insert into conversations (id, team_id, forked_from) values ($6, $2, $18) on conflict do nothing
     ), run as (
       insert into runs (id, team_id, scope, created_by_user, created_by_key, conversation_id, parent_run_id, title, prompt,
                         source, execution_location, config, model_id, worker_host, state, status_message,
                         host, mode, environment_id, metadata, max_attempts)
       values ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12, $13, $14, 'QUEUED', $15, $19, $20, $21, $22, $23)
       returning *
     ), turn as (
       insert into turns (id, run_id, number, message, author) select $16, id, 1, prompt, $17 from run
     ), log as (
       insert into session_logs (run_id) select id from run
     )
     select * from run`,
    [
      run.id,
      run.teamId,
      run.scope,
      run.createdByUser,
      run.createdByKey,
      run.conversationId,
      run.parentRunId,
      run.title,
      run.prompt,
      run.source,
      run.executionLocation,
      JSON.stringify(run.config),
      run.modelId,
      run.workerHost ?? '',
      run.statusMessage,
      turn.id,
      turn.author,
      forkedFrom,
      run.host,
      run.mode,
      run.environmentId,
      JSON.stringify(run.metadata),
      run.maxAttempts,
    ],
  )
  return toRun(rows[0] as RunRow)
}

export async function findRun(db: Queryable, runId: string): Promise<RunRecord | undefined> {
  const { rows } = await db.query<RunRow>('select * from runs where id = $1', [runId])
  return rows[0] && toRun(rows[0])
}

/**
 * Locks the run first, as every change of it must: run, then execution, then log. Ids never change, so the lock is `no key update`: whoever only
 * refers to the run by a foreign key (an event that is inserted under the execution's lock) does not wait for it, and cannot deadlock with it.
 */
export async function findRunForUpdate(tx: Tx, runId: string): Promise<RunRecord | undefined> {
  const { rows } = await tx.query<RunRow>('select * from runs where id = $1 for no key update', [runId])
  return rows[0] && toRun(rows[0])
}

/** The same for several, in the order of their ids, so that two who lock some of the same never wait for each other. */
export async function listRunsForUpdate(tx: Tx, runIds: string[]): Promise<RunRecord[]> {
  const { rows } = await tx.query<RunRow>('select * from runs where id = any($1) order by id for no key update', [
    runIds,
  ])
  return rows.map(toRun)
}

export async function updateRunCancelRequested(tx: Tx, runId: string, by: string): Promise<void> {
  await tx.query(
    `update runs set cancel_requested_at = db_now(), cancel_requested_by = $2, updated_at = db_now(),
            status_message = 'Cancelling: waiting for the agent to stop.'
      where id = $1 and cancel_requested_at is null`,
    [runId, by],
  )
}

/** An execution of it was lost: before another one begins, its worker has this long to say that nothing of it runs any more. */
export async function updateRunAwaitsGone(tx: Tx, runId: string, executionId: string, seconds: number): Promise<void> {
  await tx.query(
    'update runs set awaits_gone = $2, awaits_gone_until = db_now() + make_interval(secs => $3) where id = $1',
    [runId, executionId, seconds],
  )
}

/** What it waited for is gone. */
export async function updateRunGone(tx: Tx, runId: string): Promise<void> {
  await tx.query('update runs set awaits_gone = null, awaits_gone_until = null where id = $1', [runId])
}

export async function updateWorkerDeaths(tx: Tx, runId: string, count: number): Promise<void> {
  await tx.query('update runs set worker_deaths = $2 where id = $1', [runId, count])
}

/** What a run at work waits for; no transition, and no change of its order in lists. */
export async function updateStatusMessage(tx: Tx, runId: string, message: string): Promise<void> {
  await tx.query('update runs set status_message = $2 where id = $1', [runId, message])
}

/** A new turn begins: what an earlier one left (a cancel, retries, a delay) no longer counts, and the run queues at the end. */
export async function updateRunReopened(tx: Tx, runId: string): Promise<void> {
  await tx.query(
    `update runs set cancel_requested_at = null, cancel_requested_by = null, retries = '{}', not_before = null,
            queued_at = db_now()
      where id = $1`,
    [runId],
  )
}

/** Locks the conversation: whether one of its runs is at work is decided under it. Undefined when there is none of that team. */
export async function findConversationForUpdate(
  tx: Tx,
  conversationId: string,
  teamId: string,
): Promise<{ id: string } | undefined> {
  const { rows } = await tx.query<{ id: string }>(
    'select id from conversations where id = $1 and team_id = $2 for no key update',
    [conversationId, teamId],
  )
  return rows[0]
}

/** Which of its runs' agents came last is decided under it. The caller has locked its own run and execution, and not the log. */
export async function lockConversation(tx: Tx, conversationId: string): Promise<void> {
  await tx.query('select from conversations where id = $1 for no key update', [conversationId])
}

/** The runs of a conversation, oldest first. */
export async function listRunsOfConversation(db: Queryable, conversationId: string): Promise<RunRecord[]> {
  const { rows } = await db.query<RunRow>('select * from runs where conversation_id = $1 order by created_at, id', [
    conversationId,
  ])
  return rows.map(toRun)
}

/**
 * The same; of a copy that has none yet, the runs that what it was copied from had by then: they decide who may see it, and what goes on in it.
 * What happened there later is not in the copy.
 */
export async function listRunsBehindConversation(db: Queryable, conversationId: string): Promise<RunRecord[]> {
  const { rows } = await db.query<RunRow>(
    `with recursive line as (
       select id, forked_from, created_at, 'infinity'::timestamptz as until from conversations where id = $1
       union all
       select origin.id, origin.forked_from, origin.created_at, line.created_at
         from line join conversations origin on origin.id = line.forked_from
        where not exists (select from runs where conversation_id = line.id and created_at <= until)
     )
     select runs.* from runs join line on line.id = conversation_id and runs.created_at <= until
      order by runs.created_at, runs.id`,
    [conversationId],
  )
  return rows.map(toRun)
}

/** The runs of a conversation, locked in this order: nothing of them changes before the transaction's end, but others may read them so at the same time. */
export async function listRunsOfConversationForShare(tx: Tx, conversationId: string): Promise<RunRecord[]> {
  const { rows } = await tx.query<RunRow>(
    'select * from runs where conversation_id = $1 order by created_at, id for share',
    [conversationId],
  )
  return rows.map(toRun)
}

/** What a waiting run waits for, without touching its order in lists. A sentence that says why it waits again is kept. */
export async function updateQueuedStatusMessages(db: Queryable, workerHost: string, teamId: string, message: string) {
  await db.query(
    `update runs set status_message = $3
      where state = 'QUEUED' and team_id = $1 and worker_host = $2
        and status_message like 'Waiting for%' and status_message <> $3`,
    [teamId, workerHost, message],
  )
}

/** Runs before this one in the queue of the same team that the same workers could take. */
export async function countRunsBefore(db: Queryable, run: RunRecord): Promise<number> {
  const { rows } = await db.query<{ count: number }>(
    `select count(*) as count from runs
      where state = 'QUEUED' and execution_location = 'REMOTE' and team_id = $1 and (queued_at, id) < ($2, $3)
        and ($4 = '' or worker_host in ('', $4))`,
    [run.teamId, run.queuedAt, run.id, run.workerHost ?? ''],
  )
  return rows[0]?.count ?? 0
}

/** Runs that have not ended, over the whole installation. */
export async function countRunsByState(db: Queryable): Promise<{ state: RunState; count: number }[]> {
  const { rows } = await db.query<{ state: RunState; count: number }>(
    `select state, count(*) as count from runs
      where state not in ('SUCCEEDED', 'FAILED', 'ERROR', 'CANCELLED') group by state`,
  )
  return rows
}
