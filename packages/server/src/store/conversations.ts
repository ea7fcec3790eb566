import type { TurnOutcome } from '@openoz/protocol'
import type { Queryable, Tx } from './database.ts'
import { over } from './execution-states.ts'

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

export async function findConversationTitle(db: Queryable, conversationId: string): Promise<string | null> {
  const { rows } = await db.query<{ title: string | null }>('select title from conversations where id = $1', [
    conversationId,
  ])
  return rows[0]?.title ?? null
}

export async function updateConversationTitle(db: Queryable, conversationId: string, title: string): Promise<void> {
  await db.query('update conversations set title = $2 where id = $1', [conversationId, title])
}

/** A copy of another one, without runs of its own yet. */
export async function insertConversation(
  tx: Tx,
  conversation: { id: string; teamId: string; forkedFrom: string; title: string | null },
): Promise<void> {
  await tx.query('insert into conversations (id, team_id, forked_from, title) values ($1, $2, $3, $4)', [
    conversation.id,
    conversation.teamId,
    conversation.forkedFrom,
    conversation.title,
  ])
}

/** The conversation that a session was in, once it is over: a session is an execution whose agent was heard of. */
export async function findConversationOfEndedSession(db: Queryable, sessionId: string): Promise<string | undefined> {
  const { rows } = await db.query<{ conversation_id: string }>(
    `select conversation_id from executions join runs on runs.id = executions.run_id
      where executions.id = $1 and executions.state in ${over} and hello_at is not null`,
    [sessionId],
  )
  return rows[0]?.conversation_id
}

/** The session that is at work in a conversation, or waits there for more. */
export async function findLiveSession(db: Queryable, conversationId: string): Promise<string | undefined> {
  const { rows } = await db.query<{ id: string }>(
    `select executions.id from runs join executions on executions.run_id = runs.id
      where conversation_id = $1 and executions.state in ('claimed', 'running', 'idle') and hello_at is not null
      order by executions.created_at desc limit 1`,
    [conversationId],
  )
  return rows[0]?.id
}

export async function findTurnMessage(db: Queryable, turnId: string): Promise<string> {
  const { rows } = await db.query<{ message: string }>('select message from turns where id = $1', [turnId])
  return rows[0]?.message ?? ''
}
