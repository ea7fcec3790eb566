import { createDialer, type Dialer } from '@openoz/machine'
import type { Logger } from 'pino'
import manifest from '../package.json' with { type: 'json' }
import type { Backend, BackendLimits } from './backends/backend.ts'
import { Link } from './link.ts'
import { createWorkerMetrics } from './metrics.ts'
import { Worker } from './worker.ts'
import type { RunWorkerOptions } from './worker-options.ts'
import type { WorkerTiming } from './worker-timing.ts'

/**
 * A worker from start to stop: check the backend, take over what earlier processes of it left, connect, take tasks while there are slots, sweep the
 * machine, and on the way out do with what runs as it was told. Nothing here listens on the network.
 *
 * Resolves with the exit code: 0 after a stop that was asked for (with `oneShot`: when the task ended well), 1 when the control plane
 * refused this worker for good, or the one task failed. Rejects with an AppError when it cannot start. What it has not told by then, or has left
 * running, the next process of this worker takes over.
 */
export async function runWorker(options: RunWorkerOptions, timing: Partial<WorkerTiming> = {}): Promise<number> {
  hideKey(options.apiKey)
  const times = { ...defaultTiming, ...timing }
  const { log, signal } = options
  const dialer = createDialer({ serverUrl: options.serverUrl, env: options.env })
  const metrics = await createWorkerMetrics({ ...options, version: manifest.version })
  const link = new Link()
  let backend: Backend | undefined
  let worker: Worker | undefined
  try {
    const { deliveryTimeoutMs, savingTimeoutMs, unsteadyTimeoutMs } = times
    const limits = { deliveryTimeoutMs, savingTimeoutMs, unsteadyTimeoutMs }
    backend = await openBackend({ worker: options, dialer, link, log, ...limits })
    await backend.check(signal)
    worker = new Worker({ options, dialer, backend, link, metrics, times })
    await worker.adopt()
    return await worker.run()
  } finally {
    const { isAllTold } = (await worker?.end()) ?? { isAllTold: true }
    await backend?.leave({ isAllTold })
    await metrics.shutdown()
    await dialer.close()
  }
}

interface BackendParts extends BackendLimits {
  worker: RunWorkerOptions
  dialer: Dialer
  link: Link
  log: Logger
}

/** Loads what the chosen one needs, and of the others nothing. */
async function openBackend(parts: BackendParts): Promise<Backend> {
  const name = parts.worker.backend
  switch (name) {
    case 'direct': {
      const { createDirectBackend } = await import('./backends/direct.ts')
      return createDirectBackend(parts)
    }
    case 'docker': {
      const { createDockerBackend } = await import('./backends/docker.ts')
      return createDockerBackend(parts)
    }
    default:
      return name satisfies never
  }
}

const defaultTiming: WorkerTiming = {
  connection: {},
  graceMs: 5_000,
  deliveryTimeoutMs: undefined,
  savingTimeoutMs: undefined,
  unsteadyTimeoutMs: undefined,
  settleMs: 5_000,
  // With grace and settling within the 180 s that the systemd unit gives.
  finishMs: 150_000,
  sweepEveryMs: 60_000,
}

/** A key that was given as a flag is in our command line, which everybody on the machine can read; this overwrites it. */
function hideKey(apiKey: string): void {
  if (process.argv.some((arg) => arg.includes(apiKey))) process.title = 'oz-agent-worker'
}
