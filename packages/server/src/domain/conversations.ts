import { AppError, type ConversationStep, isTerminal, isUuid, type RunState, type SessionEvent } from '@openoz/protocol'
import {
  type ConversationTurn,
  findConversationTitle,
  findTurnMessage,
  listConversationTurns,
} from '../store/conversations.ts'
import { listRunsBehindConversation, type RunRecord } from '../store/runs.ts'
import { findLastSeq, listEvents, listWithdrawnMessages } from '../store/session-log.ts'
import type { Actor } from './actors.ts'
import type { Ctx } from './context.ts'
import { createMessageCollector, type KnownMessages, type MessageCollector } from './conversation-messages.ts'
import { maySee } from './permissions.ts'
import { requireRun } from './runs.ts'

/**
 * A conversation, read from the session logs of its runs: one step per turn. It is written while it is read, a page of the log at a time, so
 * that a log of any length takes no more memory than its largest messages.
 *
 * Which turn an event belongs to is told by the outcomes: turns are performed in the order in which they were asked, and each has one. What
 * follows an outcome (the saved workspace's notices) is still that turn's, until the run moves again.
 */

/** Events per read. Pages of large events end earlier by themselves. */
const pageEvents = 200

/** What a step is called: the message's first line. */
const maxDescription = 200

/** Rejects with `run_not_found` before anything is written. */
export async function readRunConversation(ctx: Ctx, runId: string, actor: Actor): Promise<AsyncGenerator<string>> {
  const run = await requireRun(ctx, runId, actor)
  return conversationJson(ctx, run.conversationId, [run])
}

/** All its runs that the actor may see, in the order in which they were started. Rejects with `conversation_not_found` when there are none. */
export async function readConversation(
  ctx: Ctx,
  conversationId: string,
  actor: Actor,
): Promise<AsyncGenerator<string>> {
  const all = isUuid(conversationId) ? await listRunsBehindConversation(ctx.db, conversationId) : []
  const seen = all.filter((run) => maySee(run, actor))
  // A copy that nobody has gone on with yet has no steps of its own, and is seen by those who see all that it knows.
  const runs = seen.filter((run) => run.conversationId === conversationId.toLowerCase())
  if (runs.length === 0 && (seen.length === 0 || seen.length < all.length))
    throw new AppError('conversation_not_found', { conversationId })
  return conversationJson(ctx, conversationId, runs)
}

async function* conversationJson(ctx: Ctx, conversationId: string, runs: RunRecord[]): AsyncGenerator<string> {
  const title = await findConversationTitle(ctx.db, conversationId)
  yield `${JSON.stringify({ conversation_id: conversationId, ...(title !== null && { title }) }).slice(0, -1)},"steps":[`
  let hasSteps = false
  for (const run of runs) {
    for await (const piece of stepsJson(ctx, run.id)) {
      if (piece.isBegin && hasSteps) yield ','
      hasSteps = true
      yield piece.text
    }
  }
  yield ']}'
}

/** A part of a step; the first one begins it. */
interface Piece {
  isBegin: boolean
  text: string
}

async function* stepsJson(ctx: Ctx, runId: string): AsyncGenerator<Piece> {
  // In this order: every turn that the log up to here speaks of is known.
  const lastSeq = await findLastSeq(ctx.db, runId)
  const turns = await listConversationTurns(ctx.db, runId)
  const turnIds = new Set(turns.map((turn) => turn.id))
  const withdrawn = await listWithdrawnMessages(ctx.db, runId)
  const step = createStepWriter(ctx, {
    isTurn: (messageId) => turnIds.has(messageId),
    isWithdrawn: (messageId) => withdrawn.has(messageId),
  })
  const waiting = [...turns]
  let isResting = false

  /** Ends the step that is open, and begins that of the next turn. */
  const next = async function* (): AsyncGenerator<Piece> {
    yield* step.end()
    const turn = waiting.shift()
    if (turn) yield* step.begin(turn)
  }

  yield* next()
  for await (const event of readLog(ctx, { runId, lastSeq })) {
    if (event.type !== 'run_state') {
      yield* step.add(event)
      continue
    }
    const { state, late } = event.data
    if (late) continue
    if (state !== 'BLOCKED' && !isTerminal(state as RunState)) {
      if (isResting) yield* next()
      isResting = false
      continue
    }
    isResting = true
    if (state !== 'CANCELLED') continue
    // A cancel ends everything that was asked until then, of which only the first was performed.
    while (waiting[0]?.outcome === 'CANCELLED' && waiting[0].askedSeq < event.seq) yield* next()
  }
  do yield* next()
  while (waiting.length > 0 || step.isOpen())
}

function createStepWriter(ctx: Ctx, known: KnownMessages) {
  let open: { turn: ConversationTurn; messages: MessageCollector; count: number } | undefined

  const write = (made: ReturnType<MessageCollector['add']>): Piece[] =>
    made.map((message) => {
      const comma = open && open.count++ > 0 ? ',' : ''
      return { isBegin: false, text: `${comma}${JSON.stringify(message)}` }
    })

  return {
    isOpen: () => open !== undefined,

    async *begin(turn: ConversationTurn): AsyncGenerator<Piece> {
      open = { turn, messages: createMessageCollector(known), count: 0 }
      const text = await findTurnMessage(ctx.db, turn.id)
      yield { isBegin: true, text: `${JSON.stringify(headOf(turn, text)).slice(0, -1)},"messages":[` }
      const content = [{ type: 'text' as const, text }]
      yield* write([{ message_ids: [turn.id], role: 'user', timestamp: turn.createdAt.toISOString(), content }])
    },

    *add(event: SessionEvent): Generator<Piece> {
      if (open) yield* write(open.messages.add(event))
    },

    *end(): Generator<Piece> {
      if (!open) return
      yield* write(open.messages.end(open.turn.outcome !== null))
      open = undefined
      yield { isBegin: false, text: '],"steps":[]}' }
    },
  }
}

function headOf(turn: ConversationTurn, message: string): Omit<ConversationStep, 'messages' | 'steps'> {
  const line = message.trim().split('\n', 1)[0] ?? ''
  return {
    id: turn.id,
    description: line.length > maxDescription ? `${line.slice(0, maxDescription - 1)}…` : line,
    ...(turn.outcomeMessage === null ? {} : { summary: turn.outcomeMessage }),
    ...(turn.startedAt === null ? {} : { started_at: turn.startedAt.toISOString() }),
    ...(turn.endedAt === null ? {} : { completed_at: turn.endedAt.toISOString() }),
  }
}

/** Up to an event: a run at work may write faster than a slow reader reads. */
async function* readLog(
  ctx: Ctx,
  { runId, lastSeq }: { runId: string; lastSeq: number },
): AsyncGenerator<SessionEvent> {
  for (let since = 0; since < lastSeq; ) {
    const page = await listEvents(ctx.db, runId, since, Math.min(pageEvents, lastSeq - since))
    if (page.length === 0) return
    for (const event of page) yield JSON.parse(event.json) as SessionEvent
    since = page.at(-1)?.seq ?? lastSeq
  }
}
