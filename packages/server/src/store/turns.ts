import type { TurnOutcome } from '@openoz/protocol'
import type { Queryable, Tx } from './database.ts'

export interface TurnRecord {
  id: string
  runId: string
  number: number
  message: string
  author: string
  outcome: TurnOutcome | null
  startedAt: Date | null
}

interface TurnRow {
  id: string
  run_id: string
  number: number
  message: string
  author: string
  outcome: TurnOutcome | null
  started_at: Date | null
}

const toTurn = (row: TurnRow): TurnRecord => ({
  id: row.id,
  runId: row.run_id,
  number: row.number,
  message: row.message,
  author: row.author,
  outcome: row.outcome,
  startedAt: row.started_at,
})

/** The turn that is at work or comes next: the first without an outcome. */
export async function findOpenTurn(db: Queryable, runId: string): Promise<TurnRecord | undefined> {
  const { rows } = await db.query<TurnRow>(
    'select * from turns where run_id = $1 and outcome is null order by number limit 1',
    [runId],
  )
  return rows[0] && toTurn(rows[0])
}

export async function updateTurnStarted(tx: Tx, turnId: string, executionId: string): Promise<void> {
  await tx.query(
    'update turns set execution_id = $2, started_at = coalesce(started_at, db_now()) where id = $1 and outcome is null',
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
