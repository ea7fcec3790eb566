import type { Ctx } from '../domain/context.ts'
import { beatAndExtend, sweepLeases } from '../domain/leases.ts'
import { numberAllRunEvents } from '../domain/run-events.ts'
import { waitingSentence } from '../domain/why.ts'
import { lookEveryMs } from '../lease-times.ts'
import { deleteUnfinishedBlobs, deleteUnreferencedBlobs } from '../store/blobs.ts'
import { deleteOldIdempotencyKeys } from '../store/idempotency-keys.ts'
import { deleteOldJoinTokens } from '../store/join-tokens.ts'
import { deleteStale } from '../store/presence.ts'
import { listWaitingHosts } from '../store/queue.ts'
import { deleteOldRunEvents } from '../store/run-events.ts'
import { updateQueuedStatusMessages } from '../store/runs.ts'
import { type Loop, startLoop } from './loop.ts'

const idempotencyKeySeconds = 24 * 3600

/** Whoever waits for runs looks more often than once a month. */
const runEventSeconds = 30 * 24 * 3600

/** So long an administrator may ask what became of one. */
const expiredJoinTokenSeconds = 24 * 3600

/** No upload takes a day. */
const unfinishedBlobSeconds = 24 * 3600

/** Far past the 15 minutes in which an execution that is over may still send events that name its blobs, and no upload takes a day. */
const unreferencedBlobSeconds = 24 * 3600

/** Each may have a long log to read: the others come with the next round. */
const maxBlobRuns = 50

/** The control plane's heartbeat and what must happen although nobody asks: leases, stale rows, sentences of waiting runs. */
export function startHousekeeping(ctx: Ctx, signal: AbortSignal): Loop[] {
  let round = 0
  const { lease } = ctx.config
  const roundMs = lookEveryMs(lease)
  // What a worker's connection is silent for is what its server may be silent for.
  const staleLimits = { staleSeconds: lease.workerSilentMs / 1000, outageSeconds: lease.outageMs / 1000 }
  const heartbeat = startLoop({
    name: 'heartbeat',
    everyMs: roundMs,
    log: ctx.log,
    signal,
    work: () => beatAndExtend(ctx),
  })
  // Not in the heartbeat's loop: a sweep that waits for a lock must not look like an outage.
  const sweeping = startLoop({
    name: 'lease sweep',
    everyMs: roundMs,
    log: ctx.log,
    signal,
    work: () => sweepLeases(ctx),
  })
  const tidying = startLoop({
    name: 'tidying',
    everyMs: Math.min(5_000, lease.workerSilentMs / 4),
    log: ctx.log,
    signal,
    async work() {
      await deleteStale(ctx.db, staleLimits)
      for (const { teamId, workerHost, connected, draining } of await listWaitingHosts(ctx.db))
        await updateQueuedStatusMessages(
          ctx.db,
          workerHost,
          teamId,
          waitingSentence(workerHost === '' ? null : workerHost, connected, draining),
        )
      if (round++ % 120 !== 0) return
      await deleteOldIdempotencyKeys(ctx.db, idempotencyKeySeconds)
      await deleteOldJoinTokens(ctx.db, expiredJoinTokenSeconds)
      await deleteOldRunEvents(ctx.db, runEventSeconds)
      // Also where nobody reads them, so that the first reader does not wait for all of them.
      await numberAllRunEvents(ctx.db)
      await deleteUnfinishedBlobs(ctx.db, unfinishedBlobSeconds)
      await deleteUnreferencedBlobs(ctx.db, {
        afterSeconds: unreferencedBlobSeconds,
        maxRuns: maxBlobRuns,
      })
    },
  })
  return [heartbeat, sweeping, tidying]
}
