import { AppError, isUuid } from '@openoz/protocol'
import { v7 as uuidv7 } from 'uuid'
import { insertAuditEvent } from '../store/audit-events.ts'
import {
  findConversationOfEndedSession,
  findLiveSession,
  insertConversation,
  updateConversationTitle,
} from '../store/conversations.ts'
import type { Queryable, Tx } from '../store/database.ts'
import { listRunsBehindConversation, type RunRecord } from '../store/runs.ts'
import { type Actor, actorLabel } from './actors.ts'
import type { Ctx } from './context.ts'
import { copyConversation, requireSeen } from './conversation-use.ts'
import { storableText } from './session-log.ts'

/**
 * Conversations as such: copies that runs may begin in later, names, and where to look for what a session or a conversation has become.
 */

/** A copy of the conversation as it is now, without runs. What it holds is kept with the newest run of the original until it has some of its own. */
export async function forkConversation(
  tx: Tx,
  { conversationId, title }: { conversationId: string; title: string | undefined },
  actor: Actor,
): Promise<string> {
  const newest = (await requireConversation(tx, conversationId, actor)).at(-1)
  const id = uuidv7()
  await insertConversation(tx, {
    id,
    teamId: actor.teamId,
    forkedFrom: conversationId,
    title: title === undefined ? null : storableText(title),
  })
  const to = { conversationId: id, runId: newest?.id ?? '' }
  const { hasCheckpoint } = await copyConversation(tx, { from: conversationId, to, actor })
  if (!hasCheckpoint) throw new AppError('conversation_not_forkable', { conversationId })
  await insertAuditEvent(tx, {
    teamId: actor.teamId,
    actor: actorLabel(actor),
    action: 'conversation.fork',
    target: `conversation:${id}`,
  })
  return id
}

export async function renameConversation(
  ctx: Ctx,
  { conversationId, title }: { conversationId: string; title: string },
  actor: Actor,
): Promise<{ conversation_id: string; title: string }> {
  const stored = storableText(title)
  await ctx.db.transaction(async (tx) => {
    await requireConversation(tx, conversationId, actor)
    await updateConversationTitle(tx, conversationId, stored)
    await insertAuditEvent(tx, {
      teamId: actor.teamId,
      actor: actorLabel(actor),
      action: 'conversation.rename',
      target: `conversation:${conversationId}`,
    })
  })
  return { conversation_id: conversationId, title: stored }
}

/** An id from outside as it is stored. Throws `conversation_not_found` for what can be none. */
export function conversationIdOf(text: string): string {
  if (!isUuid(text)) throw new AppError('conversation_not_found', { conversationId: text })
  return text.toLowerCase()
}

/** The runs that decide about it, oldest first; there is at least one. */
async function requireConversation(db: Queryable, conversationId: string, actor: Actor): Promise<RunRecord[]> {
  const runs = await listRunsBehindConversation(db, conversationId)
  if (runs.length === 0) throw new AppError('conversation_not_found', { conversationId })
  requireSeen(runs, { conversationId, actor })
  return runs
}

/**
 * Both without a key: whoever has the link of a session that is over is led to its conversation, and the other way round while it lives. That says
 * no more than the two ids; reading either takes a key. What there is not looks like what is not so (yet).
 */
export async function whereSessionWent(ctx: Ctx, sessionId: string): Promise<{ conversation_id?: string }> {
  const conversationId = isUuid(sessionId) ? await findConversationOfEndedSession(ctx.db, sessionId) : undefined
  return conversationId === undefined ? {} : { conversation_id: conversationId }
}

export async function whereConversationLives(ctx: Ctx, conversationId: string): Promise<{ session_id?: string }> {
  const sessionId = isUuid(conversationId) ? await findLiveSession(ctx.db, conversationId) : undefined
  return sessionId === undefined ? {} : { session_id: sessionId }
}
