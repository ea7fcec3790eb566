import { sleep } from '@openoz/machine'
import type { Assignment } from './assignment.ts'
import type { Link } from './link.ts'
import type { DrainMode } from './worker-options.ts'

/**
 * How an ending worker waits for its tasks: with `stop` for all of them, with `leave` for those that are not to be left: what was on its way to its
 * agent, and what has ended. First for the processes, as long as it takes; then for what needs the control plane, which has limits, because all of
 * it is on disk for the next process.
 */
export interface TaskEnding {
  assignments: () => Assignment[]
  mode: () => DrainMode | undefined
  /** Somebody has no patience. */
  isHurried: () => boolean
  /** Nobody is in a hurry: a control plane that is away has all of the time, and not just what a short break takes. */
  isPatient: () => boolean
  /** The next time that something may be different. */
  changed: () => Promise<void>
  link: Link
  times: { finishMs: number; settleMs: number }
  /** False: the control plane does not listen to us. */
  canTell: boolean
  /** Aborted when the limits are reached. */
  leaving: AbortController
}

/** For saving, delivering and telling. */
const hurriedMs = 2_000

export async function endTasks(ending: TaskEnding): Promise<void> {
  const { assignments, changed, link, times, canTell, leaving } = ending
  const mayBeLeft = ({ phase, hasStarted }: Assignment) =>
    ending.mode() === 'leave' && phase === 'running' && hasStarted
  let endedAt: number | undefined
  let awayAt: number | undefined
  while (!assignments().every(mayBeLeft) && !leaving.signal.aborted) {
    const now = performance.now()
    awayAt = link.isUp && canTell ? undefined : (awayAt ?? now)
    if (assignments().every((one) => one.phase !== 'running' || mayBeLeft(one))) endedAt ??= now
    const limitMs = ending.isHurried() ? hurriedMs : times.finishMs
    const isLate = endedAt !== undefined && now - endedAt > limitMs
    const awayMs = ending.isPatient() ? times.finishMs : times.settleMs
    const isAway = endedAt !== undefined && awayAt !== undefined && (!canTell || now - awayAt > awayMs)
    if (isLate || isAway) leaving.abort(leftBehind())
    else await Promise.race([changed(), sleep(100)])
  }
}

export function leftBehind(): Error {
  return new Error('this worker process ends')
}
