import {
  AppError,
  type FollowUpMode,
  type FollowUpResponse,
  isLive,
  maxTurnMessages,
  type RunState,
  type TurnMessage,
} from '@openoz/protocol'
import { v7 as uuidv7 } from 'uuid'
import { insertAuditEvent } from '../store/audit-events.ts'
import { insertCommand } from '../store/commands.ts'
import type { Tx } from '../store/database.ts'
import { type ExecutionRecord, findCurrentExecutionForUpdate } from '../store/executions.ts'
import { countMessages, insertMessage } from '../store/messages.ts'
import { findRunForUpdate, type RunRecord } from '../store/runs.ts'
import { findNextTurnNumber, insertTurn, listOpenTurns } from '../store/turns.ts'
import { type Actor, actorLabel, actorName } from './actors.ts'
import type { Hint } from './context.ts'
import { claimConversation } from './conversation-use.ts'
import { appendServerEvents, storableText } from './session-log.ts'
import { goOnWithNextTurn } from './turns.ts'

/**
 * What people say to a run after its prompt. Everything is written down before it is answered, in the order of its `user_message` events:
 *
 *   queue               a turn of its own, after those that were asked before it
 *   steer, interrupt    said to the turn at work; without one, or when it was told too much already, a turn like the others
 *
 * A run at rest begins again with it, in the agent that still waits or in a new execution.
 */

/** Nobody reads a hundred answers; a script that has run wild is stopped here. Turns, and messages that the one at work has not taken up. */
const maxWaiting = 100

interface FollowUp {
  runId: string
  message: string
  mode: FollowUpMode
}

export async function followUp(tx: Tx, hint: Hint, wish: FollowUp, actor: Actor): Promise<FollowUpResponse> {
  const { runId, mode } = wish
  const run = await findRunForUpdate(tx, runId)
  if (!run) throw new AppError('run_not_found', { runId })
  const open = await listOpenTurns(tx, runId)
  const current = open[0]
  if (run.cancelRequestedAt && current) throw new AppError('run_being_cancelled', { runId })
  const said = current ? await countMessages(tx, current.id) : { open: 0, all: 0 }
  const count = open.length + said.open
  if (count >= maxWaiting) throw new AppError('follow_up_queue_full', { runId, count })
  await insertAuditEvent(tx, {
    teamId: run.teamId,
    actor: actorLabel(actor),
    action: 'run.follow-up',
    target: `run:${runId}`,
  })
  hint(`run ${runId}`)

  const id = uuidv7()
  const text = storableText(wish.message)
  // Its outcome names every message that the turn took up, and can name no more.
  if (current && mode !== 'queue' && said.all < maxTurnMessages) {
    const said = { message_id: id, mode, text }
    // Before the log, as an agent's batch does.
    const execution = await findCurrentExecutionForUpdate(tx, runId)
    await sayToTurn(tx, hint, { run, execution, turn: current, said, author: actorName(actor) })
    return { run_id: runId, message_id: id, mode, turn: current.number, state: run.state }
  }
  const { turn, state } = await askTurn(tx, hint, { run, id, text, actor, isAtRest: !current })
  return { run_id: runId, message_id: id, mode: 'queue', turn, state }
}

/**
 * The same for what another run says, which waits elsewhere until then: said to the turn at work where a live agent has begun it and has room for
 * it. The caller has locked the run.
 */
export async function steerLiveAgent(
  tx: Tx,
  hint: Hint,
  run: RunRecord,
  said: { id: string; text: string; author: string },
): Promise<void> {
  const open = await listOpenTurns(tx, run.id)
  const current = open[0]
  if (!current || run.cancelRequestedAt) return
  const execution = await findCurrentExecutionForUpdate(tx, run.id)
  if (!execution?.helloAt || !isLive(execution.state) || current.executionId !== execution.id) return
  const before = await countMessages(tx, current.id)
  if (before.all >= maxTurnMessages || open.length + before.open >= maxWaiting) return
  await sayToTurn(tx, hint, {
    run,
    execution,
    turn: current,
    said: { message_id: said.id, mode: 'steer', text: said.text },
    author: said.author,
  })
  hint(`run ${run.id}`)
}

interface Saying {
  run: RunRecord
  /** Its newest one, locked. */
  execution: ExecutionRecord | undefined
  turn: { id: string; number: number }
  said: TurnMessage
  author: string
}

async function sayToTurn(tx: Tx, hint: Hint, { run, execution, turn, said, author }: Saying): Promise<void> {
  const askedSeq = await appendServerEvents(tx, run.id, [
    {
      type: 'user_message',
      data: { text: said.text, turn: turn.number, message_id: said.message_id, author, mode: said.mode },
    },
  ])
  await insertMessage(tx, { ...said, runId: run.id, turnId: turn.id, author, askedSeq })
  // Before its hello an agent is told with the hello itself.
  if (!execution?.helloAt || !isLive(execution.state)) return
  await insertCommand(tx, {
    id: uuidv7(),
    runId: run.id,
    executionId: execution.id,
    type: 'message',
    payload: { ...said, turn_id: turn.id },
  })
  hint(`commands ${execution.id}`)
}

interface Asking {
  run: RunRecord
  id: string
  text: string
  actor: Actor
  isAtRest: boolean
}

async function askTurn(
  tx: Tx,
  hint: Hint,
  { run, id, text, actor, isAtRest }: Asking,
): Promise<{ turn: number; state: RunState }> {
  const number = await findNextTurnNumber(tx, run.id)
  const author = actorName(actor)
  if (isAtRest) {
    await requireResumable(tx, hint, run, actor)
    // It may be ended or woken: before the log, as an agent's batch does.
    await findCurrentExecutionForUpdate(tx, run.id)
  }
  const askedSeq = await appendServerEvents(tx, run.id, [
    { type: 'user_message', data: { text, turn: number, message_id: id, author, mode: 'queue' } },
  ])
  await insertTurn(tx, { id, runId: run.id, number, message: text, author, askedSeq })
  if (!isAtRest) return { turn: number, state: run.state }
  return { turn: number, state: (await goOnWithNextTurn(tx, hint, run)).state }
}

async function requireResumable(tx: Tx, hint: Hint, run: RunRecord, actor: Actor): Promise<void> {
  const { conversationId, scope } = run
  await claimConversation(tx, hint, { conversationId, actor, forRunId: run.id, scope })
  if (run.executionLocation === 'REMOTE') return
  const execution = await findCurrentExecutionForUpdate(tx, run.id)
  if (!execution?.helloAt || !isLive(execution.state)) throw new AppError('run_not_resumable', { runId: run.id })
}
