import type { TurnOutcome } from '@openoz/protocol'
import type { Queryable, Tx } from './database.ts'

export interface TurnRecord {
  id: string
  runId: string
  number: number
  message: string
  author: string
  /** The execution that performs or performed it; null until one has begun. */
  executionId: string | null
  outcome: TurnOutcome | null
  startedAt: Date | null
}

interface TurnRow {
  id: string
  run_id: string
  number: number
  message: string
  author: string
  execution_id: string | null
  outcome: TurnOutcome | null
  started_at: Date | null
}

const toTurn = (row: TurnRow): TurnRecord => ({
  id: row.id,
  runId: row.run_id,
  number: row.number,
  message: row.message,
  author: row.author,
  executionId: row.execution_id,
  outcome: row.outcome,
  startedAt: row.started_at,
})

/** A run's turns without an outcome, in the order in which they were asked: the first is at work or comes next. */
export async function listOpenTurns(db: Queryable, runId: string): Promise<TurnRecord[]> {
  const { rows } = await db.query<TurnRow>(
    'select * from turns where run_id = $1 and outcome is null order by asked_seq, number',
    [runId],
  )
  return rows.map(toTurn)
}

export async function findOpenTurn(db: Queryable, runId: string): Promise<TurnRecord | undefined> {
  const { rows } = await db.query<TurnRow>(
    'select * from turns where run_id = $1 and outcome is null order by asked_seq, number limit 1',
    [runId],
  )
  return rows[0] && toTurn(rows[0])
}

/** Numbers of a run's turns count from 1 without holes; the caller holds the run's lock. */
export async function findNextTurnNumber(tx: Tx, runId: string): Promise<number> {
  const { rows } = await tx.query<{ next: number }>(
    'select coalesce(max(number), 0) + 1 as next from turns where run_id = $1',
    [runId],
  )
  return rows[0]?.next ?? 1
}

export async function insertTurn(
  tx: Tx,
  turn: { id: string; runId: string; number: number; message: string; author: string; askedSeq: number },
): Promise<void> {
  await tx.query('insert into turns (id, run_id, number, message, author, asked_seq) values ($1, $2, $3, $4, $5, $6)', [
    turn.id,
    turn.runId,
    turn.number,
    turn.message,
    turn.author,
    turn.askedSeq,
  ])
}

/** What another run said too late for a turn, and is one of its own therefore, is delivered with its begin. */
export async function updateTurnStarted(tx: Tx, turnId: string, executionId: string): Promise<void> {
  await tx.query(
    `with started as (
       update turns set execution_id = $2, started_at = coalesce(started_at, db_now())
        where id = $1 and outcome is null returning id
     )
     update run_messages set delivered_at = db_now() from started where run_messages.id = started.id and delivered_at is null`,
    [turnId, executionId],
  )
}

/** Writes the one outcome of a turn; answers false when it had one already. */
export async function updateTurnOutcome(
  tx: Tx,
  turnId: string,
  outcome: TurnOutcome,
  message: string,
  errorCode: string | null,
): Promise<boolean> {
  const { rowCount } = await tx.query(
    `update turns set outcome = $2, outcome_message = $3, error_code = $4, ended_at = db_now()
      where id = $1 and outcome is null`,
    [turnId, outcome, message, errorCode],
  )
  return rowCount === 1
}

/** Ends everything that was asked so far. Answers the numbers of the turns that it ended. */
export async function updateOpenTurnsEnded(
  tx: Tx,
  runId: string,
  end: { outcome: TurnOutcome; message: string; errorCode?: string },
): Promise<number[]> {
  const { rows } = await tx.query<{ number: number }>(
    `update turns set outcome = $2, outcome_message = $3, error_code = $4, ended_at = db_now()
      where run_id = $1 and outcome is null returning number`,
    [runId, end.outcome, end.message, end.errorCode ?? null],
  )
  return rows.map(({ number }) => number).sort((a, b) => a - b)
}
