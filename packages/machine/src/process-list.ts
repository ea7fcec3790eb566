import { execFile } from 'node:child_process'
import { readdirSync, readFileSync } from 'node:fs'
import { promisify } from 'node:util'
import { hasEnded, type ProcessIdentity, psEnvironment, readProcessStat, startOf } from './process-identity.ts'

const run = promisify(execFile)

/** One running process. Ended ones that wait to be reaped are not listed. */
export interface ProcessInfo extends ProcessIdentity {
  ppid: number
  pgid: number
  /** Session; 0 where the platform does not tell (macOS). */
  sid: number
  /** The program's name as the kernel keeps it, at most 15 characters on Linux. */
  command: string
}

/** All processes that can be seen. Linux reads /proc, macOS asks `ps`; empty on Windows. */
export async function listProcesses(platform = process.platform): Promise<ProcessInfo[]> {
  if (platform === 'linux') return listFromProc()
  if (platform === 'win32') return []
  const options = { maxBuffer: 32 * 1024 * 1024, env: psEnvironment() }
  const { stdout } = await run('ps', ['-Ao', 'pid=,ppid=,pgid=,state=,lstart=,ucomm='], options)
  return parsePs(stdout)
}

/** Synchronous on purpose: files of /proc are memory, and a snapshot should be taken at one moment. */
function listFromProc(): ProcessInfo[] {
  const found: ProcessInfo[] = []
  for (const name of readdirSync('/proc')) {
    if (!/^\d+$/.test(name)) continue
    const stat = readProcessStat(Number(name))
    if (!stat || hasEnded(stat)) continue
    const { pid, ppid, pgid, sid, command } = stat
    found.push({ pid, ppid, pgid, sid, command, startedAt: startOf(stat) })
  }
  return found
}

/** `lstart` is five words: `Mon Nov 23 05:53:01 2026`. */
export function parsePs(text: string): ProcessInfo[] {
  const found: ProcessInfo[] = []
  for (const line of text.split('\n')) {
    const match = /^\s*(\d+)\s+(\d+)\s+(\d+)\s+(\S+)\s+(\S+\s+\S+\s+\d+\s+[\d:]+\s+\d+)\s*(.*)$/.exec(line)
    if (!match) continue
    const [, pid, ppid, pgid, state = '', startedAt = '', command = ''] = match
    if (state.startsWith('Z')) continue
    found.push({ pid: Number(pid), ppid: Number(ppid), pgid: Number(pgid), sid: 0, startedAt, command })
  }
  return found
}

/**
 * Whether the process was started with this `NAME=value`. False when that cannot be read: processes of other users (unless we are
 * root), and set-uid programs. A program may also have written over its own copy; those are found by their parents and groups.
 */
export function hasMarker(pid: number, marker: string): boolean {
  if (process.platform !== 'linux') return false
  try {
    const environ = readFileSync(`/proc/${pid}/environ`)
    const entry = Buffer.from(marker)
    for (let at = environ.indexOf(entry); at >= 0; at = environ.indexOf(entry, at + 1)) {
      const end = at + entry.length
      if ((at === 0 || environ[at - 1] === 0) && (end === environ.length || environ[end] === 0)) return true
    }
  } catch {
    return false
  }
  return false
}

/** Linux only: whether the process runs as this user, by its real or its effective id. */
export function runsAs(pid: number, uid: number): boolean {
  try {
    const [, real, effective] = /^Uid:\s+(\d+)\s+(\d+)/m.exec(readFileSync(`/proc/${pid}/status`, 'utf8')) ?? []
    return Number(real) === uid || Number(effective) === uid
  } catch {
    return false
  }
}
