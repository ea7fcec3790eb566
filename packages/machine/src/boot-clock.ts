import { uptime } from 'node:os'

/**
 * Milliseconds since the machine started, for deadlines that two machines must agree about ("stop when no renewal was acknowledged
 * for 12 minutes"). It never jumps when the wall clock is set, and it goes on while the machine is suspended, which
 * `process.hrtime` and `performance.now` do not on Linux: an agent that wakes from an hour of sleep has lost its lease. On Linux the
 * resolution is 10 ms.
 */
export function bootClockMs(): number {
  return uptime() * 1000
}
