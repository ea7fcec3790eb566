import type { ConnectionTiming } from './connection.ts'

export interface WorkerTiming {
  connection: Partial<ConnectionTiming>
  /** Between the SIGTERM of a stopping worker and the kill. */
  graceMs: number
  /** How long the control plane may be there and not take the events that an agent left, before its end is told without them. */
  deliveryTimeoutMs: number | undefined
  savingTimeoutMs: number | undefined
  /** How long the tries may take in which the connection broke. */
  unsteadyTimeoutMs: number | undefined
  /** How long a stopping worker tries to tell its outcomes, and waits for a connection that is not there. */
  settleMs: number
  /** How long a stopping worker saves and delivers what its tasks left; the next process does the rest. */
  finishMs: number
  sweepEveryMs: number
}
