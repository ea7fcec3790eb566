import type { Logger } from 'pino'

/** Work that is asked for again and again, and never done twice at the same time: who asks meanwhile gets one more turn. */
export interface Sweeper {
  sweep(): void
  /** When what is under way has ended. Never rejects. */
  settled(): Promise<void>
}

export function createSweeper({
  work,
  log,
  signal,
}: {
  work: () => Promise<void>
  log: Logger
  /** Aborted: no further turn. */
  signal: AbortSignal
}): Sweeper {
  let underWay: Promise<void> | undefined
  let isAskedAgain = false
  const sweep = () => {
    if (signal.aborted) return
    if (underWay !== undefined) {
      isAskedAgain = true
      return
    }
    underWay = work()
      .catch((error: unknown) => log.warn({ error }, 'The sweep failed; tried again later'))
      .finally(() => {
        underWay = undefined
        if (!isAskedAgain) return
        isAskedAgain = false
        sweep()
      })
  }
  return { sweep, settled: () => underWay ?? Promise.resolve() }
}
