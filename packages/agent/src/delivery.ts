import type { LiveExecution } from './live-execution.ts'
import { isHurried } from './stop-switch.ts'

/** For the last events after SIGTERM. */
const terminationPatienceMs = 2_000
/** Whoever looks at an agent that has nothing more to do shall know why it stays. */
const tellEveryMs = 10_000

/**
 * Waits until everything that was said is with the control plane; false when it will not be. While the lease may live there is hope; after
 * SIGTERM there are seconds. Never rejects.
 */
export async function deliver({ sender, stop, hello, log }: LiveExecution): Promise<boolean> {
  if (stop.reason?.kind === 'abandon') return false
  const patience = new AbortController()
  const giveUp = () => patience.abort()
  let timer = setTimeout(giveUp, hello.limits.stop_after_ms)
  const telling = setInterval(
    () => log.warn('waiting for the control plane to take what the run has said'),
    tellEveryMs,
  )
  const onStop = () => {
    if (!isHurried(stop.reason)) return
    clearTimeout(timer)
    timer = setTimeout(giveUp, terminationPatienceMs)
  }
  if (stop.working.aborted) onStop()
  else stop.working.addEventListener('abort', onStop, { once: true })
  try {
    return await sender.flushed(AbortSignal.any([patience.signal, stop.ours]))
  } catch {
    return false
  } finally {
    clearTimeout(timer)
    clearInterval(telling)
    stop.working.removeEventListener('abort', onStop)
  }
}
