import { bootClockMs } from '@openoz/machine'

/** What an agent at rest is called for. `turn`: a message waits. `end`: it shall leave. */
export type WakeCall = 'turn' | 'end'

/** Calls to an agent at rest. One that comes while a question is on its way to the control plane must still be there after the answer. */
export interface WakeCalls {
  call(what: WakeCall): void
  /** Forgets what came so far: to be called before the control plane is asked, which knows better. */
  clear(): void
  /** The next call, or one that has come since `clear`; undefined at `until` (on `bootClockMs`) or once the signal is aborted. Never rejects. */
  next(until: number, signal: AbortSignal): Promise<WakeCall | undefined>
}

/** Timers take no more than that; an idle window may be longer. */
const longestTimerMs = 2 ** 31 - 1

export function createWakeCalls(): WakeCalls {
  let isTurn = false
  let isEnd = false
  let wake = () => {}
  const called = (): WakeCall | undefined => (isEnd ? 'end' : isTurn ? 'turn' : undefined)

  return {
    call(what) {
      if (what === 'end') isEnd = true
      else isTurn = true
      wake()
    },
    clear() {
      isTurn = false
      isEnd = false
    },
    async next(until, signal) {
      for (;;) {
        const leftMs = until - bootClockMs()
        if (called() || signal.aborted || leftMs <= 0) return signal.aborted ? undefined : called()
        const woken = Promise.withResolvers<void>()
        wake = woken.resolve
        const timer = setTimeout(wake, Math.min(leftMs, longestTimerMs))
        signal.addEventListener('abort', wake, { once: true })
        await woken.promise
        clearTimeout(timer)
        signal.removeEventListener('abort', wake)
        wake = () => {}
      }
    },
  }
}
