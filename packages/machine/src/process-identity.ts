import { spawnSync } from 'node:child_process'
import { readFileSync } from 'node:fs'
import { AppError } from '@openoz/protocol'

/**
 * A process, known for good. A pid alone is reused by the next program; pid and start time together are not, and the start time names
 * the boot too, so an identity that was written to disk before a reboot matches nothing afterwards. Plain data: store it as JSON.
 */
export interface ProcessIdentity {
  pid: number
  /** Opaque: compare it, do not parse it. */
  startedAt: string
}

/** undefined when there is no such process, when it has ended and waits to be reaped, and always on Windows. */
export function identifyProcess(pid: number, platform = process.platform): ProcessIdentity | undefined {
  if (!Number.isSafeInteger(pid) || pid <= 0) return undefined
  if (platform === 'linux') {
    const stat = readProcessStat(pid)
    return stat && !hasEnded(stat) ? { pid, startedAt: startOf(stat) } : undefined
  }
  if (platform === 'win32') return undefined
  const options = { encoding: 'utf8', env: psEnvironment() } as const
  const line = spawnSync('ps', ['-o', 'state=,lstart=', '-p', String(pid)], options).stdout.trim()
  const [, state, started] = /^(\S+)\s+(.+)$/.exec(line) ?? []
  return state === undefined || started === undefined || state.startsWith('Z') ? undefined : { pid, startedAt: started }
}

/** macOS writes start times in the caller's language and time zone; two callers have to read the same. */
export function psEnvironment(): NodeJS.ProcessEnv {
  return { ...process.env, LC_ALL: 'C', TZ: 'UTC' }
}

/** Whether this very process is still running. */
export function isSameProcess(identity: ProcessIdentity): boolean {
  return identifyProcess(identity.pid)?.startedAt === identity.startedAt
}

/** The fields of `/proc/PID/stat` that we use. */
export interface ProcessStat {
  pid: number
  command: string
  state: string
  ppid: number
  pgid: number
  sid: number
  /** Clock ticks after boot. */
  startTicks: string
}

/** Linux only. undefined when the process is gone. */
export function readProcessStat(pid: number): ProcessStat | undefined {
  try {
    return parseProcessStat(readFileSync(`/proc/${pid}/stat`, 'utf8'))
  } catch {
    return undefined
  }
}

/** The second field is the program's name in parentheses, and may itself hold spaces, parentheses and line breaks: only the last `)` counts. */
export function parseProcessStat(text: string): ProcessStat | undefined {
  const open = text.indexOf('(')
  const close = text.lastIndexOf(')')
  if (open < 0 || close < open) return undefined
  // Fields 3 and later of proc(5): 3 state, 4 ppid, 5 pgrp, 6 session, 22 starttime.
  const fields = text.slice(close + 2).split(' ')
  const [state, ppid, pgid, sid] = fields
  const startTicks = fields[22 - 3]
  if (state === undefined || startTicks === undefined || sid === undefined) return undefined
  return {
    pid: Number(text.slice(0, open)),
    command: text.slice(open + 1, close),
    state,
    ppid: Number(ppid),
    pgid: Number(pgid),
    sid: Number(sid),
    startTicks,
  }
}

/** The identity of a process that has written down its boot's id and its line of `/proc/PID/stat` itself. undefined when that is no such line. */
export function processStartOf(bootIdText: string, statLine: string): ProcessIdentity | undefined {
  const stat = parseProcessStat(statLine)
  return stat && { pid: stat.pid, startedAt: `${bootIdText.trim()}:${stat.startTicks}` }
}

export function hasEnded({ state }: { state: string }): boolean {
  return state === 'Z' || state === 'X' || state === 'x'
}

export function startOf(stat: ProcessStat): string {
  return `${bootId()}:${stat.startTicks}`
}

/** True when the identity was taken before the machine was last started: then its pid, group and session mean nothing any more. */
export function isFromEarlierBoot(identity: ProcessIdentity): boolean {
  return process.platform === 'linux' && !identity.startedAt.startsWith(`${bootId()}:`)
}

let knownBootId: string | undefined

function bootId(): string {
  knownBootId ??= readBootId()
  return knownBootId
}

function readBootId(): string {
  try {
    return readFileSync('/proc/sys/kernel/random/boot_id', 'utf8').trim()
  } catch (cause) {
    throw new AppError('option_invalid', { option: '/proc', problem: 'it is not mounted or cannot be read' }, { cause })
  }
}
