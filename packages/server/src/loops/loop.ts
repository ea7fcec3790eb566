import { messageOf } from '@openoz/protocol'
import type { Logger } from 'pino'
import { RepeatedFailures } from '../repeated-failures.ts'
import { isDatabaseAway } from '../store/database.ts'

/**
 * A loop that outlives its errors and obeys its signal: runs `work` at least every `everyMs`, and at once when woken. Wakes that come while it
 * works are one more round, not many.
 */
export interface Loop {
  wake(): void
  /** Resolves when the loop has ended. */
  ended: Promise<void>
}

export function startLoop(options: {
  name: string
  everyMs: number
  log: Logger
  signal: AbortSignal
  work: () => Promise<void>
}): Loop {
  const { signal, log } = options
  const failures = new RepeatedFailures()
  let isWoken = false
  let wakeUp: () => void = () => {}

  async function wait(): Promise<void> {
    if (isWoken || signal.aborted) return
    const woken = Promise.withResolvers<void>()
    const timer = setTimeout(woken.resolve, options.everyMs)
    wakeUp = woken.resolve
    signal.addEventListener('abort', woken.resolve as () => void, { once: true })
    await woken.promise
    signal.removeEventListener('abort', woken.resolve as () => void)
    clearTimeout(timer)
  }

  function sayFailure(error: unknown): void {
    const message = messageOf(error)
    const isAway = isDatabaseAway(error)
    if (!failures.isDue(isAway ? 'away' : message)) return
    // Where we were when the database went says nothing about why.
    const fields = { error: isAway ? message : error, loop: options.name }
    log.warn(fields, `${options.name} failed; tried again every ${options.everyMs} ms, said again once a minute`)
  }

  async function run(): Promise<void> {
    while (!signal.aborted) {
      isWoken = false
      try {
        await options.work()
      } catch (error) {
        if (!signal.aborted) sayFailure(error)
      }
      await wait()
    }
  }

  return {
    wake() {
      isWoken = true
      wakeUp()
    },
    ended: run(),
  }
}
