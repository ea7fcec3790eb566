import type { OwnFailureReason } from '@openoz/protocol'
import type { Tx } from '../store/database.ts'
import { type ExecutionRecord, updateExecutionEnded, updateExecutionGone } from '../store/executions.ts'
import { type RunRecord, updateRunAwaitsGone, updateRunGone } from '../store/runs.ts'
import type { Ctx, Hint } from './context.ts'
import { endWithoutOutcome } from './turns.ts'

/**
 * Executions that end without anybody's report. Whoever held one may still have processes of it, so its worker, where it is connected, is told to end
 * them at once, and the run's next execution waits:
 *
 *   lost ──► runs.awaits_gone ──► `task_gone` of its worker, or its late end ──► the next one may be offered
 *                            └──► OZ_LEASE_CONFIRM is over ───────────────────┘
 *
 * Where the worker is not connected nobody could say so, and nothing is waited for: the time between `OZ_LEASE_STOP` and `OZ_LEASE_LOST` is for the
 * agent, and the guard beside it, to end by themselves.
 */

export interface Locked {
  tx: Tx
  hint: Hint
  run: RunRecord
  execution: ExecutionRecord
}

export interface Loss {
  reason: Extract<OwnFailureReason, 'lost' | 'start_timeout' | 'worker_died'>
  /** For people: who was last heard of, and when. */
  detail: string
  diedWithWorker: boolean
  /** Its worker is there, and will answer that nothing of it runs any more. */
  isWorkerConnected: boolean
  /** What happened, where it was not what the reason says. */
  meaning?: string
}

const words: Record<Loss['reason'], string> = {
  lost: 'Nobody renewed its lease.',
  start_timeout: 'Its agent did not begin in time.',
  worker_died: 'Its worker was killed, and it with it.',
}

export async function endLost(ctx: Ctx, { tx, hint, run, execution }: Locked, loss: Loss): Promise<void> {
  const { reason, detail, diedWithWorker } = loss
  ctx.log.warn(
    {
      runId: run.id,
      executionId: execution.id,
      workerId: execution.workerId,
      renewedAt: execution.leaseRenewedAt,
      reason,
    },
    'execution lost',
  )
  await updateExecutionEnded(tx, execution.id, {
    state: 'lost',
    failureReason: reason,
    message: loss.meaning ?? words[reason],
  })
  if (loss.isWorkerConnected) await updateRunAwaitsGone(tx, run.id, execution.id, ctx.config.lease.confirmMs / 1000)
  hint(`commands ${execution.id}`)
  hint(`run ${run.id}`)
  // The server that has the worker's connection tells it now, not with its next look.
  hint('cancellations')
  const failure = {
    reason,
    detail,
    exitCode: null,
    diedWithWorker,
    isAwaited: loss.isWorkerConnected,
    meaning: loss.meaning,
  }
  await endWithoutOutcome(ctx, tx, hint, { run, execution, failure })
}

/** Nothing of an execution that is over runs any more. What waited for that may begin. */
export async function noteGone({ tx, hint, run, execution }: Locked): Promise<void> {
  await updateExecutionGone(tx, execution.id)
  if (run.awaitsGone !== execution.id) return
  await updateRunGone(tx, run.id)
  hint(`queue ${run.teamId} ${run.workerHost ?? ''}`)
}
