import { readFile, stat } from 'node:fs/promises'
import { join } from 'node:path'
import { bootClockMs } from '@openoz/machine'
import { readTaskFile, type TaskFolder } from './task-folder.ts'

/**
 * What is known on this machine of the lease of a task's agent: nobody tells a worker how long leases are, the agent says by when it must be dead (see
 * `lease-file.ts` of the agent), and the shim how far away that was at first (see `shell-text.ts`).
 */

/** Leases of up to this length are believed without the shim's word: the default is 12.5 min. The shim has the same number. */
const usualLeaseMs = 900_000

/** By when a lease of that length is over at the control plane, counted from its last renewal. */
export const longestLeaseMs = usualLeaseMs * 1.2

/**
 * Answers by when the agent must be dead, on the boot clock; undefined while there is no such word. The file is the task's: read by the same rules as the
 * shim's guard does, and a date is believed for no longer than a lease takes from when it was first seen.
 */
export function watchLease(paths: TaskFolder): () => Promise<number | undefined> {
  let seen: { text: string; at: number } | undefined
  return async () => {
    const text = (await readTaskFile(join(paths.spool, 'lease'), 64).catch(() => undefined))?.replace(/\n+$/, '')
    if (text === undefined || !/^(0|[1-9]\d{0,14})$/.test(text)) return undefined
    if (seen?.text !== text) seen = { text, at: bootClockMs() }
    const longestMs = (await readLongest(paths)) ?? Number.POSITIVE_INFINITY
    return Math.min(Number(text), seen.at + longestMs)
  }
}

/**
 * How long a task whose agent has ended may still be its dead worker's, which the control plane takes back with all that it names: until its lease is over
 * there. 0: it is not any more.
 */
export async function leaseLeftMs(paths: TaskFolder): Promise<number> {
  // The agent stops at the middle between `OZ_LEASE_STOP` and `OZ_LEASE_LOST`.
  const lostMs = ((await readLongest(paths)) ?? usualLeaseMs) * 1.2
  return Math.max(0, lostMs - (await silentMs(paths)))
}

/** Since the last sign of a task on disk: the agent renews its lease in the spool, the shim leaves the exit code. */
export async function silentMs(paths: TaskFolder): Promise<number> {
  const now = Date.now()
  const changedAt = async (path: string) => (await stat(path).catch(() => undefined))?.mtimeMs ?? 0
  const bySpool = await changedAt(paths.spool)
  // A task could give its spool any date.
  const signs = [await changedAt(paths.folder), await changedAt(paths.record), bySpool > now ? 0 : bySpool]
  return Math.max(0, now - Math.max(...signs))
}

/** Not the task's: undefined when the shim has not seen a lease, or is of a version that did not say. */
async function readLongest({ longestLease }: TaskFolder): Promise<number | undefined> {
  const text = await readFile(longestLease, 'utf8').catch(() => '')
  return /^\d{1,15}\n$/.test(text) ? Number(text) : undefined
}
