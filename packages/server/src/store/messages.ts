import type { TurnMessage } from '@openoz/protocol'
import type { Queryable, Tx } from './database.ts'

/** What was said to a turn while it was at work. */
export interface MessageRecord extends TurnMessage {
  author: string
  askedSeq: number
}

interface MessageRow {
  id: string
  mode: TurnMessage['mode']
  text: string
  author: string
  asked_seq: number
}

export async function insertMessage(tx: Tx, message: MessageRecord & { runId: string; turnId: string }): Promise<void> {
  await tx.query(
    'insert into messages (id, run_id, turn_id, mode, text, author, asked_seq) values ($1, $2, $3, $4, $5, $6, $7)',
    [message.message_id, message.runId, message.turnId, message.mode, message.text, message.author, message.askedSeq],
  )
}

/** Messages of a turn that no checkpoint has, in the order in which they were said. */
export async function listOpenMessages(db: Queryable, turnId: string): Promise<MessageRecord[]> {
  const { rows } = await db.query<MessageRow>(
    'select id, mode, text, author, asked_seq from messages where turn_id = $1 and taken_at is null order by asked_seq',
    [turnId],
  )
  return rows.map((row) => ({
    message_id: row.id,
    mode: row.mode,
    text: row.text,
    author: row.author,
    askedSeq: row.asked_seq,
  }))
}

/** Messages that were said to a turn: those that no checkpoint has, and all of them. */
export async function countMessages(db: Queryable, turnId: string): Promise<{ open: number; all: number }> {
  const { rows } = await db.query<{ open: number; all: number }>(
    'select count(*) filter (where taken_at is null) as open, count(*) as all from messages where turn_id = $1',
    [turnId],
  )
  return rows[0] ?? { open: 0, all: 0 }
}

/** An agent's checkpoint or outcome has them. What another run said is delivered with it. */
export async function updateMessagesTaken(tx: Tx, runId: string, ids: readonly string[]): Promise<void> {
  if (ids.length === 0) return
  await tx.query(
    `with taken as (
       update messages set taken_at = db_now() where run_id = $1 and id = any($2) and taken_at is null returning id
     )
     update run_messages set delivered_at = db_now() from taken where run_messages.id = taken.id and delivered_at is null`,
    [runId, ids],
  )
}

/** They have become turns, and wait there. */
export async function updateMessagesMoved(tx: Tx, ids: readonly string[]): Promise<void> {
  if (ids.length === 0) return
  await tx.query('update messages set taken_at = db_now() where id = any($1)', [ids])
}
