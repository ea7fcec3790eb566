import type { FullMessage, MessageHeader } from '@openoz/protocol'
import type { Queryable, Tx } from './database.ts'

/** A message from one run to another. */
export interface RunMessageRecord {
  id: string
  senderRunId: string
  recipientRunId: string
  subject: string
  body: string
}

interface MessageHeaderRow {
  id: string
  sender_run_id: string
  subject: string
  sent_at: Date
  delivered_at: Date | null
  read_at: Date | null
}

const toHeader = (row: MessageHeaderRow): MessageHeader => ({
  message_id: row.id,
  sender_run_id: row.sender_run_id,
  subject: row.subject,
  sent_at: row.sent_at.toISOString(),
  delivered_at: row.delivered_at?.toISOString() ?? null,
  read_at: row.read_at?.toISOString() ?? null,
})

/** It is delivered once the recipient's agent has taken it (`updateMessagesTaken`, `updateTurnStarted`), or somebody says so. */
export async function insertRunMessage(tx: Tx, message: RunMessageRecord): Promise<void> {
  await tx.query(
    'insert into run_messages (id, sender_run_id, recipient_run_id, subject, body) values ($1, $2, $3, $4, $5)',
    [message.id, message.senderRunId, message.recipientRunId, message.subject, message.body],
  )
}

/** Of these runs, how many messages have not reached them; those without any are left out. The caller has locked the runs. */
export async function countUndelivered(tx: Tx, recipientRunIds: string[]): Promise<Map<string, number>> {
  const { rows } = await tx.query<{ id: string; count: number }>(
    `select recipient_run_id as id, count(*) as count from run_messages
      where recipient_run_id = any($1) and delivered_at is null group by recipient_run_id`,
    [recipientRunIds],
  )
  return new Map(rows.map(({ id, count }) => [id, count]))
}

/** Oldest first. `since` is a time; what was sent at that very moment is among them. */
export async function listRunMessages(
  db: Queryable,
  recipientRunId: string,
  query: { unread: boolean; since: string | null; limit: number },
): Promise<MessageHeader[]> {
  const { rows } = await db.query<MessageHeaderRow>(
    `select id, sender_run_id, subject, sent_at, delivered_at, read_at from run_messages
      where recipient_run_id = $1 and (not $2 or read_at is null) and ($3::timestamptz is null or sent_at >= $3)
      order by sent_at, id limit $4`,
    [recipientRunId, query.unread, query.since, query.limit],
  )
  return rows.map(toHeader)
}

export async function findRunMessageRecipient(db: Queryable, messageId: string): Promise<string | undefined> {
  const { rows } = await db.query<{ recipient_run_id: string }>(
    'select recipient_run_id from run_messages where id = $1',
    [messageId],
  )
  return rows[0]?.recipient_run_id
}

/** Both times are those of the first time. */
export async function updateRunMessageRead(db: Queryable, messageId: string): Promise<FullMessage | undefined> {
  const { rows } = await db.query<MessageHeaderRow & { body: string }>(
    `update run_messages set read_at = coalesce(read_at, db_now()), delivered_at = coalesce(delivered_at, db_now())
      where id = $1 returning id, sender_run_id, subject, body, sent_at, delivered_at, read_at`,
    [messageId],
  )
  return rows[0] && { ...toHeader(rows[0]), body: rows[0].body }
}

export async function updateRunMessageDelivered(db: Queryable, messageId: string): Promise<void> {
  await db.query('update run_messages set delivered_at = db_now() where id = $1 and delivered_at is null', [messageId])
}
