import type { TurnOutcome } from '@openoz/protocol'
import type { Queryable } from './database.ts'

/** A turn as its conversation shows it, without its message: that may be large, and there may be many. */
export interface ConversationTurn {
  id: string
  number: number
  outcome: TurnOutcome | null
  outcomeMessage: string | null
  /** `seq` of the message that asked for it. */
  askedSeq: number
  createdAt: Date
  startedAt: Date | null
  endedAt: Date | null
}

interface TurnRow {
  id: string
  number: number
  outcome: TurnOutcome | null
  outcome_message: string | null
  asked_seq: number
  created_at: Date
  started_at: Date | null
  ended_at: Date | null
}

/** All turns of a run in the order in which they are performed. */
export async function listConversationTurns(db: Queryable, runId: string): Promise<ConversationTurn[]> {
  const { rows } = await db.query<TurnRow>(
    `select id, number, outcome, outcome_message, asked_seq, created_at, started_at, ended_at
       from turns where run_id = $1 order by asked_seq, number`,
    [runId],
  )
  return rows.map((row) => ({
    id: row.id,
    number: row.number,
    outcome: row.outcome,
    outcomeMessage: row.outcome_message,
    askedSeq: row.asked_seq,
    createdAt: row.created_at,
    startedAt: row.started_at,
    endedAt: row.ended_at,
  }))
}

export async function findTurnMessage(db: Queryable, turnId: string): Promise<string> {
  const { rows } = await db.query<{ message: string }>('select message from turns where id = $1', [turnId])
  return rows[0]?.message ?? ''
}

/** Seconds since 1970 on the database's clock: links made by one replica are judged by another. */
export async function findDatabaseSeconds(db: Queryable): Promise<number> {
  const { rows } = await db.query<{ seconds: number }>('select extract(epoch from db_now())::bigint as seconds')
  return rows[0]?.seconds ?? 0
}
