import {
  AppError,
  type FullMessage,
  isTerminal,
  isUuid,
  type ListMessagesQuery,
  type MessageHeader,
  type SendMessageRequest,
  type SendMessageResponse,
} from '@openoz/protocol'
import { v7 as uuidv7 } from 'uuid'
import { insertAuditEvent } from '../store/audit-events.ts'
import type { Tx } from '../store/database.ts'
import {
  countUndelivered,
  findRunMessageRecipient,
  insertRunMessage,
  listRunMessages,
  updateRunMessageDelivered,
  updateRunMessageRead,
} from '../store/run-messages.ts'
import { findRun, listRunsForUpdate, type RunRecord } from '../store/runs.ts'
import { type Actor, actorLabel } from './actors.ts'
import type { Ctx, Hint } from './context.ts'
import { steerLiveAgent } from './follow-ups.ts'
import { maySee } from './permissions.ts'
import { recordMessage, requireLive } from './run-events.ts'
import { requireRun } from './runs.ts'
import { storableText } from './session-log.ts'

/**
 * Messages between runs. Each waits in its recipient's inbox until somebody reads it there; where the recipient's agent is at work it is said to
 * it as well, before its next model request. All recipients get it, or none does.
 */

/**
 * What may wait in an inbox: a turn takes as many (`maxTurnMessages`), and ten pages of the list hold them. With the longest bodies it is 128 MiB,
 * which is where a sender that has run wild is stopped.
 */
const maxUndelivered = 1000

export async function sendMessage(
  tx: Tx,
  hint: Hint,
  request: SendMessageRequest,
  actor: Actor,
): Promise<SendMessageResponse> {
  requireLive(actor)
  const senderId = request.sender_run_id.toLowerCase()
  const sender = await findRun(tx, senderId)
  if (!sender || !maySee(sender, actor)) throw new AppError('run_not_found', { runId: senderId })
  const recipientIds = [...new Set(request.to.map((id) => id.toLowerCase()))]
  const runs = new Map((await listRunsForUpdate(tx, recipientIds)).map((run) => [run.id, run]))
  const recipients = recipientIds.map((runId) => {
    const run = runs.get(runId)
    if (!run || !mayReach(run, { sender, actor })) throw new AppError('run_not_found', { runId })
    return run
  })
  for (const { id: runId, state } of recipients)
    if (isTerminal(state)) throw new AppError('message_recipient_ended', { runId, state })
  for (const [runId, count] of await countUndelivered(tx, recipientIds))
    if (count >= maxUndelivered) throw new AppError('message_inbox_full', { runId, count })

  const message = { subject: storableText(request.subject), body: storableText(request.body) }
  const ids = new Map<string, string>()
  // In the order in which they are locked, since each also locks an execution and a log.
  for (const run of recipients.toSorted((a, b) => (a.id < b.id ? -1 : 1))) {
    const id = uuidv7()
    ids.set(run.id, id)
    const text = `Message from run ${sender.id}: ${message.subject}\n\n${message.body}`
    await steerLiveAgent(tx, hint, run, { id, text, author: `run ${sender.id}` })
    await insertRunMessage(tx, { id, senderRunId: sender.id, recipientRunId: run.id, ...message })
    await recordMessage(tx, hint, run.id, id)
  }
  await insertAuditEvent(tx, {
    teamId: sender.teamId,
    actor: actorLabel(actor),
    action: 'message.send',
    target: `run:${sender.id}`,
  })
  return { message_ids: recipientIds.map((runId) => ids.get(runId) ?? '') }
}

/**
 * An agent, which sees no other run, reaches those of its team. A personal one is reached from personal ones of the same person alone: everybody in
 * the team may tell the team's agents what to say.
 */
function mayReach(recipient: RunRecord, { sender, actor }: { sender: RunRecord; actor: Actor }): boolean {
  if (actor.kind !== 'execution') return maySee(recipient, actor)
  if (recipient.id === sender.id) return true
  if (recipient.teamId !== sender.teamId) return false
  if (recipient.scope === 'team') return true
  return sender.scope === 'user' && sender.createdByUser !== null && sender.createdByUser === recipient.createdByUser
}

export async function listInbox(
  ctx: Ctx,
  runId: string,
  query: ListMessagesQuery,
  actor: Actor,
): Promise<MessageHeader[]> {
  const run = await requireRun(ctx, runId, actor)
  return listRunMessages(ctx.db, run.id, {
    unread: query.unread ?? false,
    since: query.since ?? null,
    limit: query.limit,
  })
}

/** Which message: of the inbox of a run that the actor may see, and, when it says inside of which run it acts, of that one's. */
export interface MessageChoice {
  messageId: string
  forRun: string | undefined
}

export async function readMessage(ctx: Ctx, choice: MessageChoice, actor: Actor): Promise<FullMessage> {
  await requireMessage(ctx, choice, actor)
  const read = await updateRunMessageRead(ctx.db, choice.messageId)
  if (!read) throw notFound(choice)
  return read
}

export async function markMessageDelivered(ctx: Ctx, choice: MessageChoice, actor: Actor): Promise<void> {
  await requireMessage(ctx, choice, actor)
  await updateRunMessageDelivered(ctx.db, choice.messageId)
}

async function requireMessage(ctx: Ctx, choice: MessageChoice, actor: Actor): Promise<void> {
  const { messageId, forRun } = choice
  const recipient = isUuid(messageId) ? await findRunMessageRecipient(ctx.db, messageId) : undefined
  if (recipient === undefined || (forRun !== undefined && forRun.toLowerCase() !== recipient)) throw notFound(choice)
  const run = await findRun(ctx.db, recipient)
  if (!run || !maySee(run, actor)) throw notFound(choice)
}

function notFound({ messageId }: MessageChoice): AppError {
  return new AppError('message_not_found', { messageId })
}
