import { readFileSync } from 'node:fs'

/**
 * How many processes the kernel of this machine has ended since its start because memory ran out, its own or that of a control group.
 * Somebody's SIGKILL looks the same as the kernel's; only a count that has risen meanwhile tells them apart. undefined where there is no
 * such count (it is Linux's).
 */
export function countOomKills(): number | undefined {
  try {
    const [, count] = /^oom_kill (\d+)$/m.exec(readFileSync('/proc/vmstat', 'latin1')) ?? []
    return count === undefined ? undefined : Number(count)
  } catch {
    return undefined
  }
}

/** Whether one was ended since `before` was counted. */
export function hasOomKillSince(before: number | undefined): boolean {
  const now = countOomKills()
  return before !== undefined && now !== undefined && now > before
}
