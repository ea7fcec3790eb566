import { constants } from 'node:os'
import type { TransferProgress } from '@openoz/server'
import type { Output } from '../output.ts'
import { onStopSignals } from '../stop-signals.ts'

const firstAfterMs = 1_000
const everyMs = 5_000

const verbs = { write: 'reading', verify: 'checking the file', restore: 'restoring' } as const

/** Lines on stderr about what takes longer than a second, terminal or not: somebody reads them in the log of a nightly job. */
export function showTransfer(output: Output): (progress: TransferProgress) => void {
  let nextAt = performance.now() + firstAfterMs
  return ({ step, bytes, totalBytes, table }) => {
    if (performance.now() < nextAt) return
    nextAt = performance.now() + everyMs
    const share = totalBytes
      ? `${Math.floor((bytes / totalBytes) * 100)} % of ${dataSize(totalBytes)}`
      : dataSize(bytes)
    output.note(`${[verbs[step], table].filter(Boolean).join(' ')}: ${share}`)
  }
}

export function dataSize(bytes: number): string {
  if (bytes < 1e6) return `${Math.ceil(bytes / 1e3)} kB`
  return bytes < 1e9 ? `${(bytes / 1e6).toFixed(1)} MB` : `${(bytes / 1e9).toFixed(1)} GB`
}

/** Work that a signal ends without a trace. Answers the exit code that shells know. */
export async function untilStopped(output: Output, work: (signal: AbortSignal) => Promise<number>): Promise<number> {
  using signals = onStopSignals()
  try {
    return await work(signals.first)
  } catch (error) {
    if (signals.signalName === undefined) throw error
    output.note('Stopped; nothing was kept.')
    return 128 + constants.signals[signals.signalName]
  }
}
