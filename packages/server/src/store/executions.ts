import type { ExecutionState } from '@openoz/protocol'
import type { Queryable, Tx } from './database.ts'
import { live, over } from './execution-states.ts'

export interface ExecutionRecord {
  id: string
  runId: string
  number: number
  state: ExecutionState
  workerId: string
  workerConnectionId: string | null
  leaseHolder: 'worker' | 'agent'
  leaseRenewedAt: Date
  processNonce: string | null
  ackedN: number
  cancelSentAt: Date | null
  createdAt: Date
  claimedAt: Date | null
  startedAt: Date | null
  helloAt: Date | null
  endedAt: Date | null
  outcome: string | null
  failureReason: string | null
  exitCode: number | null
  message: string | null
}

interface ExecutionRow {
  id: string
  run_id: string
  number: number
  state: ExecutionState
  worker_id: string
  worker_connection_id: string | null
  lease_holder: 'worker' | 'agent'
  lease_renewed_at: Date
  process_nonce: string | null
  acked_n: number
  cancel_sent_at: Date | null
  created_at: Date
  claimed_at: Date | null
  started_at: Date | null
  hello_at: Date | null
  ended_at: Date | null
  outcome: string | null
  failure_reason: string | null
  exit_code: number | null
  message: string | null
}

function toExecution(row: ExecutionRow): ExecutionRecord {
  return {
    id: row.id,
    runId: row.run_id,
    number: row.number,
    state: row.state,
    workerId: row.worker_id,
    workerConnectionId: row.worker_connection_id,
    leaseHolder: row.lease_holder,
    leaseRenewedAt: row.lease_renewed_at,
    processNonce: row.process_nonce,
    ackedN: row.acked_n,
    cancelSentAt: row.cancel_sent_at,
    createdAt: row.created_at,
    claimedAt: row.claimed_at,
    startedAt: row.started_at,
    helloAt: row.hello_at,
    endedAt: row.ended_at,
    outcome: row.outcome,
    failureReason: row.failure_reason,
    exitCode: row.exit_code,
    message: row.message,
  }
}

const isLive = `state in ${live}`

/** Stands where a worker's id would, for agents that no worker started. No worker may have it: ids that begin with `warp` are refused. */
export const localWorkerId = 'warp-local'

export async function findExecution(db: Queryable, executionId: string): Promise<ExecutionRecord | undefined> {
  const { rows } = await db.query<ExecutionRow>('select * from executions where id = $1', [executionId])
  return rows[0] && toExecution(rows[0])
}

export async function findExecutionForUpdate(tx: Tx, executionId: string): Promise<ExecutionRecord | undefined> {
  const { rows } = await tx.query<ExecutionRow>('select * from executions where id = $1 for no key update', [
    executionId,
  ])
  return rows[0] && toExecution(rows[0])
}

/** The run's live execution, or its newest one, locked. The caller has locked the run. */
export async function findCurrentExecutionForUpdate(tx: Tx, runId: string): Promise<ExecutionRecord | undefined> {
  const { rows } = await tx.query<ExecutionRow>(
    'select * from executions where run_id = $1 order by number desc limit 1 for no key update',
    [runId],
  )
  return rows[0] && toExecution(rows[0])
}

/** For worker messages of the reference, which name the run only: its newest execution that this worker id was offered. */
export async function findExecutionOfWorker(
  db: Queryable,
  runId: string,
  workerId: string,
): Promise<ExecutionRecord | undefined> {
  const { rows } = await db.query<ExecutionRow>(
    'select * from executions where run_id = $1 and worker_id = $2 order by number desc limit 1',
    [runId, workerId],
  )
  return rows[0] && toExecution(rows[0])
}

export async function listExecutions(db: Queryable, runId: string): Promise<ExecutionRecord[]> {
  const { rows } = await db.query<ExecutionRow>('select * from executions where run_id = $1 order by number', [runId])
  return rows.map(toExecution)
}

export async function hasLiveExecution(db: Queryable, runId: string): Promise<boolean> {
  const { rows } = await db.query<{ found: boolean }>(
    `select exists (select from executions where run_id = $1 and ${isLive}) as found`,
    [runId],
  )
  return rows[0]?.found ?? false
}

/** The execution that a token was made for, live or over; `overForSeconds` is null while it lives. */
export async function findExecutionByToken(
  db: Queryable,
  tokenHash: Buffer,
): Promise<(ExecutionRecord & { teamId: string; overForSeconds: number | null }) | undefined> {
  const { rows } = await db.query<ExecutionRow & { team_id: string; over_for: number | null }>(
    `select executions.*, runs.team_id,
            extract(epoch from db_now() - executions.ended_at)::float8 as over_for
       from executions join runs on runs.id = executions.run_id
      where token_hash = $1`,
    [tokenHash],
  )
  const row = rows[0]
  return row && { ...toExecution(row), teamId: row.team_id, overForSeconds: row.over_for }
}

/** The one execution of a run that its starter's own machine performs: claimed from the beginning. The caller has locked the run. */
export async function insertLocalExecution(
  tx: Tx,
  execution: { id: string; runId: string; tokenHash: Buffer },
): Promise<void> {
  await tx.query(
    `with run as (update runs set fence = fence + 1 where id = $2 returning fence)
     insert into executions (id, run_id, number, state, worker_id, token_hash, claimed_at)
     select $1, $2, fence, 'claimed', '${localWorkerId}', $3, db_now() from run`,
    [execution.id, execution.runId, execution.tokenHash],
  )
}

/** Gives an execution whose agent was not heard of yet another token, and the whole time for its hello again. Answers false when it has none. */
export async function updateExecutionToken(db: Queryable, executionId: string, tokenHash: Buffer): Promise<boolean> {
  const { rowCount } = await db.query(
    `update executions set token_hash = $2, lease_renewed_at = db_now()
      where id = $1 and state = 'claimed' and hello_at is null`,
    [executionId, tokenHash],
  )
  return rowCount === 1
}

export async function updateExecutionClaimed(tx: Tx, executionId: string): Promise<void> {
  await tx.query(
    `update executions set state = 'claimed', claimed_at = db_now(), lease_renewed_at = db_now()
      where id = $1 and state = 'offered'`,
    [executionId],
  )
}

export async function updateExecutionStarted(tx: Tx, executionId: string): Promise<void> {
  await tx.query(`update executions set started_at = coalesce(started_at, db_now()) where id = $1 and ${isLive}`, [
    executionId,
  ])
}

/** The agent's hello: from now on the agent alone renews. */
export async function updateExecutionHello(tx: Tx, executionId: string, processNonce: string): Promise<void> {
  await tx.query(
    `update executions set state = 'running', lease_holder = 'agent', lease_renewed_at = db_now(), process_nonce = $2,
            claimed_at = coalesce(claimed_at, db_now()), started_at = coalesce(started_at, db_now()),
            hello_at = coalesce(hello_at, db_now())
      where id = $1`,
    [executionId, processNonce],
  )
}

/** It begins its next turn: how the one before it ended says nothing about this one. */
export async function updateExecutionAtWork(tx: Tx, executionId: string): Promise<void> {
  await tx.query(
    `update executions set state = 'running', outcome = null, failure_reason = null where id = $1 and state in ('running', 'idle')`,
    [executionId],
  )
}

export async function updateExecutionIdle(tx: Tx, executionId: string): Promise<void> {
  await tx.query(`update executions set state = 'idle' where id = $1 and state in ('running', 'idle')`, [executionId])
}

export interface ExecutionEnd {
  state: 'ended' | 'lost'
  outcome?: string | null
  failureReason?: string | null
  exitCode?: number | null
  message?: string | null
}

/** Ends it once; a second end changes nothing and answers false. */
export async function updateExecutionEnded(tx: Tx, executionId: string, end: ExecutionEnd): Promise<boolean> {
  const { rowCount } = await tx.query(
    // Why its turn failed says more than how its process ended.
    `update executions set state = $2, ended_at = db_now(), outcome = coalesce($3, outcome),
            failure_reason = coalesce(failure_reason, $4), exit_code = $5, message = $6
      where id = $1 and ${isLive}`,
    [
      executionId,
      end.state,
      end.outcome ?? null,
      end.failureReason ?? null,
      end.exitCode ?? null,
      // A message of a worker is for people: a page of it is enough.
      end.message?.slice(0, 8192) ?? null,
    ],
  )
  return rowCount === 1
}

export async function updateExecutionOutcome(
  tx: Tx,
  executionId: string,
  outcome: string,
  failureReason: string | null,
): Promise<void> {
  await tx.query('update executions set outcome = $2, failure_reason = coalesce($3, failure_reason) where id = $1', [
    executionId,
    outcome,
    failureReason,
  ])
}

/** Renews what these connections hold before their agents' hello: the open socket is the worker's sign of life. */
export async function renewWorkerLeases(db: Queryable, connectionIds: string[]): Promise<void> {
  await db.query(
    `update executions set lease_renewed_at = db_now()
      where worker_connection_id = any($1) and lease_holder = 'worker' and ${isLive}`,
    [connectionIds],
  )
}

/**
 * A worker came back on another connection: what it still runs belongs to that one, and a cancel that was sent on the old one is sent again.
 * Answers the ids that are live.
 */
export async function updateExecutionsConnection(
  db: Queryable,
  connection: { id: string; workerId: string; teamId: string },
  executionIds: string[],
): Promise<string[]> {
  const { rows } = await db.query<{ id: string }>(
    `update executions set worker_connection_id = $1, cancel_sent_at = null
       from runs
      where runs.id = executions.run_id and runs.team_id = $4
        and executions.id = any($3) and worker_id = $2 and executions.${isLive} returning executions.id`,
    [connection.id, connection.workerId, executionIds, connection.teamId],
  )
  return rows.map((row) => row.id)
}

/**
 * What workers of these connections have claimed on connections that are gone belongs to these now, and a cancel that was sent there is sent
 * again. For workers that do not say what they still run: only their id tells that it is theirs.
 */
export async function takeOverExecutions(
  db: Queryable,
  connectionIds: string[],
): Promise<{ executionId: string; runId: string; connectionId: string }[]> {
  const { rows } = await db.query<{ id: string; run_id: string; worker_connection_id: string }>(
    `update executions set worker_connection_id = heir.id, cancel_sent_at = null
       from runs, worker_connections heir
      where runs.id = executions.run_id and heir.id = any($1)
        and heir.team_id = runs.team_id and heir.worker_id = executions.worker_id
        and executions.state in ('claimed', 'running', 'idle') and executions.worker_connection_id is not null
        and not exists (select from worker_connections known where known.id = executions.worker_connection_id)
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
}

const leaseIsOver = `(
     exists (select from control_plane_heartbeat where beat_at > db_now() - make_interval(secs => $4))
  and (
     (state = 'offered' and created_at < db_now() - make_interval(secs => $1))
  or (${isLive} and lease_renewed_at < db_now() - make_interval(secs => $2))
  or (${isLive} and lease_renewed_at < db_now() - make_interval(secs => $3)
      and (not exists (select from turns where turns.run_id = executions.run_id and outcome is null)
           or state = 'idle' and not exists (
                select from turns where turns.execution_id = executions.id and outcome is null)))
  or (worker_id = '${localWorkerId}' and ${isLive} and (
         hello_at is null and lease_renewed_at < db_now() - make_interval(secs => $5)
      or lease_renewed_at < db_now() - make_interval(secs => $6) and exists (
           select from runs where runs.id = executions.run_id
              and cancel_requested_at < db_now() - make_interval(secs => $6))))))`

const limitValues = (limits: LeaseLimits) => [
  limits.offerSeconds,
  limits.lostSeconds,
  limits.settledSeconds,
  limits.outageSeconds,
  limits.localHelloSeconds,
  limits.localCancelSeconds,
]

/** Offers nobody answered in time, and live executions whose lease is over, to be ended one by one. */
export async function listExpiredExecutions(
  db: Queryable,
  limits: LeaseLimits,
): Promise<{ executionId: string; runId: string; state: ExecutionState }[]> {
  const { rows } = await db.query<{ id: string; run_id: string; state: ExecutionState }>(
    `select id, run_id, state from executions where ${leaseIsOver} order by id limit 100`,
    limitValues(limits),
  )
  return rows.map((row) => ({ executionId: row.id, runId: row.run_id, state: row.state }))
}

/** The same under its lock: an agent may have renewed since it was listed. */
export async function findExpiredExecutionForUpdate(
  tx: Tx,
  executionId: string,
  limits: LeaseLimits,
): Promise<ExecutionRecord | undefined> {
  const { rows } = await tx.query<ExecutionRow>(
    `select * from executions where ${leaseIsOver} and id = $7 for no key update`,
    [...limitValues(limits), executionId],
  )
  return rows[0] && toExecution(rows[0])
}

/** Adds the time that the control plane itself was away to every live deadline; what was renewed meanwhile gets no more than now. */
export async function extendLeases(tx: Tx, gapSeconds: number): Promise<number> {
  const { rowCount } = await tx.query(
    `update executions set lease_renewed_at = least(db_now(), lease_renewed_at + make_interval(secs => $1)),
            created_at = case when state = 'offered' then least(db_now(), created_at + make_interval(secs => $1))
                              else created_at end
      where ${isLive}`,
    [gapSeconds],
  )
  return rowCount ?? 0
}

/** Offers that were made on connections which are gone. */
export async function listOrphanedOffers(db: Queryable): Promise<{ executionId: string; runId: string }[]> {
  const { rows } = await db.query<{ id: string; run_id: string }>(
    `select id, run_id from executions
      where state = 'offered'
        and not exists (select from worker_connections where worker_connections.id = worker_connection_id)`,
  )
  return rows.map((row) => ({ executionId: row.id, runId: row.run_id }))
}

/** Which of these are over. */
export async function listOverExecutions(
  db: Queryable,
  executionIds: string[],
): Promise<{ executionId: string; runId: string }[]> {
  const { rows } = await db.query<{ id: string; run_id: string }>(
    `select id, run_id from executions where id = any($1) and state in ${over}`,
    [executionIds],
  )
  return rows.map((row) => ({ executionId: row.id, runId: row.run_id }))
}

/** Executions of these connections that a cancel must now be sent to the worker for: at once before hello, after the grace else. */
export async function takeCancellationsToSend(
  db: Queryable,
  connectionIds: string[],
  graceSeconds: number,
): Promise<{ executionId: string; runId: string; connectionId: string }[]> {
  const { rows } = await db.query<{ id: string; run_id: string; worker_connection_id: string }>(
    `update executions set cancel_sent_at = db_now()
       from runs
      where runs.id = executions.run_id and runs.cancel_requested_at is not null
        and executions.worker_connection_id = any($1) and executions.cancel_sent_at is null
        and executions.state in ('claimed', 'running', 'idle')
        and (executions.hello_at is null or runs.cancel_requested_at <= db_now() - make_interval(secs => $2))
      returning executions.id, executions.run_id, executions.worker_connection_id`,
    [connectionIds, graceSeconds],
  )
  return rows.map((row) => ({ executionId: row.id, runId: row.run_id, connectionId: row.worker_connection_id }))
}
