/**
 * Why an execution stops before it is done. The first reason counts, except that `abandon` overrides the others:
 * - `cancel`: the user changed their mind. The outcome of a turn at work is CANCELLED.
 * - `break`: what happens cannot be written down any more (`spool_full`, `disk_full`). The outcome is that error.
 * - `terminate`: the machine wants its process back. The workspace is saved until `deadline`; the outcome is the worker's to report.
 * - `interrupt`: whoever started the agent by hand wants it to end. The same, but nobody else reports the outcome: it is CANCELLED.
 * - `abandon`: the execution is not ours any more, or we cannot know. Nothing more is said.
 */
export type StopReason =
  | { kind: 'cancel' }
  | { kind: 'break'; error: unknown }
  | { kind: 'terminate'; deadline: AbortSignal }
  | { kind: 'interrupt'; deadline: AbortSignal }
  | { kind: 'abandon'; why: 'superseded'; detail: string }
  /** `graceMs`: for harness and tools to end in; 0: none, they are killed. */
  | { kind: 'abandon'; why: 'lease_lost'; detail: string; graceMs: number }

export interface StopSwitch {
  stop(reason: StopReason): void
  readonly reason: StopReason | undefined
  /** Aborted by every reason: the harness, tools, setup and rest end. */
  readonly working: AbortSignal
  /** Aborted by `abandon`, and at the deadline of `terminate` or `interrupt`, whatever was first: saving ends. */
  readonly saving: AbortSignal
  /** Aborted by `abandon` alone: reporting ends too. */
  readonly ours: AbortSignal
}

export function createStopSwitch(): StopSwitch {
  const working = new AbortController()
  const saving = new AbortController()
  const ours = new AbortController()
  let reason: StopReason | undefined
  return {
    stop(next) {
      if (reason === undefined || (next.kind === 'abandon' && reason.kind !== 'abandon')) reason = next
      working.abort(new Stopped())
      if (isHurried(next)) {
        next.deadline.addEventListener('abort', () => saving.abort(new Stopped()), { once: true })
      }
      if (next.kind !== 'abandon') return
      saving.abort(new Stopped())
      ours.abort(new Stopped())
    },
    get reason() {
      return reason
    },
    working: working.signal,
    saving: saving.signal,
    ours: ours.signal,
  }
}

/** Whoever stopped it waits for seconds only: supervisors kill 10 s after SIGTERM, continuous integration 10 s after its first signal. */
export function isHurried(
  reason: StopReason | undefined,
): reason is Extract<StopReason, { kind: 'terminate' | 'interrupt' }> {
  return reason?.kind === 'terminate' || reason?.kind === 'interrupt'
}

/** What work rejects with when it was stopped. The reason is the switch's. */
export class Stopped extends Error {
  constructor() {
    super('The execution was stopped.')
    this.name = 'Stopped'
  }
}
