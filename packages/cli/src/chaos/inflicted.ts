import { type ProcessIdentity, sleep } from '@openoz/machine'
import { signalOwn } from './own-processes.ts'

export interface Inflicted {
  /** undefined: there was nobody. */
  victim: string | undefined
  /** Resolves when it is over. */
  lasts?: Promise<void>
  /** How long that takes, where it is planned. */
  forMs?: number
}

export function freeze(
  { forMs }: { forMs: number },
  { victim, processes, signal }: { victim: string; processes: readonly ProcessIdentity[]; signal: AbortSignal },
): Inflicted {
  for (const own of processes) signalOwn(own, 'SIGSTOP')
  const thaw = () => {
    for (const own of processes) signalOwn(own, 'SIGCONT')
  }
  return { victim, forMs, lasts: sleep(forMs, signal).then(thaw, thaw) }
}
