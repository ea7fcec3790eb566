import { pino } from 'pino'
import { runWorker } from '../run-worker.ts'
import { readWorkerConfig } from '../worker-config.ts'
import type { WorkerFlagValues } from '../worker-flags.ts'

/** A worker as a process of its own, for tests that need another user or another environment: flags as JSON in the first argument. */
const flags = JSON.parse(process.argv[2] ?? '{}') as WorkerFlagValues
const stop = new AbortController()
const stopNow = new AbortController()
const leave = new AbortController()
process.on('SIGTERM', () => (stop.signal.aborted ? stopNow : stop).abort())
process.once('SIGUSR2', () => leave.abort())
process.exitCode = await runWorker({
  ...readWorkerConfig({ flags, env: process.env }),
  log: pino(pino.destination(2)),
  signal: stop.signal,
  stopNow: stopNow.signal,
  leave: leave.signal,
})
