import { beat } from '../store/control-plane.ts'
import {
  type ExecutionRecord,
  extendLeases,
  findExecutionForUpdate,
  findExpiredExecutionForUpdate,
  type LeaseLimits,
  listExpiredExecutions,
  listOrphanedOffers,
  updateExecutionEnded,
} from '../store/executions.ts'
import { findRunForUpdate, type RunRecord } from '../store/runs.ts'
import { withdrawOffer } from './assignments.ts'
import { type Ctx, change } from './context.ts'
import { endWithoutOutcome } from './turns.ts'

/** A worker answers an offer within milliseconds; one that has not within this long never will. */
const offerSeconds = 30

/** The heartbeat runs every 2 s: a larger gap means that no server was alive. */
const outageSeconds = 10

/**
 * Beats, and after an outage of the whole control plane gives that time back to every deadline: agents that could not renew because there was
 * nobody to renew with must not pay for it. A sweep that comes before it finds nothing: it asks for a fresh heartbeat.
 */
export async function beatAndExtend(ctx: Ctx): Promise<void> {
  const gapSeconds = await ctx.db.transaction(async (tx) => {
    const gap = await beat(tx)
    if (gap > outageSeconds) await extendLeases(tx, gap)
    return gap
  })
  if (gapSeconds > outageSeconds)
    ctx.log.warn({ gapSeconds }, 'the control plane was away; all leases were extended by that time')
}

/**
 * An agent that has given its outcome only has to end, and its worker to say so. When neither is heard of for this long, the worker was killed:
 * waiting for the whole lease would keep viewers and a follow-up waiting.
 */
export const settledSeconds = 60

/** A local agent is started by the process that asked for its run: it says hello within a second, or that process is gone. */
export const localHelloSeconds = 60

/** An agent renews every 5 s, so six renewals were missed: it is gone, and a local one has no worker that could end it. */
export const localCancelSeconds = 30

function leaseLimits(ctx: Ctx): LeaseLimits {
  const lostSeconds = ctx.config.lease.lostMs / 1000
  return { offerSeconds, settledSeconds, outageSeconds, localHelloSeconds, localCancelSeconds, lostSeconds }
}

/** Ends what nobody is responsible for any more. Several servers may sweep at once: each end is decided under the run's lock. */
export async function sweepLeases(ctx: Ctx): Promise<void> {
  const expired = await listExpiredExecutions(ctx.db, leaseLimits(ctx))
  for (const { runId, executionId } of await listOrphanedOffers(ctx.db))
    await endEach(ctx, executionId, () => withdraw(ctx, runId, executionId, 'its connection closed before it answered'))
  for (const { runId, executionId, state } of expired)
    await endEach(ctx, executionId, () =>
      state === 'offered'
        ? withdraw(ctx, runId, executionId, 'it did not answer')
        : loseExecution(ctx, runId, executionId),
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

/** Takes back an offer that was not answered, at its old place in the queue. */
export async function withdraw(ctx: Ctx, runId: string, executionId: string, reason: string): Promise<void> {
  await change(ctx, async (tx, hint) => {
    const run = await findRunForUpdate(tx, runId)
    const execution = await findExecutionForUpdate(tx, executionId)
    if (!run || execution?.state !== 'offered') return
    await withdrawOffer({ tx, hint, run, execution }, `Worker ${execution.workerId} did not take it: ${reason}.`)
  })
}

function lastWord(run: RunRecord, execution: ExecutionRecord): string {
  const at = execution.leaseRenewedAt.toISOString()
  if (run.executionLocation === 'REMOTE') return `Worker ${execution.workerId} was last heard of at ${at}.`
  return execution.helloAt === null
    ? `The agent on ${run.host} was never heard of: it did not begin.`
    : `The agent on ${run.host} was not heard of since ${at}.`
}

async function loseExecution(ctx: Ctx, runId: string, executionId: string): Promise<void> {
  await change(ctx, async (tx, hint) => {
    const run = await findRunForUpdate(tx, runId)
    const execution = await findExpiredExecutionForUpdate(tx, executionId, leaseLimits(ctx))
    if (!run || !execution) return
    ctx.log.warn(
      { runId, executionId, workerId: execution.workerId, renewedAt: execution.leaseRenewedAt },
      'execution lost',
    )
    await updateExecutionEnded(tx, executionId, {
      state: 'lost',
      failureReason: 'lost',
      message: 'Nobody renewed its lease.',
    })
    hint(`commands ${executionId}`)
    hint(`run ${runId}`)
    await endWithoutOutcome(tx, hint, run, execution, {
      reason: 'lost',
      detail: lastWord(run, execution),
      mayRetry: true,
    })
  })
}
