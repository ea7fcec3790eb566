import { readFileSync } from 'node:fs'

/**
 * How many processes the kernel has ended because memory ran out: of the control group that this process runs in where that is one of its own, as in a
 * container, where others' must not be told as ours; else of the whole machine since its start. Somebody's SIGKILL looks the same as the kernel's; only
 * a count that has risen meanwhile tells them apart. undefined where there is no such count (it is Linux's).
 */
export function countOomKills(read: (file: string) => string | undefined = readText): number | undefined {
  for (const file of [...ownGroupFiles(read), '/proc/vmstat']) {
    const [, count] = /^oom_kill (\d+)$/m.exec(read(file) ?? '') ?? []
    if (count !== undefined) return Number(count)
  }
  return undefined
}

/** Whether one was ended since `before` was counted. */
export function hasOomKillSince(before: number | undefined): boolean {
  const now = countOomKills()
  return before !== undefined && now !== undefined && now > before
}

/**
 * Of version 2 the file counts groups below it as well; the machine's own root has none. Of version 1 it does not, so it serves only where the
 * file system of groups shows nothing but a part, as in a container: below that there are no others.
 */
function ownGroupFiles(read: (file: string) => string | undefined): string[] {
  const [, path] = /^0::(\/.*)$/m.exec(read('/proc/self/cgroup') ?? '') ?? []
  const second = path === undefined ? [] : [`/sys/fs/cgroup${path === '/' ? '' : path}/memory.events`]
  const [, root] = /^\d+ \d+ \S+ (\S+) \/sys\/fs\/cgroup\/memory /m.exec(read('/proc/self/mountinfo') ?? '') ?? []
  return root === undefined || root === '/' ? second : [...second, '/sys/fs/cgroup/memory/memory.oom_control']
}

function readText(file: string): string | undefined {
  try {
    return readFileSync(file, 'latin1')
  } catch {
    return undefined
  }
}
