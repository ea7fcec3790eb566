import { renameSync, rmSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'
import { bootClockMs } from '@openoz/machine'

/**
 * By when this agent must be dead, for whoever watches it from outside: one that is frozen cannot stop its own tools. `<spool>/lease` is one line, a
 * decimal number: milliseconds of the boot clock (`bootClockMs`, the first figure of /proc/uptime). It appears whole or not at all, and is gone once
 * the agent has come to its end by itself. Read by the worker and by the shim that the agent was started with; what they allow for beyond it is theirs.
 */
export interface LeaseFile {
  /** An earlier deadline is written at once, a later one at most once a second. Never throws. */
  put(deadlineMs: number): void
  /** Never throws. */
  remove(): void
}

/** Whoever reads it looks every few seconds. */
const writeEveryMs = 1_000

/** `onProblem` is told once when it cannot be written. */
export function openLeaseFile(spoolDir: string, onProblem: (error: unknown) => void): LeaseFile {
  const file = join(spoolDir, 'lease')
  let written: { deadlineMs: number; at: number } | undefined
  let hasProblem = false
  const attempt = (work: () => void) => {
    try {
      work()
      return true
    } catch (error) {
      if (!hasProblem) onProblem(error)
      hasProblem = true
      return false
    }
  }
  return {
    put(deadline) {
      const deadlineMs = Math.floor(deadline)
      const at = bootClockMs()
      if (written && (deadlineMs === written.deadlineMs || !isDue(written, { deadlineMs, at }))) return
      if (attempt(() => replace(file, `${deadlineMs}\n`))) written = { deadlineMs, at }
      // A healthy agent must not be killed for a deadline that it could not move; without the file it watches itself alone.
      else attempt(() => rmSync(file, { force: true }))
    },
    remove: () => void attempt(() => rmSync(file, { force: true })),
  }
}

/** Of an agent that nobody watches. */
export const noLeaseFile: LeaseFile = { put() {}, remove() {} }

function isDue(written: { deadlineMs: number; at: number }, next: { deadlineMs: number; at: number }): boolean {
  return next.deadlineMs < written.deadlineMs || next.at - written.at >= writeEveryMs
}

function replace(file: string, content: string): void {
  const temporary = `${file}.tmp`
  writeFileSync(temporary, content, { mode: 0o600 })
  renameSync(temporary, file)
}
