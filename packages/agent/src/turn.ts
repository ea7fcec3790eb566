import { AppError, type TurnInput } from '@openoz/protocol'
import { saveUnendedTurn } from './checkpoints.ts'
import type { TurnResult } from './harnesses/harness.ts'
import type { LiveExecution } from './live-execution.ts'
import { mustEndAtOnce } from './processes.ts'
import { saveToControlPlane } from './save-work.ts'
import { openSession } from './session.ts'
import { isHurried, type StopReason } from './stop-switch.ts'
import { turnFailure } from './turn-failure.ts'

/** How long harness and tools may take to stop before the turn ends without them; after SIGTERM supervisors kill 10 s later. */
const stopGraceMs = 10_000
const terminationGraceMs = 2_000

/**
 * One turn, from its text to its outcome in the spool. The first one prepares the workspace and opens the harness. Answers what was said of
 * it; undefined when nothing was, because the process was asked to stop or the execution is not ours any more. Never rejects.
 */
export async function performTurn(execution: LiveExecution, turn: TurnInput): Promise<TurnResult | undefined> {
  const { messages, unsaved, kept, workspace, hello, sentMessages, lease } = execution
  messages.begin(turn)
  execution.openTurn = turn
  sentMessages.clear()
  lease.begin()
  unsaved.add('workspace')
  if (workspace) kept.keepWorkspace({ workspace, maxBytes: hello.limits.workspace_max_bytes })
  try {
    const result = await workUntilStopped(execution, turn)
    return await saveAndReport(execution, turn, result)
  } finally {
    messages.end()
  }
}

/** Waits for a stopped turn to come to rest, but not for ever. */
async function workUntilStopped(execution: LiveExecution, turn: TurnInput): Promise<TurnResult> {
  const { stop } = execution
  let timer: NodeJS.Timeout | undefined
  const patienceEnded = Promise.withResolvers<TurnResult>()
  const onStop = () => {
    timer = setTimeout(() => patienceEnded.resolve(stoppedResult(stop.reason)), stopGraceOf(execution))
  }
  if (stop.working.aborted) onStop()
  else stop.working.addEventListener('abort', onStop, { once: true })
  try {
    return await Promise.race([work(execution, turn), patienceEnded.promise])
  } finally {
    clearTimeout(timer)
    stop.working.removeEventListener('abort', onStop)
  }
}

function stopGraceOf(execution: LiveExecution): number {
  const { reason } = execution.stop
  if (isHurried(reason)) return terminationGraceMs
  if (mustEndAtOnce(execution)) return 0
  return reason?.kind === 'abandon' && reason.why === 'lease_lost' ? reason.graceMs : stopGraceMs
}

async function work(execution: LiveExecution, turn: TurnInput): Promise<TurnResult> {
  const { stop, messages, log, unsaved } = execution
  try {
    stop.working.throwIfAborted()
    execution.session ??= await openSession(execution)
    const { session } = execution.session
    const arrived = await execution.attachments.bring(stop.working)
    const input = messages.handOver(session)
    const told = arrived === undefined ? input : { ...input, message: `${input.message}\n\n${arrived}` }
    const result = await session.prompt(told, stop.working)
    // A turn that failed has said things too: a follow-up goes on from its prompt, not without it.
    const hasFailed = result.outcome === 'FAILED' || result.outcome === 'ERROR'
    if (hasFailed || unsaved.has('checkpoint')) await saveUnendedTurn(execution, turn)
    return result
  } catch (error) {
    const isStopped = stop.working.aborted
    if (!isStopped) log.warn({ err: error }, 'the turn could not be performed')
    await saveUnendedTurn(execution, turn)
    return isStopped ? stoppedResult(stop.reason) : turnFailure(error)
  }
}

/** Saves the workspace and says how the turn ended: the two things that must not be lost. Returns what was said. */
async function saveAndReport(
  execution: LiveExecution,
  turn: TurnInput,
  performed: TurnResult,
): Promise<TurnResult | undefined> {
  const { stop, log } = execution
  let result = performed
  if (stop.ours.aborted) return undefined
  try {
    await saveToControlPlane(execution)
  } catch (error) {
    if (stop.ours.aborted) return undefined
    log.error({ err: error }, 'the workspace could not be saved')
    // A success whose result is lost is none.
    if (result.outcome === 'SUCCEEDED') result = turnFailure(error)
  }
  if (stop.ours.aborted || stop.reason?.kind === 'terminate') return undefined
  return reportOutcome(execution, turn, result)
}

/** Returns what was said: nothing when it could not be. */
export function reportOutcome(execution: LiveExecution, turn: TurnInput, result: TurnResult): TurnResult | undefined {
  const { events, sentMessages, lease, log } = execution
  const { outcome, message, errorCode } = result
  execution.openTurn = undefined
  // Before the control plane can have it: from then on less silence is allowed.
  lease.settle()
  try {
    events.emitFinal({
      type: 'turn_outcome',
      data: {
        turn_id: turn.turn_id,
        outcome,
        message,
        error_code: errorCode,
        // What is only in this process's memory may be lost with it: the control plane asks it again.
        taken_message_ids: [...sentMessages],
      },
    })
  } catch (error) {
    log.error({ err: error }, 'the outcome of the turn could not be kept')
    return undefined
  }
  return result
}

export function stoppedResult(reason: StopReason | undefined): TurnResult {
  if (reason?.kind === 'break') return turnFailure(reason.error)
  if (reason?.kind === 'interrupt') {
    return { outcome: 'CANCELLED', message: new AppError('run_interrupted').message, errorCode: 'run_interrupted' }
  }
  return { outcome: 'CANCELLED', message: 'Cancelled by user' }
}
