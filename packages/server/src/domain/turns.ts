import {
  type ErrorCode,
  errorSpecs,
  isLive,
  mayFollow,
  type PlatformErrorCode,
  platformErrorCodes,
  type SessionEventData,
  type TurnOutcome,
} from '@openoz/protocol'
import { v7 as uuidv7 } from 'uuid'
import { insertCommand } from '../store/commands.ts'
import type { Tx } from '../store/database.ts'
import { updateSetupFailed } from '../store/environments.ts'
import {
  type ExecutionRecord,
  findCurrentExecutionForUpdate,
  updateDiedWithWorker,
  updateExecutionEnded,
  updateExecutionOutcome,
} from '../store/executions.ts'
import { listOpenMessages, updateMessagesMoved } from '../store/messages.ts'
import { updateRunMoved } from '../store/run-moves.ts'
import { type RunRecord, updateRunReopened, updateWorkerDeaths } from '../store/runs.ts'
import {
  findNextTurnNumber,
  findOpenTurn,
  insertTurn,
  type TurnRecord,
  updateOpenTurnsEnded,
  updateTurnOutcome,
} from '../store/turns.ts'
import type { Ctx, Hint } from './context.ts'
import { type Failure, type RetryDecision, retryDecision } from './retry-policy.ts'
import { runEventOfState } from './run-events.ts'
import { appendServerEvents, storableJson, storableText } from './session-log.ts'

/**
 * How turns end and runs move. Every transition of a run goes through `moveRun`, every outcome through `endTurn`: so there is one `run_state`
 * event per transition, one terminal one per turn, and `status_message` always says why. Callers have locked the run (and then the execution).
 */

interface Move {
  state: RunRecord['state']
  message: string
  errorCode?: PlatformErrorCode | null
  failureReason?: string | null
  retries?: Record<string, number>
  notBeforeSeconds?: number
  executionId?: string
}

/** Moves the run and tells its log. A transition that the table does not know is a bug, not an input error. */
export async function moveRun(tx: Tx, hint: Hint, run: RunRecord, move: Move): Promise<RunRecord> {
  if (!mayFollow(run.state, move.state))
    throw new Error(`run ${run.id} cannot go from ${run.state} to ${move.state}: the table of run states forbids it`)
  if (move.state === 'QUEUED' && run.executionLocation === 'LOCAL')
    throw new Error(`run ${run.id} is a local one: no worker may get it`)
  const message = storableText(move.message)
  const told: SessionEventData['run_state'] = {
    state: move.state,
    message,
    ...(move.errorCode ? { error_code: move.errorCode } : {}),
    ...(move.failureReason ? { failure_reason: move.failureReason } : {}),
  }
  const runEventType = runEventOfState[move.state] ?? null
  const moved = await updateRunMoved(tx, run.id, {
    state: move.state,
    statusMessage: message,
    errorCode: move.errorCode ?? null,
    failureReason: move.failureReason ?? null,
    ...(move.retries === undefined ? {} : { retries: move.retries }),
    ...(move.notBeforeSeconds === undefined ? {} : { notBeforeSeconds: move.notBeforeSeconds }),
    executionId: move.executionId ?? null,
    eventData: storableJson(told),
    runEventType,
  })
  if (runEventType) hint('run-events')
  hint(`run ${run.id}`)
  if (move.state === 'QUEUED') hint(`queue ${run.teamId} ${run.workerHost ?? ''}`)
  return moved
}

export interface Outcome {
  outcome: TurnOutcome
  message: string
  errorCode?: PlatformErrorCode | null
  failureReason?: string | null
}

/**
 * Ends the open turn, once. Answers false, and changes nothing, when there is none: somebody was first. Where more was asked meanwhile the run goes
 * on with that in the same transaction, so nobody sees it at rest in between; a cancel ends everything that was asked. `open` is the open turn, where
 * the caller has looked for it already.
 */
export async function endTurn(
  tx: Tx,
  hint: Hint,
  run: RunRecord,
  execution: ExecutionRecord | undefined,
  end: Outcome,
  open?: TurnRecord,
): Promise<boolean> {
  const turn = open ?? (await findOpenTurn(tx, run.id))
  if (!turn) return false
  if (!(await updateTurnOutcome(tx, turn.id, end.outcome, storableText(end.message), end.errorCode ?? null)))
    return false
  if (execution) await updateExecutionOutcome(tx, execution.id, end.outcome, end.failureReason ?? null)
  // Its agent outlived the turn, so the run is no poison.
  if (run.workerDeaths > 0 && (end.outcome === 'SUCCEEDED' || end.outcome === 'BLOCKED'))
    await updateWorkerDeaths(tx, run.id, 0)
  // An outcome that came before the agent heard of the cancel stands; what was asked after that turn is cancelled all the same.
  const isCancel = end.outcome === 'CANCELLED' || run.cancelRequestedAt !== null
  if (isCancel) await cancelWhatWaits(tx, run.id, turn.id)
  const moved = await moveRun(tx, hint, run, {
    state: end.outcome,
    message: end.message,
    errorCode: end.errorCode ?? null,
    failureReason: end.failureReason ?? null,
    ...(execution ? { executionId: execution.id } : {}),
  })
  if (run.environmentId !== null && end.errorCode === 'environment_setup_failed')
    await updateSetupFailed(tx, run.environmentId, true)
  if (isCancel) return true
  await turnMessagesIntoTurns(tx, run.id, turn.id)
  if (await findOpenTurn(tx, run.id)) await goOnWithNextTurn(tx, hint, moved)
  return true
}

/** Ends what nobody had begun, and says so: nothing that a person said is dropped in silence. */
async function cancelWhatWaits(tx: Tx, runId: string, endedTurnId: string): Promise<void> {
  const turns = await updateOpenTurnsEnded(tx, runId, { outcome: 'CANCELLED', message: 'Cancelled by user.' })
  const unread = await listOpenMessages(tx, endedTurnId)
  const count = turns.length + unread.length
  if (count === 0) return
  const dropped = `The cancel drops ${count === 1 ? '1 message' : `${count} messages`} that the agent had not taken up.`
  const ended =
    turns.length === 0
      ? ''
      : ` Cancelled before it began: ${turns.length === 1 ? 'turn' : 'turns'} ${turns.join(', ')}.`
  await appendServerEvents(tx, runId, [{ type: 'notice', data: { level: 'info', text: dropped + ended } }])
}

/** What was said to a turn too late for it is asked as turns of their own: nothing that a person said is lost. */
async function turnMessagesIntoTurns(tx: Tx, runId: string, turnId: string): Promise<void> {
  const late = await listOpenMessages(tx, turnId)
  for (const { message_id: id, text: message, author, askedSeq } of late)
    await insertTurn(tx, { id, runId, number: await findNextTurnNumber(tx, runId), message, author, askedSeq })
  await updateMessagesMoved(
    tx,
    late.map((message) => message.message_id),
  )
}

/** Nobody performs these turns any more: the only agent that a local run has is gone. They share its end, and the log names them. */
async function endTurnsOfGoneAgent(tx: Tx, run: RunRecord): Promise<RunRecord> {
  const message = `The agent on ${run.host} has ended, and no worker goes on with a local run.`
  const turns = await updateOpenTurnsEnded(tx, run.id, {
    outcome: 'ERROR',
    message,
    errorCode: 'resource_unavailable',
  })
  const text = `${message} Not begun: ${turns.length === 1 ? 'turn' : 'turns'} ${turns.join(', ')}.`
  await appendServerEvents(tx, run.id, [{ type: 'notice', data: { level: 'warning', text } }])
  return run
}

/** A run at rest has something to do again: its live agent is woken for it, else it queues. A local run never queues. */
export async function goOnWithNextTurn(tx: Tx, hint: Hint, run: RunRecord): Promise<RunRecord> {
  const execution = await findCurrentExecutionForUpdate(tx, run.id)
  const hasAgent = execution?.helloAt && isLive(execution.state)
  if (!hasAgent && run.executionLocation === 'LOCAL') return endTurnsOfGoneAgent(tx, run)
  await updateRunReopened(tx, run.id)
  if (!hasAgent) {
    // An agent that never said hello gets no turn; while its execution lives, no other one could begin.
    if (execution) await updateExecutionEnded(tx, execution.id, { state: 'ended', message: 'It never said hello.' })
    return moveRun(tx, hint, run, { state: 'QUEUED', message: waitsForWorker })
  }
  await insertCommand(tx, { id: uuidv7(), runId: run.id, executionId: execution.id, type: 'turn', payload: {} })
  hint(`commands ${execution.id}`)
  return moveRun(tx, hint, run, {
    state: 'INPROGRESS',
    // Not more than is known: an agent that is gone never takes it.
    message: 'The agent is told of the next message.',
    executionId: execution.id,
  })
}

const waitsForWorker = 'Waiting for a worker with a free slot.'

/**
 * The execution is over, and the open turn is one that it had never begun: it only rested when the message came. The message waits for the next
 * one; that is no failure, and no retry. Answers whether it was so. A run that waits already keeps its place, whatever became of the execution.
 */
export async function requeueUnbegunTurn(
  tx: Tx,
  hint: Hint,
  run: RunRecord,
  execution: ExecutionRecord,
): Promise<boolean> {
  if (run.executionLocation === 'LOCAL') return false
  if (run.state === 'QUEUED' && !run.cancelRequestedAt) {
    hint(`queue ${run.teamId} ${run.workerHost ?? ''}`)
    return true
  }
  const turn = await findOpenTurn(tx, run.id)
  // An execution that was never heard of was made for this turn.
  if (!turn || !execution.helloAt || turn.executionId === execution.id || run.cancelRequestedAt) return false
  await moveRun(tx, hint, run, { state: 'QUEUED', message: waitsForWorker, executionId: execution.id })
  return true
}

/** Ends everything that was asked as cancelled. A run that is BLOCKED has no open turn: its turn keeps its outcome, and the run itself is moved. */
export async function endCancelled(
  tx: Tx,
  hint: Hint,
  run: RunRecord,
  execution: ExecutionRecord | undefined,
): Promise<void> {
  const message = 'Cancelled by user.'
  if (await endTurn(tx, hint, run, execution, { outcome: 'CANCELLED', message })) return
  if (run.state === 'BLOCKED')
    await moveRun(tx, hint, run, {
      state: 'CANCELLED',
      message,
      ...(execution ? { executionId: execution.id } : {}),
    })
}

/**
 * An execution ended without its agent's word. Tries the run again if the retry policy says so, else ends the turn. A cancel that is waiting wins; a
 * turn that has its outcome keeps it.
 */
export async function endWithoutOutcome(
  ctx: Pick<Ctx, 'config'>,
  tx: Tx,
  hint: Hint,
  { run, execution, failure }: { run: RunRecord; execution: ExecutionRecord; failure: Failure },
): Promise<void> {
  if (await requeueUnbegunTurn(tx, hint, run, execution)) return
  if (run.cancelRequestedAt) return endCancelled(tx, hint, run, execution)
  if (!(await findOpenTurn(tx, run.id))) return
  const { poisonDeaths } = ctx.config.lease
  const { retries, maxAttempts } = run
  const deadWorkers = failure.diedWithWorker ? await countDeath(tx, run, execution) : []
  const isLocal = run.executionLocation === 'LOCAL'
  const decision = retryDecision({ isLocal, retries, maxAttempts, deadWorkers, poisonDeaths }, failure)
  if (decision.kind === 'end') {
    const { outcome, sentence: message, code: errorCode, failureReason } = decision
    await endTurn(tx, hint, run, execution, { outcome, message, errorCode, failureReason })
    return
  }
  await moveRun(tx, hint, run, {
    state: 'QUEUED',
    message: retrySentence(decision, failure),
    failureReason: failure.reason,
    retries: decision.retries,
    notBeforeSeconds: decision.delaySeconds,
    executionId: execution.id,
  })
}

/** One more worker that it took with it; answers those since an execution of the run last ended well. */
async function countDeath(tx: Tx, run: RunRecord, execution: ExecutionRecord): Promise<string[]> {
  const count = run.workerDeaths + 1
  await updateWorkerDeaths(tx, run.id, count)
  return (await updateDiedWithWorker(tx, execution.id)).slice(-count)
}

function retrySentence(retry: RetryDecision & { kind: 'retry' }, { reason, isAwaited }: Failure): string {
  const { attempt, of, delaySeconds } = retry
  const atOnce = isAwaited ? 'once nothing of it runs any more' : 'at once'
  const when = delaySeconds === 0 ? atOnce : `in ${delaySeconds} seconds`
  return `Attempt ${attempt} of ${of}: ${reason}, ${when}. ${retry.sentence}`
}

/** A run's `error_code` is a platform code; agents may send a finer one of the registry. */
export function platformCode(code: string | undefined): PlatformErrorCode | null {
  if (code === undefined) return null
  if ((platformErrorCodes as readonly string[]).includes(code)) return code as PlatformErrorCode
  return Object.hasOwn(errorSpecs, code) ? errorSpecs[code as ErrorCode].platform : 'internal_error'
}

/** What is left of an agent's code when only its platform code is shown; null where that one says the same, or the code is none of ours. */
export function finerReason(code: string | undefined): ErrorCode | null {
  return code !== undefined && Object.hasOwn(errorSpecs, code) && code !== platformCode(code)
    ? (code as ErrorCode)
    : null
}
