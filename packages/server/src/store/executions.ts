import type { ExecutionState } from '@openoz/protocol'
import { heartbeatIsFresh } from './control-plane.ts'
import type { Queryable, Tx } from './database.ts'
import { live, over } from './execution-states.ts'
import { fromRunJson, type RunJson, type RunRecord } from './runs.ts'

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
  /** The attempt at the same turn before it. */
  retryOf: string | null
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

export interface ExecutionRow {
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
  retry_of: string | null
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

export function toExecution(row: ExecutionRow): ExecutionRecord {
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
    retryOf: row.retry_of,
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

/**
 * Locks a run and then one execution of it, as every change of both must, in one statement: most requests of agents and words of workers begin with it.
 * The run is read where it is locked, and the execution is locked when both have been found, so both are as they are under their locks.
 */
export async function findRunAndExecutionForUpdate(
  tx: Tx,
  runId: string,
  executionId: string,
): Promise<{ run: RunRecord; execution: ExecutionRecord } | undefined> {
  const { rows } = await tx.query<ExecutionRow & { run: RunJson }>(
    `with run as (select * from runs where id = $1 for no key update)
     select executions.*, to_json(run) as run from run join executions on executions.run_id = run.id
      where executions.id = $2 for no key update of executions`,
    [runId, executionId],
  )
  return rows[0] && { run: fromRunJson(rows[0].run), execution: toExecution(rows[0]) }
}

/** The run's live execution, or its newest one, locked. The caller has locked the run. */
export async function findCurrentExecutionForUpdate(tx: Tx, runId: string): Promise<ExecutionRecord | undefined> {
  const { rows } = await tx.query<ExecutionRow>(
    'select * from executions where run_id = $1 order by number desc limit 1 for no key update',
    [runId],
  )
  return rows[0] && toExecution(rows[0])
}

/**
 * For worker messages of the reference, which name the run only: its newest execution that this connection has, or that a connection had which is
 * gone, if this one is the only one under its id. Two workers may share an id, and neither speaks for what the other one runs.
 */
export async function findExecutionOfConnection(
  db: Queryable,
  runId: string,
  connection: { id: string; workerId: string; teamId: string },
): Promise<ExecutionRecord | undefined> {
  const { rows } = await db.query<ExecutionRow>(
    `select * from executions
      where run_id = $1 and worker_id = $2
        and (worker_connection_id = $3
             or not exists (select from worker_connections where worker_connections.id = worker_connection_id)
                and not exists (select from worker_connections sibling
                                 where sibling.team_id = $4 and sibling.worker_id = $2 and sibling.id <> $3))
      order by number desc limit 1`,
    [runId, connection.workerId, connection.id, connection.teamId],
  )
  return rows[0] && toExecution(rows[0])
}

export async function listExecutions(db: Queryable, runId: string): Promise<ExecutionRecord[]> {
  const { rows } = await db.query<ExecutionRow>('select * from executions where run_id = $1 order by number', [runId])
  return rows.map(toExecution)
}

/** Whether an agent began after this execution, with its run or with another one of the conversation. The caller has locked that. */
export async function hasNewerAgent(
  tx: Tx,
  execution: Pick<ExecutionRecord, 'id' | 'runId' | 'number'>,
  conversationId: string,
): Promise<boolean> {
  const { rows } = await tx.query<{ found: boolean }>(
    `select exists (
       select from executions where run_id = $2 and number > $3 and hello_at is not null
       union all
       select from runs join executions on executions.run_id = runs.id
        where runs.conversation_id = $4 and runs.id <> $2
          and executions.hello_at > (select hello_at from executions where id = $1)) as found`,
    [execution.id, execution.runId, execution.number, conversationId],
  )
  return rows[0]?.found ?? false
}

export async function hasLiveExecution(db: Queryable, runId: string): Promise<boolean> {
  const { rows } = await db.query<{ found: boolean }>(
    `select exists (select from executions where run_id = $1 and ${isLive}) as found`,
    [runId],
  )
  return rows[0]?.found ?? false
}

/**
 * The execution that a token was made for, live or over; `overForSeconds` is null while it lives. `lateSeconds`: for evidence, after its end; without a
 * heartbeat for `outageSeconds` it is never too late, since that time has still to be given back.
 */
export async function findExecutionByToken(
  db: Queryable,
  tokenHash: Buffer,
  { lateSeconds, outageSeconds }: { lateSeconds: number; outageSeconds: number },
): Promise<(ExecutionRecord & { teamId: string; overForSeconds: number | null; isTooLate: boolean }) | undefined> {
  const { rows } = await db.query<ExecutionRow & { team_id: string; over_for: number | null; is_too_late: boolean }>(
    `select executions.*, runs.team_id,
            extract(epoch from db_now() - executions.ended_at)::float8 as over_for,
            coalesce(coalesce(evidence_until, executions.ended_at + make_interval(secs => $2)) < db_now(), false)
              and ${heartbeatIsFresh('$3')} as is_too_late
       from executions join runs on runs.id = executions.run_id
      where token_hash = $1`,
    [tokenHash, lateSeconds, outageSeconds],
  )
  const row = rows[0]
  return (
    row && {
      ...toExecution(row),
      teamId: row.team_id,
      overForSeconds: row.over_for,
      isTooLate: row.is_too_late,
    }
  )
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

/** The agent has that long to say hello from now on; never less than it had. */
export async function updateExecutionStartUntil(tx: Tx, executionId: string, startSeconds: number): Promise<void> {
  await tx.query(
    `update executions set start_until = greatest(start_until, db_now() + make_interval(secs => $2))
      where id = $1 and hello_at is null and ${isLive}`,
    [executionId, startSeconds],
  )
}

/** The agent's hello: from now on the agent alone renews, and stops itself by the times that it is told. */
export async function updateExecutionHello(
  tx: Tx,
  executionId: string,
  processNonce: string,
  { lostMs, settledMs }: { lostMs: number; settledMs: number },
): Promise<void> {
  await tx.query(
    `update executions set state = 'running', lease_holder = 'agent', lease_renewed_at = db_now(), process_nonce = $2,
            claimed_at = coalesce(claimed_at, db_now()), started_at = coalesce(started_at, db_now()),
            hello_at = coalesce(hello_at, db_now()),
            lost_after = greatest(lost_after, make_interval(secs => $3)), settled_after = greatest(settled_after, make_interval(secs => $4))
      where id = $1`,
    [executionId, processNonce, lostMs / 1000, settledMs / 1000],
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

/** Nothing of it runs any more. Answers whether that was not known yet. */
export async function updateExecutionGone(tx: Tx, executionId: string): Promise<boolean> {
  const { rowCount } = await tx.query('update executions set gone_at = db_now() where id = $1 and gone_at is null', [
    executionId,
  ])
  return rowCount === 1
}

/** Its agent's process has ended: until its worker has said how, the worker holds the lease again. */
export async function updateExecutionFinishing(tx: Tx, executionId: string): Promise<void> {
  await tx.query(
    `update executions set finishing_at = coalesce(finishing_at, db_now()), lease_holder = 'worker', lease_renewed_at = db_now()
      where id = $1 and ${isLive}`,
    [executionId],
  )
}

/** Marks it as one of those that took their worker with them, and answers the workers of all that did, oldest first. */
export async function updateDiedWithWorker(tx: Tx, executionId: string): Promise<string[]> {
  await tx.query('update executions set died_with_worker = true where id = $1', [executionId])
  const { rows } = await tx.query<{ worker_id: string }>(
    `select worker_id from executions where died_with_worker
        and run_id = (select run_id from executions where id = $1) order by number`,
    [executionId],
  )
  return rows.map((row) => row.worker_id)
}

/** An agent that said goodbye ends by itself, and its worker says how: neither needs to be told, for a while. */
export interface Goodbye {
  /** What its execution ended with. */
  message: string
  forSeconds: number
}

const isLeaving = `(state = 'ended' and message = $2 and ended_at > db_now() - make_interval(secs => $3))`

/** Which of these are over, without those whose agents are leaving. */
export async function listOverExecutions(
  db: Queryable,
  executionIds: string[],
  { message, forSeconds }: Goodbye,
): Promise<{ executionId: string; runId: string }[]> {
  const { rows } = await db.query<{ id: string; run_id: string }>(
    `select id, run_id from executions where id = any($1) and state in ${over} and not coalesce(${isLeaving}, false)`,
    [executionIds, message, forSeconds],
  )
  return rows.map((row) => ({ executionId: row.id, runId: row.run_id }))
}

/** Of these, the ones whose agents are leaving. */
export async function listLeavingExecutions(
  db: Queryable,
  executionIds: string[],
  { message, forSeconds }: Goodbye,
): Promise<string[]> {
  const { rows } = await db.query<{ id: string }>(`select id from executions where id = any($1) and ${isLeaving}`, [
    executionIds,
    message,
    forSeconds,
  ])
  return rows.map((row) => row.id)
}
