import type { Logger } from 'pino'

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

  async function run(): Promise<void> {
    while (!signal.aborted) {
      isWoken = false
      try {
        await options.work()
      } catch (error) {
        if (!signal.aborted)
          log.warn({ error, loop: options.name }, `${options.name} failed; next try in ${options.everyMs} ms`)
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
