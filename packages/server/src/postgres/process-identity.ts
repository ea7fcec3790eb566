/**
 * Who a process id is. A number alone says nothing after a crash: the kernel hands it out again. A process is known here by its
 * id and the moment it started; a zombie counts as dead, because nothing in it runs any more (in a container whose first process
 * does not reap, zombies stay for ever).
 */
import { execFileSync } from 'node:child_process'
import { readdirSync, readFileSync, readlinkSync } from 'node:fs'
import { basename } from 'node:path'

export interface ProcessIdentity {
  pid: number
  /** When it started, as the system counts: clock ticks since boot on Linux, a date on macOS. Only ever compared. */
  startedAt: string
}

export function identifyProcess(pid: number): ProcessIdentity | undefined {
  const status = process.platform === 'linux' ? linuxStatus(pid) : psStatus(pid)
  return status && !/^[ZX]/.test(status.state) ? { pid, startedAt: status.startedAt } : undefined
}

export function isAlive(identity: ProcessIdentity): boolean {
  return identifyProcess(identity.pid)?.startedAt === identity.startedAt
}

/** Sends the signal unless the process has ended meanwhile. */
export function signalProcess(identity: ProcessIdentity, signal: NodeJS.Signals): void {
  if (!isAlive(identity)) return
  try {
    process.kill(identity.pid, signal)
  } catch (error) {
    if ((error as NodeJS.ErrnoException).code !== 'ESRCH') throw error
  }
}

/** Whether the process is a postmaster (not one of its children) whose data folder is this one. */
export function isPostmasterOf(pid: number, clusterDir: string): boolean {
  const args = commandLine(pid)
  // Children of a postmaster replace their arguments by a title such as `postgres: checkpointer`.
  if (basename(args[0] ?? '') !== 'postgres') return false
  return (
    args.some((arg, index) => arg === '-D' && args[index + 1] === clusterDir) || workingDirectory(pid) === clusterDir
  )
}

/** Every live process of a PostgreSQL on this data folder: postmasters and their children, which all work inside it. */
export function postgresProcessesOf(clusterDir: string): number[] {
  if (process.platform === 'linux') {
    return readdirSync('/proc')
      .filter((name) => /^\d+$/.test(name))
      .map(Number)
      .filter((pid) => workingDirectory(pid) === clusterDir && identifyProcess(pid))
  }
  const lines = ps(['-axww', '-o', 'pid=,command='])?.split('\n') ?? []
  return lines.filter((line) => line.includes(`-D ${clusterDir}`)).map((line) => Number.parseInt(line, 10))
}

function linuxStatus(pid: number): { state: string; startedAt: string } | undefined {
  try {
    const stat = readFileSync(`/proc/${pid}/stat`, 'utf8')
    // The second field is the program's name in parentheses and may hold anything, parentheses too.
    const fields = stat.slice(stat.lastIndexOf(')') + 2).split(' ')
    return { state: fields[0] ?? 'X', startedAt: fields[19] ?? '' }
  } catch {
    return undefined
  }
}

function psStatus(pid: number): { state: string; startedAt: string } | undefined {
  const line = ps(['-o', 'stat=,lstart=', '-p', String(pid)])?.trim()
  if (!line) return undefined
  const [state = 'X', ...startedAt] = line.split(/\s+/)
  return { state, startedAt: startedAt.join(' ') }
}

function commandLine(pid: number): string[] {
  try {
    if (process.platform === 'linux') return readFileSync(`/proc/${pid}/cmdline`, 'utf8').split('\0')
    // ps joins the arguments by spaces; the option and what follows it are enough.
    const [, program = '', folder = ''] =
      /^(\S+).* -D (.*?)(?: -c .*)?$/.exec(ps(['-ww', '-o', 'command=', '-p', String(pid)])?.trim() ?? '') ?? []
    return [program, '-D', folder]
  } catch {
    return []
  }
}

function workingDirectory(pid: number): string | undefined {
  try {
    return readlinkSync(`/proc/${pid}/cwd`)
  } catch {
    return undefined
  }
}

function ps(args: string[]): string | undefined {
  try {
    return execFileSync('ps', args, {
      encoding: 'utf8',
      env: { PATH: '/usr/bin:/bin', LC_ALL: 'C' },
      stdio: ['ignore', 'pipe', 'ignore'],
    })
  } catch {
    return undefined
  }
}
