import {
  type ErrorCode,
  errorSpecs,
  type FailureReason,
  failureSpec,
  mayFollow,
  type PlatformErrorCode,
  platformErrorCodes,
  type TurnOutcome,
} from '@openoz/protocol'
import type { Tx } from '../store/database.ts'
import { type ExecutionRecord, updateExecutionOutcome } from '../store/executions.ts'
import { type RunRecord, updateRunState } from '../store/runs.ts'
import { findOpenTurn, updateTurnOutcome } from '../store/turns.ts'
import type { Topic } from './context.ts'
import { appendServerEvents, storableText } from './session-log.ts'

/**
 * How turns end and runs move. Every transition of a run goes through `moveRun`, every outcome through `endTurn`: so there is one `run_state`
 * event per transition, one terminal one per turn, and `status_message` always says why. Callers have locked the run (and then the execution).
 */

export type Hint = (topic: Topic) => void

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
  const message = storableText(move.message)
  const moved = await updateRunState(tx, run.id, {
    state: move.state,
    statusMessage: message,
    errorCode: move.errorCode ?? null,
    failureReason: move.failureReason ?? null,
    ...(move.retries === undefined ? {} : { retries: move.retries }),
    ...(move.notBeforeSeconds === undefined ? {} : { notBeforeSeconds: move.notBeforeSeconds }),
  })
  await appendServerEvents(tx, run.id, [
    {
      type: 'run_state',
      ...(move.executionId === undefined ? {} : { executionId: move.executionId }),
      data: { state: move.state, message, ...(move.errorCode ? { error_code: move.errorCode } : {}) },
    },
  ])
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

/** Ends the open turn, once. Answers false, and changes nothing, when there is none: somebody was first. */
export async function endTurn(
  tx: Tx,
  hint: Hint,
  run: RunRecord,
  execution: ExecutionRecord | undefined,
  end: Outcome,
): Promise<boolean> {
  const turn = await findOpenTurn(tx, run.id)
  if (!turn) return false
  if (!(await updateTurnOutcome(tx, turn.id, end.outcome, storableText(end.message), end.errorCode ?? null)))
    return false
  if (execution) await updateExecutionOutcome(tx, execution.id, end.outcome)
  await moveRun(tx, hint, run, {
    state: end.outcome,
    message: end.message,
    errorCode: end.errorCode ?? null,
    failureReason: end.failureReason ?? null,
    ...(execution ? { executionId: execution.id } : {}),
  })
  return true
}

/** Ends the open turn as cancelled. A run that is BLOCKED has none: its turn keeps its outcome, and the run itself is moved. */
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
 * An execution ended without its agent's word. Tries the run again if its retry policy allows, else ends the turn. A cancel that is waiting wins;
 * a turn that has its outcome keeps it.
 */
export async function endWithoutOutcome(
  tx: Tx,
  hint: Hint,
  run: RunRecord,
  execution: ExecutionRecord,
  failure: { reason: FailureReason | 'lost'; detail: string; mayRetry: boolean },
): Promise<void> {
  if (run.cancelRequestedAt) return endCancelled(tx, hint, run, execution)
  if (!(await findOpenTurn(tx, run.id))) return
  const spec = failureSpec(failure.reason)
  const sentence = [spec.meaning, failure.detail].filter(Boolean).join(' ')
  const tried = run.retries[failure.reason] ?? 0
  // Unmanaged runs belong to whoever started them: the server never starts one again.
  if (failure.mayRetry && tried < spec.retries && run.executionLocation === 'REMOTE') {
    await moveRun(tx, hint, run, {
      state: 'QUEUED',
      message: `Trying again (${tried + 1} of ${spec.retries}). ${sentence}`,
      failureReason: failure.reason,
      retries: { ...run.retries, [failure.reason]: tried + 1 },
      notBeforeSeconds: spec.retryDelaySeconds,
      executionId: execution.id,
    })
    return
  }
  await endTurn(tx, hint, run, execution, {
    outcome: spec.side === 'user' ? 'FAILED' : 'ERROR',
    message: tried > 0 ? `${sentence} It was tried ${tried + 1} times.` : sentence,
    errorCode: spec.code,
    failureReason: failure.reason,
  })
}

/** A run's `error_code` is a platform code; agents may send a finer one of the registry. */
export function platformCode(code: string | undefined): PlatformErrorCode | null {
  if (code === undefined) return null
  if ((platformErrorCodes as readonly string[]).includes(code)) return code as PlatformErrorCode
  return Object.hasOwn(errorSpecs, code) ? errorSpecs[code as ErrorCode].platform : 'internal_error'
}
