import { sleep } from '@openoz/machine'
import type { Logger } from 'pino'
import type { StopSignals } from '../stop-signals.ts'

/**
 * Waits until a long-running program shall end, and ends it: politely at the first signal, at once at the second. Resolves with the exit
 * code: 0 after a stop that was asked for, 1 when it ended by itself.
 */
export async function stopInTurn(program: {
  signals: StopSignals
  /** Settles when the program has ended, however that came. */
  ended: Promise<void>
  stop: () => Promise<void>
  /** For the second signal: without regard for what runs. */
  stopNow?: () => Promise<void>
  log: Logger
}): Promise<number> {
  const { signals, ended, stop, stopNow, log } = program
  const endedByItself = ended.then(
    () => 'ended' as const,
    (error: unknown) => {
      log.error({ err: error }, 'the control plane ended')
      return 'ended' as const
    },
  )
  if ((await Promise.race([endedByItself, aborted(signals.first)])) === 'ended') {
    await stop()
    return 1
  }
  log.info('stopping')
  const outcome = await Promise.race([stop().then(() => 'stopped' as const), aborted(signals.second)])
  if (outcome === 'stopped') return 0
  log.warn('stopping at once')
  await Promise.race([stopNow?.(), sleep(atOnceMs)])
  // Whatever still runs in this process ends with it; that is what a second signal asks for.
  process.exit(130)
}

/** Time for the database to end: it would outlive this process. */
const atOnceMs = 3_000

function aborted(signal: AbortSignal): Promise<'aborted'> {
  return new Promise((resolve) => {
    if (signal.aborted) resolve('aborted')
    else signal.addEventListener('abort', () => resolve('aborted'), { once: true })
  })
}
