import { beat } from '../store/control-plane.ts'
import { type ExecutionRecord, findRunAndExecutionForUpdate } from '../store/executions.ts'
import {
  type DeadlineSpans,
  extendDeadlines,
  findExpiredExecutionForUpdate,
  type LeaseLimits,
  listExpiredExecutions,
  listOrphanedOffers,
  pullDeadlines,
} from '../store/leases.ts'
import { findRunForUpdate, type RunRecord } from '../store/runs.ts'
import { hasWorkerConnection } from '../store/workers.ts'
import { withdrawOffer } from './assignments.ts'
import { type Ctx, change } from './context.ts'
import { endLost } from './lost-executions.ts'
import { maxRetryDelaySeconds } from './retry-policy.ts'

/**
 * Beats, and keeps every deadline true where the clock between two beats did not tell the time that passed for the control plane:
 *
 * - It was away as a whole, or its clock was set forward: agents that could not renew because there was nobody to renew with must not pay for it.
 *   Every deadline gets that time back. A sweep that comes before it finds nothing: it asks for a fresh heartbeat.
 * - Its clock was set back: what was written before lies in the future, and would keep what is dead alive for as long. It is pulled to now.
 */
export async function beatAndExtend(ctx: Ctx): Promise<void> {
  const outageSeconds = ctx.config.lease.outageMs / 1000
  const gapSeconds = await ctx.db.transaction(async (tx) => {
    const gap = await beat(tx)
    if (gap > outageSeconds) await extendDeadlines(tx, gap, deadlineSpans(ctx))
    else if (gap < -outageSeconds) await pullDeadlines(tx, deadlineSpans(ctx))
    return gap
  })
  if (gapSeconds > outageSeconds)
    ctx.log.warn({ gapSeconds }, 'the control plane was away; all deadlines were extended by that time')
  else if (gapSeconds < -outageSeconds)
    ctx.log.warn({ gapSeconds }, 'the clock of the database was set back; all deadlines were measured anew')
}

function deadlineSpans(ctx: Ctx): DeadlineSpans {
  const { startMs, lateMs, confirmMs } = ctx.config.lease
  return {
    startSeconds: startMs / 1000,
    lateSeconds: lateMs / 1000,
    confirmSeconds: confirmMs / 1000,
    retrySeconds: maxRetryDelaySeconds,
  }
}

function leaseLimits(ctx: Ctx): LeaseLimits {
  const { offerMs, lostMs, settledMs, localHelloMs, localCancelMs, outageMs, startMs } = ctx.config.lease
  return {
    offerSeconds: offerMs / 1000,
    lostSeconds: lostMs / 1000,
    settledSeconds: settledMs / 1000,
    localHelloSeconds: localHelloMs / 1000,
    localCancelSeconds: localCancelMs / 1000,
    outageSeconds: outageMs / 1000,
    startSeconds: startMs / 1000,
  }
}

/** Ends what nobody is responsible for any more. Several servers may sweep at once: each end is decided under the run's lock. */
export async function sweepLeases(ctx: Ctx): Promise<void> {
  const limits = leaseLimits(ctx)
  const expired = await listExpiredExecutions(ctx.db, limits)
  for (const offer of await listOrphanedOffers(ctx.db, limits))
    await endEach(ctx, offer.executionId, () => withdraw(ctx, offer, 'its connection closed before it answered'))
  for (const found of expired)
    await endEach(ctx, found.executionId, () =>
      found.state === 'offered'
        ? withdraw(ctx, found, 'it did not answer')
        : loseExecution(ctx, found.runId, found.executionId),
    )
}

/** One that cannot be ended must not keep the others: the next sweep tries it again. */
async function endEach(ctx: Ctx, executionId: string, end: () => Promise<void>): Promise<void> {
  try {
    await end()
  } catch (error) {
    ctx.log.warn({ error, executionId }, 'an execution could not be ended')
  }
}

export interface MadeOffer {
  runId: string
  executionId: string
  /** On which it was made: a worker that is back on another one may have named it there as its own. */
  connectionId: string | null
}

/** Takes back an offer that was not answered, at its old place in the queue. */
export async function withdraw(
  ctx: Ctx,
  { runId, executionId, connectionId }: MadeOffer,
  reason: string,
): Promise<void> {
  await change(ctx, async (tx, hint) => {
    const locked = await findRunAndExecutionForUpdate(tx, runId, executionId)
    if (!locked) return
    const { run, execution } = locked
    if (execution.state !== 'offered' || execution.workerConnectionId !== connectionId) return
    await withdrawOffer({ tx, hint, run, execution }, `Worker ${execution.workerId} did not take it: ${reason}.`)
    // A worker that hangs with it in its buffer must not begin when it wakes.
    hint('cancellations')
  })
}

function lastWord(run: RunRecord, execution: ExecutionRecord): string {
  const at = execution.leaseRenewedAt.toISOString()
  if (run.executionLocation === 'REMOTE')
    return `${execution.leaseHolder === 'agent' ? 'Its agent on worker' : 'Worker'} ${execution.workerId} was last heard of at ${at}.`
  return execution.helloAt === null
    ? `The agent on ${run.host} was never heard of: it did not begin.`
    : `The agent on ${run.host} was not heard of since ${at}.`
}

async function loseExecution(ctx: Ctx, runId: string, executionId: string): Promise<void> {
  await change(ctx, async (tx, hint) => {
    const run = await findRunForUpdate(tx, runId)
    const execution = await findExpiredExecutionForUpdate(tx, executionId, leaseLimits(ctx))
    if (!run || !execution) return
    const { isStartOver, isWorkerConnected, workerId } = execution
    const isLocal = run.executionLocation === 'LOCAL'
    // One that no agent began for says nothing about the run.
    const diedWithWorker =
      !isLocal && execution.helloAt !== null && !(await hasWorkerConnection(tx, { teamId: run.teamId, workerId }))
    await endLost(
      ctx,
      { tx, hint, run, execution },
      {
        reason: isStartOver ? 'start_timeout' : 'lost',
        detail: isStartOver
          ? `Worker ${workerId} claimed it at ${execution.claimedAt?.toISOString()}.`
          : lastWord(run, execution),
        diedWithWorker,
        isWorkerConnected,
      },
    )
  })
}
