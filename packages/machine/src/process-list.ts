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
 * All processes at one moment, with what else was asked about them by then. Reading all of /proc takes milliseconds, in which nothing else of this
 * process happens; so whoever asks meanwhile gets the same one (`takeSnapshot`), and what one asker has read serves the others.
 */
export interface ProcessSnapshot {
  readonly all: readonly ProcessInfo[]
  /**
   * The `NAME=value` entries that the process was started with. Empty when that cannot be read: processes of other users (unless we are root), and
   * set-uid programs. A program may also have written over its own copy; those are found by their parents and groups.
   */
  environment(pid: number): ReadonlySet<string>
  /** Linux only: whether the process runs as this user, by its real or its effective id. */
  runsAs(pid: number, uid: number): boolean
}

let next: Promise<ProcessSnapshot> | undefined

/** Never one that began before the call: 200 tasks that are ended together share each look, and nobody sees the past. */
export function takeSnapshot(): Promise<ProcessSnapshot> {
  next ??= new Promise((resolve, reject) => {
    setImmediate(() => {
      next = undefined
      listProcesses().then((all) => resolve(createSnapshot(all)), reject)
    })
  })
  return next
}

function createSnapshot(all: ProcessInfo[]): ProcessSnapshot {
  const environments = new Map<number, ReadonlySet<string>>()
  const users = new Map<number, ReadonlySet<number>>()
  return {
    all,
    environment: (pid) => lookUp(environments, pid, readEnvironment),
    runsAs: (pid, uid) => lookUp(users, pid, readUsers).has(uid),
  }
}

function lookUp<T>(known: Map<number, T>, pid: number, read: (pid: number) => T): T {
  const value = known.get(pid) ?? read(pid)
  known.set(pid, value)
  return value
}

function readEnvironment(pid: number): ReadonlySet<string> {
  if (process.platform !== 'linux') return new Set()
  try {
    return new Set(readFileSync(`/proc/${pid}/environ`, 'utf8').split('\0'))
  } catch {
    return new Set()
  }
}

function readUsers(pid: number): ReadonlySet<number> {
  try {
    const [, real, effective] = /^Uid:\s+(\d+)\s+(\d+)/m.exec(readFileSync(`/proc/${pid}/status`, 'utf8')) ?? []
    return new Set([Number(real), Number(effective)])
  } catch {
    return new Set()
  }
}

/** Processes that were started with a variable of this name, and its value. What cannot be read is not found; see `ProcessSnapshot`. */
export async function findMarked(name: string): Promise<{ process: ProcessInfo; value: string }[]> {
  const { all, environment } = await takeSnapshot()
  return all.flatMap((process) => {
    const entry = [...environment(process.pid)].find((text) => text.startsWith(`${name}=`))
    return entry === undefined ? [] : [{ process, value: entry.slice(name.length + 1) }]
  })
}
