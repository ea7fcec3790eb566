import { bootClockMs } from '@openoz/machine'
import type { AgentLimits } from '@openoz/protocol'
import type { LeaseFile } from './lease-file.ts'

/**
 * How long an execution may go on without a word of the control plane. Counted from *sending* the last batch that was acknowledged, on the boot clock:
 * so it is over here before it is over there, and time that the machine slept through counts.
 *
 *   working   a turn has no outcome yet: `stop_after_ms`, after which harness and tools are asked to end; the execution is lost at `lost_after_ms`
 *   settled   the outcome is said, the agent rests or leaves: `settled_stop_after_ms`, no earlier than that long after the outcome, since a follow-up
 *             may begin elsewhere soon after
 *
 * Half of the time between stopping and being lost is for ending; after it (`deadline`, which the lease file holds) another execution may be at work,
 * and everything is killed at once. A timer looks every second, and so does whoever is about to start something: of a machine that wakes nobody knows
 * what comes first.
 */
export interface Lease {
  /** Ends the execution if its lease is over, unless the control plane has renewed it after all. */
  check(): void
  /** A turn is at work. */
  begin(): void
  /** Before the outcome is said: only the rest or the end is left. */
  settle(): void
  /** Until the deadline; negative after it. */
  leftMs(): number
  end(): void
}

export interface LeaseLoss {
  silentMs: number
  /** For harness and tools to end in. 0: whoever comes next may be at work by now. */
  graceMs: number
}

/** A control plane of an earlier version does not say all of them. */
type LeaseLimits = Pick<AgentLimits, 'stop_after_ms'> &
  Partial<Pick<AgentLimits, 'lost_after_ms' | 'settled_stop_after_ms'>>

interface Times {
  stopMs: number
  deadMs: number
}

export function leaseTimes(limits: LeaseLimits): { working: Times; settled: Times } {
  const { stop_after_ms: stopMs } = limits
  // What the server makes sure of, and its constant before there was a limit.
  const { lost_after_ms: lostMs = stopMs + Math.max(2_000, stopMs / 12) } = limits
  const { settled_stop_after_ms: settledMs = Math.min(45_000, stopMs) } = limits
  return {
    working: { stopMs, deadMs: (stopMs + lostMs) / 2 },
    // The server waits for a third of it more.
    settled: { stopMs: settledMs, deadMs: settledMs * (1 + 1 / 6) },
  }
}

/** Between looks: often enough for leases of a few seconds, and for the second that others rely on. */
const lookEveryMs = 1_000
const longestGraceMs = 10_000

/** Looks for the first time when `check` is called, or with its timer. */
export function holdLease(options: {
  limits: LeaseLimits
  file: LeaseFile
  /** On the boot clock. */
  lastAcknowledgedSendAt: () => number
  /** Called once. Not for a run of a person's own machine, which is not tried elsewhere: it goes on. */
  onLost: ((loss: LeaseLoss) => void) | undefined
}): Lease {
  const { limits, file, lastAcknowledgedSendAt, onLost } = options
  const times = leaseTimes(limits)
  let settledAt: number | undefined
  /** Fixed once it is lost: an acknowledgement that comes later changes nothing any more. */
  let lostDeadline: number | undefined

  /** The one of the two that ends first. */
  function current(): { silentMs: number; stopMs: number; leftMs: number; deadline: number } {
    const now = bootClockMs()
    const from = lastAcknowledgedSendAt()
    const deadline = from + times.working.deadMs
    const working = { silentMs: now - from, stopMs: times.working.stopMs, leftMs: deadline - now, deadline }
    if (settledAt === undefined) return working
    const settledFrom = Math.max(from, settledAt)
    const settledDeadline = settledFrom + times.settled.deadMs
    if (settledDeadline >= deadline) return working
    const { stopMs } = times.settled
    return { silentMs: now - settledFrom, stopMs, leftMs: settledDeadline - now, deadline: settledDeadline }
  }

  function check(): void {
    if (lostDeadline !== undefined || !onLost) return
    const { silentMs, stopMs, leftMs, deadline } = current()
    file.put(deadline)
    if (silentMs <= stopMs) return
    lostDeadline = deadline
    onLost({ silentMs, graceMs: Math.max(0, Math.min(longestGraceMs, leftMs / 3)) })
  }

  const timer = setInterval(check, Math.min(lookEveryMs, times.working.stopMs / 4, times.settled.stopMs / 4))
  return {
    check,
    begin() {
      settledAt = undefined
      check()
    },
    settle() {
      settledAt ??= bootClockMs()
      check()
    },
    leftMs: () => (lostDeadline ?? current().deadline) - bootClockMs(),
    end() {
      clearInterval(timer)
      file.remove()
    },
  }
}
