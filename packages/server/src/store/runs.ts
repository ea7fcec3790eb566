import type {
  AmbientAgentConfig,
  ListRunsQuery,
  ModelUsage,
  PlatformErrorCode,
  RunSource,
  RunState,
} from '@openoz/protocol'
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
  config: AmbientAgentConfig
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
  createdAt: Date
  updatedAt: Date
  startedAt: Date | null
  endedAt: Date | null
}

interface RunRow {
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
  config: AmbientAgentConfig
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
    config: row.config,
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
    createdAt: row.created_at,
    updatedAt: row.updated_at,
    startedAt: row.started_at,
    endedAt: row.ended_at,
  }
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
  | 'config'
  | 'modelId'
  | 'workerHost'
  | 'statusMessage'
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
                         source, execution_location, config, model_id, worker_host, state, status_message)
       values ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12, $13, $14, 'QUEUED', $15)
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

export interface RunChange {
  state: RunState
  statusMessage: string | null
  errorCode?: PlatformErrorCode | null
  failureReason?: string | null
  /** Set when the run goes back to the queue because of a retry. */
  retries?: Record<string, number>
  notBeforeSeconds?: number
}

/** Moves the run; `started_at` is set by its first INPROGRESS, `ended_at` by a terminal state and cleared when it leaves one. */
export async function updateRunState(tx: Tx, runId: string, change: RunChange): Promise<RunRecord> {
  const { rows } = await tx.query<RunRow>(
    `update runs set
       state = $2, status_message = $3, error_code = $4, failure_reason = $5,
       retries = coalesce($6::jsonb, retries),
       not_before = case when $7::float8 is null then not_before else db_now() + make_interval(secs => $7) end,
       started_at = case when $2 = 'INPROGRESS' then coalesce(started_at, db_now()) else started_at end,
       ended_at = case when $2 in ('SUCCEEDED', 'FAILED', 'ERROR', 'CANCELLED') then db_now() end,
       updated_at = db_now()
     where id = $1 returning *`,
    [
      runId,
      change.state,
      change.statusMessage,
      change.errorCode ?? null,
      change.failureReason ?? null,
      change.retries === undefined ? null : JSON.stringify(change.retries),
      change.notBeforeSeconds ?? null,
    ],
  )
  return toRun(rows[0] as RunRow)
}

export async function updateRunCancelRequested(tx: Tx, runId: string, by: string): Promise<void> {
  await tx.query(
    `update runs set cancel_requested_at = db_now(), cancel_requested_by = $2, updated_at = db_now(),
            status_message = 'Cancelling: waiting for the agent to stop.'
      where id = $1 and cancel_requested_at is null`,
    [runId, by],
  )
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

/** The runs of a conversation, oldest first. */
export async function listRunsOfConversation(db: Queryable, conversationId: string): Promise<RunRecord[]> {
  const { rows } = await db.query<RunRow>('select * from runs where conversation_id = $1 order by id', [conversationId])
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
      where state = 'QUEUED' and team_id = $1 and (queued_at, id) < ($2, $3)
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

/** What a list shows beside the run itself. */
export interface RunFacts {
  creatorName: string | null
  creatorEmail: string | null
  keyName: string | null
  hasLiveExecution: boolean
  lastSeq: number
  usage: ModelUsage & { requests: number }
}

type RunWithFactsRow = RunRow & {
  creator_name: string | null
  creator_email: string | null
  key_name: string | null
  has_live_execution: boolean
  last_seq: number
  input_tokens: number
  output_tokens: number
  cache_read_tokens: number
  cache_write_tokens: number
  reasoning_tokens: number
  cost_usd: number | null
  requests: number
}

const runWithFacts = `
  select runs.*, users.name as creator_name, users.email as creator_email, api_keys.name as key_name,
         exists (select from executions where run_id = runs.id and state in ('offered', 'claimed', 'running', 'idle'))
           as has_live_execution,
         session_logs.last_seq, usage.*
    from runs
    join session_logs on session_logs.run_id = runs.id
    left join users on users.id = runs.created_by_user
    left join api_keys on api_keys.id = runs.created_by_key
    cross join lateral (
      select coalesce(sum(input_tokens), 0)::bigint as input_tokens, coalesce(sum(output_tokens), 0)::bigint as output_tokens,
             coalesce(sum(cache_read_tokens), 0)::bigint as cache_read_tokens,
             coalesce(sum(cache_write_tokens), 0)::bigint as cache_write_tokens,
             coalesce(sum(reasoning_tokens), 0)::bigint as reasoning_tokens,
             sum(cost_usd) as cost_usd, count(*) as requests
        from model_usage where run_id = runs.id) as usage`

function toRunWithFacts(row: RunWithFactsRow): RunRecord & { facts: RunFacts } {
  return {
    ...toRun(row),
    facts: {
      creatorName: row.creator_name,
      creatorEmail: row.creator_email,
      keyName: row.key_name,
      hasLiveExecution: row.has_live_execution,
      lastSeq: row.last_seq,
      usage: {
        requests: row.requests,
        input_tokens: row.input_tokens,
        output_tokens: row.output_tokens,
        cache_read_tokens: row.cache_read_tokens,
        cache_write_tokens: row.cache_write_tokens,
        reasoning_tokens: row.reasoning_tokens,
        // Sums of fractions of a cent: what lies below a millionth of a dollar is noise.
        ...(row.cost_usd === null ? {} : { cost_usd: Math.round(row.cost_usd * 1e6) / 1e6 }),
      },
    },
  }
}

export async function findRunWithFacts(db: Queryable, runId: string) {
  const { rows } = await db.query<RunWithFactsRow>(`${runWithFacts} where runs.id = $1`, [runId])
  return rows[0] && toRunWithFacts(rows[0])
}

/** Sort keys as SQL, from the closed list of the query's schema: nothing of a request reaches the text. */
const sortColumns = {
  updated_at: 'runs.updated_at',
  created_at: 'runs.created_at',
  title: 'runs.title',
  // Runs without a skill last; there are none with one yet, so the id decides.
  agent: `coalesce(runs.config->>'skill_spec', '')`,
} as const

export interface RunCursor {
  value: string
  id: string
}

/** One page, newest first by default, of what the viewer may see: the team's runs and their own personal ones. */
export async function listRuns(
  db: Queryable,
  viewer: { teamId: string; userId: string | null },
  query: ListRunsQuery,
  after: RunCursor | null,
) {
  const values: unknown[] = [viewer.teamId, viewer.userId]
  const value = (item: unknown) => `$${values.push(item)}`
  const conditions = [`runs.team_id = $1 and (runs.scope = 'team' or runs.created_by_user = $2)`]
  const only = (item: unknown, condition: (placeholder: string) => string) => {
    if (item !== undefined) conditions.push(condition(value(item)))
  }
  only(query.state, (p) => `runs.state = any(${p})`)
  only(query.name, (p) => `runs.config->>'name' = ${p}`)
  only(query.model_id, (p) => `runs.model_id = ${p}`)
  only(query.creator, (p) => `coalesce(runs.created_by_user, runs.created_by_key)::text = ${p}`)
  only(query.source, (p) => `runs.source = ${p}`)
  only(query.execution_location, (p) => `runs.execution_location = ${p}`)
  only(query.created_after, (p) => `runs.created_at > ${p}::timestamptz`)
  only(query.created_before, (p) => `runs.created_at < ${p}::timestamptz`)
  only(query.updated_after, (p) => `runs.updated_at > ${p}::timestamptz`)
  only(query.environment_id, (p) => `coalesce(runs.config->>'environment_id', 'empty-environment') = ${p}`)
  only(
    query.ancestor_run_id,
    (p) => `runs.id in (with recursive descendants as (
        select id from runs where parent_run_id = ${p}
        union select child.id from runs child join descendants on child.parent_run_id = descendants.id)
      select id from descendants)`,
  )
  for (const word of query.q?.split(/\s+/).filter(Boolean) ?? [])
    only(`%${word.replace(/[\\%_]/g, '\\$&')}%`, (p) => `(runs.title ilike ${p} or runs.prompt ilike ${p})`)

  const column = sortColumns[query.sort_by]
  const [comparison, direction] = query.sort_order === 'asc' ? ['>', 'asc'] : ['<', 'desc']
  if (after) {
    const type = query.sort_by.endsWith('_at') ? 'timestamptz' : 'text'
    conditions.push(`(${column}, runs.id) ${comparison} (${value(after.value)}::${type}, ${value(after.id)}::uuid)`)
  }
  const { rows } = await db.query<RunWithFactsRow & { sort_value: string }>(
    `${runWithFacts.replace('select runs.*', `select (${column})::text as sort_value, runs.*`)}
      where ${conditions.join(' and ')}
      order by ${column} ${direction}, runs.id ${direction}
      limit ${value(query.limit + 1)}`,
    values,
  )
  return rows.map((row) => ({ run: toRunWithFacts(row), sortValue: row.sort_value }))
}
