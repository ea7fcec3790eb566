import type { ExecutionState } from '@openoz/protocol'
import { heartbeatIsFresh } from './control-plane.ts'
import type { Queryable, Tx } from './database.ts'
import { live, over } from './execution-states.ts'
import { type ExecutionRecord, type ExecutionRow, localWorkerId, toExecution } from './executions.ts'
import { presenceTables } from './presence.ts'

/**
 * Deadlines of executions, and who holds them. A statement that changes several executions locks them in the order of their ids, so that two such
 * statements never wait for each other.
 */

const isLive = `state in ${live}`

/** Renews what these connections hold, before their agents' hello and after their agents' end: the open socket is the worker's sign of life. */
export async function renewWorkerLeases(db: Queryable, connectionIds: string[]): Promise<void> {
  await db.query(
    `with held as (
       select id from executions where worker_connection_id = any($1) and lease_holder = 'worker' and ${isLive}
        order by id for no key update
     )
     update executions set lease_renewed_at = db_now() from held where executions.id = held.id`,
    [connectionIds],
  )
}

/** A worker's connection, as far as executions belong to it. */
export interface Holder {
  id: string
  workerId: string
  teamId: string
  /** Its process; null for workers that do not say. */
  instance: string | null
}

/**
 * A worker came back on another connection: what it still runs belongs to that one, and a cancel that was sent on the old one is sent again.
 * Answers the ids that are live.
 */
export async function updateExecutionsHolder(db: Queryable, holder: Holder, executionIds: string[]): Promise<string[]> {
  const { rows } = await db.query<{ id: string }>(
    `with held as (
       select executions.id from executions join runs on runs.id = executions.run_id
        where runs.team_id = $4 and executions.id = any($3) and worker_id = $2 and executions.${isLive}
        order by executions.id for no key update of executions
     )
     update executions set worker_connection_id = $1, worker_instance = coalesce($5, worker_instance), cancel_sent_at = null
       from held where executions.id = held.id returning executions.id`,
    [holder.id, holder.workerId, executionIds, holder.teamId, holder.instance],
  )
  return rows.map((row) => row.id)
}

/** What processes of this worker hold or were offered, without what is named. */
export async function listExecutionsOfInstances(
  db: Queryable,
  holder: Pick<Holder, 'workerId' | 'teamId'>,
  { instances, except }: { instances: string[]; except: string[] },
): Promise<{ executionId: string; runId: string; state: ExecutionState }[]> {
  const { rows } = await db.query<{ id: string; run_id: string; state: ExecutionState }>(
    `select executions.id, run_id, executions.state from executions join runs on runs.id = run_id
      where worker_instance = any($1) and executions.${isLive} and not executions.id = any($2)
        and worker_id = $3 and runs.team_id = $4
      order by executions.id`,
    [instances, except, holder.workerId, holder.teamId],
  )
  return rows.map((row) => ({ executionId: row.id, runId: row.run_id, state: row.state }))
}

/**
 * What workers of these connections have claimed on connections that are gone belongs to these now, and a cancel that was sent there is sent
 * again. For workers that do not say what they still run: only their id tells that it is theirs, and only where it cannot be another's under the
 * same id, who was there before it was claimed or is there beside it.
 */
export async function takeOverExecutions(
  db: Queryable,
  connectionIds: string[],
): Promise<{ executionId: string; runId: string; connectionId: string }[]> {
  const { rows } = await db.query<{ id: string; run_id: string; worker_connection_id: string }>(
    `with heir as (
       select * from worker_connections
        where id = any($1) and not exists (
              select from worker_connections sibling
               where sibling.team_id = worker_connections.team_id and sibling.worker_id = worker_connections.worker_id
                 and sibling.id <> worker_connections.id)
     ), left_behind as (
       select executions.id, heir.id as heir_id
         from heir join executions on executions.worker_id = heir.worker_id
                   join runs on runs.id = executions.run_id and runs.team_id = heir.team_id
        where executions.state in ('claimed', 'running', 'idle') and executions.claimed_at < heir.connected_at
          and executions.worker_connection_id is not null
          and not exists (select from worker_connections known where known.id = executions.worker_connection_id)
        order by executions.id for no key update of executions
     )
     update executions set worker_connection_id = heir_id, cancel_sent_at = null
       from left_behind where executions.id = left_behind.id
      returning executions.id, executions.run_id, executions.worker_connection_id`,
    [connectionIds],
  )
  return rows.map((row) => ({ executionId: row.id, runId: row.run_id, connectionId: row.worker_connection_id }))
}

export interface LeaseLimits {
  offerSeconds: number
  lostSeconds: number
  /** For an execution whose turn has its outcome: nothing depends on it any more. What was asked since then waits for the next one. */
  settledSeconds: number
  /** For a local agent to say hello: nobody starts it a second time. */
  localHelloSeconds: number
  /** For a local run that is cancelled, and of whose agent nothing is heard: no worker can end it. */
  localCancelSeconds: number
  /** Without a heartbeat for this long nothing is over: the time is given back to every deadline first. */
  outageSeconds: number
  /** From the claim to the agent's hello. */
  startSeconds: number
}

/** One `now` for the whole statement: a database that hangs in its middle must not find the rows older than the heartbeat. */
const moment = 'moment as materialized (select db_now() as now)'

const startIsOver = `(state = 'claimed' and hello_at is null and finishing_at is null and worker_id <> '${localWorkerId}'
      and coalesce(start_until, claimed_at + make_interval(secs => $7)) < now)`

/** Never earlier than the agent stops itself by what it was told: another server, or this one before its restart, may have told it more. */
const atLeast = (told: string, configured: string) => `greatest(${told}, make_interval(secs => ${configured}))`

const leaseIsOver = `(
     ${heartbeatIsFresh('$4', 'now')}
  and (
     (state = 'offered' and created_at < now - make_interval(secs => $1))
  or (${isLive} and lease_renewed_at < now - ${atLeast('lost_after', '$2')})
  or ${startIsOver}
  or (${isLive} and lease_renewed_at < now - ${atLeast('settled_after', '$3')}
      and (not exists (select from turns where turns.run_id = executions.run_id and outcome is null)
           or state = 'idle' and not exists (
                select from turns where turns.execution_id = executions.id and outcome is null)))
  or (worker_id = '${localWorkerId}' and ${isLive} and (
         hello_at is null and lease_renewed_at < now - make_interval(secs => $5)
      or lease_renewed_at < now - make_interval(secs => $6) and exists (
           select from runs where runs.id = executions.run_id
              and cancel_requested_at < now - make_interval(secs => $6))))))`

const limitValues = (limits: LeaseLimits) => [
  limits.offerSeconds,
  limits.lostSeconds,
  limits.settledSeconds,
  limits.outageSeconds,
  limits.localHelloSeconds,
  limits.localCancelSeconds,
  limits.startSeconds,
]

/** Offers nobody answered in time, and live executions whose lease is over, to be ended one by one. */
export async function listExpiredExecutions(
  db: Queryable,
  limits: LeaseLimits,
): Promise<{ executionId: string; runId: string; state: ExecutionState; connectionId: string | null }[]> {
  const { rows } = await db.query<{
    id: string
    run_id: string
    state: ExecutionState
    worker_connection_id: string | null
  }>(
    `with ${moment}
     select id, run_id, state, worker_connection_id from executions, moment where ${leaseIsOver} order by id limit 100`,
    limitValues(limits),
  )
  return rows.map((row) => ({
    executionId: row.id,
    runId: row.run_id,
    state: row.state,
    connectionId: row.worker_connection_id,
  }))
}

export type ExpiredExecution = ExecutionRecord & {
  /** Its agent did not begin in time, although its worker is there. */
  isStartOver: boolean
  /** Somebody is there who can say when its processes are gone. */
  isWorkerConnected: boolean
}

/** The same under its lock: an agent may have renewed since it was listed. */
export async function findExpiredExecutionForUpdate(
  tx: Tx,
  executionId: string,
  limits: LeaseLimits,
): Promise<ExpiredExecution | undefined> {
  const { rows } = await tx.query<ExecutionRow & { is_start_over: boolean; is_worker_connected: boolean }>(
    `with ${moment}
     select executions.*, ${startIsOver} as is_start_over, ${isWorkerConnected} as is_worker_connected
       from executions, moment where ${leaseIsOver} and id = $8 for no key update of executions`,
    [...limitValues(limits), executionId],
  )
  const row = rows[0]
  return row && { ...toExecution(row), isStartOver: row.is_start_over, isWorkerConnected: row.is_worker_connected }
}

const isWorkerConnected = `exists (select from worker_connections where worker_connections.id = executions.worker_connection_id)`

/** Offers that were made on connections which are gone. */
export async function listOrphanedOffers(
  db: Queryable,
  { outageSeconds }: Pick<LeaseLimits, 'outageSeconds'>,
): Promise<{ executionId: string; runId: string; connectionId: string | null }[]> {
  const { rows } = await db.query<{ id: string; run_id: string; worker_connection_id: string | null }>(
    `select id, run_id, worker_connection_id from executions
      where state = 'offered' and not ${isWorkerConnected}
        and ${heartbeatIsFresh('$1')}`,
    [outageSeconds],
  )
  return rows.map((row) => ({ executionId: row.id, runId: row.run_id, connectionId: row.worker_connection_id }))
}

export interface Cancellation {
  executionId: string
  runId: string
  connectionId: string
}

/**
 * Executions of these connections that a cancel must now be sent to the worker for: at once before hello, after the grace else; and again while it is
 * not heeded. Without a fresh heartbeat none is due: the time is given back first. Answers also when the next one is due.
 */
export async function takeCancellationsToSend(
  db: Queryable,
  connectionIds: string[],
  { graceSeconds, againSeconds, outageSeconds }: { graceSeconds: number; againSeconds: number; outageSeconds: number },
): Promise<{ toSend: Cancellation[]; nextInMs: number | null }> {
  const { rows } = await db.query<{ id: string | null; run_id: string; connection_id: string; wait: number | null }>(
    `with wanted as (
       select executions.id,
              greatest(cancel_requested_at + case when hello_at is null then interval '0' else make_interval(secs => $2) end,
                       coalesce(cancel_sent_at + make_interval(secs => $3), '-infinity')) as due
         from executions join runs on runs.id = run_id
        where worker_connection_id = any($1) and executions.state in ('claimed', 'running', 'idle')
          and finishing_at is null and cancel_requested_at is not null
     ), due as (
       select executions.id from executions join wanted using (id)
        where due <= db_now() and ${heartbeatIsFresh('$4')}
        order by id for no key update of executions
     ), sent as (
       update executions set cancel_sent_at = db_now() from due where executions.id = due.id
       returning executions.id, run_id, worker_connection_id
     )
     select id, run_id, worker_connection_id as connection_id, null::float8 as wait from sent
     union all
     select null, null, null, extract(epoch from min(due) - db_now())::float8 from wanted where due > db_now()`,
    [connectionIds, graceSeconds, againSeconds, outageSeconds],
  )
  const wait = rows.find(({ id }) => id === null)?.wait ?? null
  const toSend = rows.flatMap(({ id, run_id, connection_id }) =>
    id === null ? [] : [{ executionId: id, runId: run_id, connectionId: connection_id }],
  )
  return { toSend, nextInMs: wait === null ? null : wait * 1000 }
}

/** Of SQL. `least` alone would make a time of one that is not set. */
const noLater = (time: string, limit: string) => `case when ${time} is null then null else least(${time}, ${limit}) end`

/** How long deadlines are that are written nowhere, or only up to when. */
export interface DeadlineSpans {
  startSeconds: number
  lateSeconds: number
  confirmSeconds: number
  /** The longest that a run waits before it is tried again. */
  retrySeconds: number
}

/**
 * Gives every deadline the time back that the control plane itself was away; what was renewed meanwhile gets no more than now. Runs before
 * executions, as every change of both.
 */
export async function extendDeadlines(tx: Tx, gapSeconds: number, spans: DeadlineSpans): Promise<void> {
  const gap = 'make_interval(secs => $1)'
  await tx.query(
    `with waiting as (
       select id from runs where state not in ('SUCCEEDED', 'FAILED', 'ERROR', 'CANCELLED')
          and (cancel_requested_at is not null or not_before > db_now() - ${gap} or awaits_gone_until > db_now() - ${gap})
        order by id for no key update
     )
     update runs set cancel_requested_at = ${noLater(`cancel_requested_at + ${gap}`, 'db_now()')}, not_before = not_before + ${gap},
            awaits_gone_until = awaits_gone_until + ${gap}
       from waiting where runs.id = waiting.id`,
    [gapSeconds],
  )
  await tx.query(
    `with held as (select id from executions where ${isLive} order by id for no key update)
     update executions set lease_renewed_at = least(db_now(), lease_renewed_at + ${gap}),
            created_at = case when state = 'offered' then least(db_now(), created_at + ${gap}) else created_at end,
            start_until = case when hello_at is null then coalesce(start_until, claimed_at + make_interval(secs => $2)) + ${gap}
                               else start_until end
       from held where executions.id = held.id`,
    [gapSeconds, spans.startSeconds],
  )
  const evidenceUntil = 'coalesce(evidence_until, ended_at + make_interval(secs => $2))'
  await tx.query(
    `with late as (
       select id from executions where state in ${over} and ${evidenceUntil} > db_now() - ${gap} order by id for no key update
     )
     update executions set evidence_until = ${evidenceUntil} + ${gap} from late where executions.id = late.id`,
    [gapSeconds, spans.lateSeconds],
  )
  for (const table of presenceTables)
    await tx.query(
      `with seen as (select id from ${table} order by id for no key update)
       update ${table} set last_seen_at = least(db_now(), last_seen_at + ${gap}) from seen where ${table}.id = seen.id`,
      [gapSeconds],
    )
}

/** The clock was set back: what it wrote before lies in the future, and would be waited for as long. No deadline is further away than when it is new. */
export async function pullDeadlines(tx: Tx, spans: DeadlineSpans): Promise<void> {
  await tx.query(
    `with ${moment}, ahead as (
       select id from runs where state not in ('SUCCEEDED', 'FAILED', 'ERROR', 'CANCELLED')
          and greatest(cancel_requested_at, not_before, awaits_gone_until, queued_at) > db_now() order by id for no key update
     )
     update runs set queued_at = ${noLater('queued_at', '(select now from moment)')}, cancel_requested_at = ${noLater('cancel_requested_at', 'db_now()')},
            not_before = ${noLater('not_before', 'db_now() + make_interval(secs => $1)')},
            awaits_gone_until = ${noLater('awaits_gone_until', 'db_now() + make_interval(secs => $2)')}
       from ahead where runs.id = ahead.id`,
    [spans.retrySeconds, spans.confirmSeconds],
  )
  await tx.query(
    `with held as (select id from executions where ${isLive} order by id for no key update)
     update executions set lease_renewed_at = least(db_now(), lease_renewed_at), cancel_sent_at = ${noLater('cancel_sent_at', 'db_now()')},
            created_at = case when state = 'offered' then least(db_now(), created_at) else created_at end,
            start_until = case when hello_at is null
                               then ${noLater('coalesce(start_until, claimed_at + make_interval(secs => $1))', 'db_now() + make_interval(secs => $1)')}
                               else start_until end
       from held where executions.id = held.id`,
    [spans.startSeconds],
  )
  const evidenceUntil = 'coalesce(evidence_until, ended_at + make_interval(secs => $1))'
  await tx.query(
    `with late as (
       select id from executions where state in ${over} and ${evidenceUntil} > db_now() + make_interval(secs => $1)
        order by id for no key update
     )
     update executions set evidence_until = db_now() + make_interval(secs => $1) from late where executions.id = late.id`,
    [spans.lateSeconds],
  )
  for (const table of presenceTables)
    await tx.query(
      `with seen as (select id from ${table} where last_seen_at > db_now() order by id for no key update)
       update ${table} set last_seen_at = db_now() from seen where ${table}.id = seen.id`,
    )
}
