/**
 * One postmaster (the main process of PostgreSQL): found, started, stopped.
 *
 * It is nobody's child in spirit: a session of its own, output to a file, no pipes. So it survives the kill -9 of the server, and
 * the next server finds it by `postmaster.pid` and uses it. That file proves nothing alone (a process id may have been given to
 * another program); a postmaster counts as ours when the process is alive and works on this data folder.
 */
import { spawn } from 'node:child_process'
import {
  closeSync,
  constants,
  existsSync,
  openSync,
  readFileSync,
  readSync,
  renameSync,
  rmSync,
  statSync,
  writeFileSync,
} from 'node:fs'
import { dirname, join } from 'node:path'
import { setTimeout as sleep } from 'node:timers/promises'
import { postgresEnvironment, runAs, spawned } from './cluster.ts'
import type { SystemUser } from './data-dir.ts'
import {
  identifyProcess,
  isAlive,
  isPostmasterOf,
  type ProcessIdentity,
  postgresProcessesOf,
  signalProcess,
} from './process-identity.ts'
import { renderSettings } from './settings.ts'
import { socketName } from './socket-dir.ts'

export interface Postmaster extends ProcessIdentity {
  /** The folder of its socket. */
  socketDir: string
  /** Resolves when the process is gone; never rejects. */
  exited: Promise<void>
}

/** Without its socket (something cleaned it away) a postmaster is alive and of no use. */
export function hasSocket(postmaster: Postmaster): boolean {
  return existsSync(join(postmaster.socketDir, socketName))
}

/** The states that a postmaster writes into its file. */
type PostmasterStatus = 'starting' | 'ready' | 'stopping' | 'standby'

interface PidFile {
  pid: number
  socketDir: string
  status: PostmasterStatus | undefined
}

const maxLogBytes = 10e6
const adoptedPollMs = 250
const readyPollMs = 10

/**
 * How long each kind of stop may take. A fast shutdown writes out at most shared_buffers (32 MB), which may need some seconds on a
 * slow disk; after an immediate one PostgreSQL itself kills what has not followed within 5 s.
 */
const stopSteps = [
  { signal: 'SIGINT', graceMs: 15_000 },
  { signal: 'SIGQUIT', graceMs: 7_000 },
  { signal: 'SIGKILL', graceMs: 5_000 },
] as const

type StopStep = { signal: NodeJS.Signals; graceMs: number }

/** The postmaster of this cluster that is alive, in whatever status. */
export function findPostmaster(clusterDir: string): Postmaster | undefined {
  const file = readPidFile(clusterDir)
  const identity = file && identifyProcess(file.pid)
  if (!identity || !isPostmasterOf(identity.pid, clusterDir)) return undefined
  return { ...identity, socketDir: file.socketDir, exited: pollUntilGone(identity) }
}

export interface PostmasterOptions {
  program: string
  clusterDir: string
  configFile: string
  socketDir: string
  logFile: string
  user: SystemUser
}

/** Starts one. It may still fail to come up: see `waitUntilReady`. No other postmaster of this cluster may be alive. */
export async function spawnPostmaster(options: PostmasterOptions): Promise<Postmaster> {
  const { program, clusterDir, configFile, socketDir, logFile, user } = options
  clearBrokenLocks(clusterDir, socketDir)
  rotateLog(logFile)
  // Readable for whom PostgreSQL runs as; it holds no secret.
  writeFileSync(configFile, renderSettings(socketDir), { mode: 0o644 })
  const log = openSync(logFile, constants.O_WRONLY | constants.O_APPEND | constants.O_CREAT, 0o600)
  try {
    const child = spawn(program, ['-D', clusterDir, '-c', `config_file=${configFile}`], {
      ...runAs(user),
      cwd: clusterDir,
      detached: true,
      stdio: ['ignore', log, log],
      env: { ...postgresEnvironment(), ...ignoreStalePid(clusterDir) },
    })
    const exited = new Promise<void>((resolve) => child.once('exit', () => resolve()))
    await spawned(child, program)
    child.unref()
    const pid = child.pid ?? 0
    return { pid, startedAt: identifyProcess(pid)?.startedAt ?? '', socketDir, exited }
  } finally {
    closeSync(log)
  }
}

/**
 * Resolves to true when it takes connections, to false when it ended or is stopping. Replaying the log after a crash may take
 * long: there is no time limit while the process lives.
 */
export async function waitUntilReady(
  clusterDir: string,
  postmaster: Postmaster,
  signal: AbortSignal,
): Promise<boolean> {
  while (isAlive(postmaster)) {
    const file = readPidFile(clusterDir)
    if (file?.pid === postmaster.pid && file.status === 'ready') return true
    if (file?.pid === postmaster.pid && file.status === 'stopping') return false
    await sleep(readyPollMs, undefined, { signal })
  }
  return false
}

export async function waitUntilGone(postmaster: Postmaster, signal: AbortSignal): Promise<void> {
  while (isAlive(postmaster)) await sleep(readyPollMs, undefined, { signal })
}

/** Fast shutdown, then immediate, then kill. Resolves when the process is gone. `onEscalation` hears each stronger signal. */
export async function stopPostmaster(
  postmaster: Postmaster,
  onEscalation: (signal: NodeJS.Signals) => void,
  steps: readonly StopStep[] = stopSteps,
): Promise<void> {
  for (const [index, { signal, graceMs }] of steps.entries()) {
    if (index > 0) onEscalation(signal)
    signalProcess(postmaster, signal)
    const timer = new AbortController()
    const isGone = await Promise.race([
      postmaster.exited.then(() => true),
      sleep(graceMs, false, { signal: timer.signal }).catch(() => false),
    ])
    timer.abort()
    if (isGone) return
  }
}

/** Where the log ends now: what is written from here on belongs to the next attempt. */
export function logEnd(logFile: string): number {
  return statSync(logFile, { throwIfNoEntry: false })?.size ?? 0
}

/** The log from `offset` on, at most the last 64 kB. */
export function readLog(logFile: string, offset: number): string {
  const end = logEnd(logFile)
  // The file was rotated in between.
  const start = Math.max(end < offset ? 0 : offset, end - 65_536)
  const buffer = Buffer.alloc(Math.max(0, end - start))
  if (buffer.length === 0) return ''
  const descriptor = openSync(logFile, 'r')
  try {
    return buffer.toString('utf8', 0, readSync(descriptor, buffer, 0, buffer.length, start))
  } finally {
    closeSync(descriptor)
  }
}

function readPidFile(clusterDir: string): PidFile | undefined {
  const lines = readLines(join(clusterDir, 'postmaster.pid'))
  const pid = Number.parseInt(lines?.[0] ?? '', 10)
  if (!lines || !(pid > 0)) return undefined
  return { pid, socketDir: lines[4] ?? '', status: lines[7]?.trim() as PostmasterStatus | undefined }
}

function readLines(file: string): string[] | undefined {
  try {
    return readFileSync(file, 'utf8').split('\n')
  } catch {
    return undefined
  }
}

/**
 * PostgreSQL refuses to start while the process named in `postmaster.pid` exists, whatever program it is. Here it is known not to be
 * a postmaster, and this variable (made for pg_ctl's shell) has it disregarded. Deleting the file instead would also delete the key
 * of the shared memory by which PostgreSQL finds left-over children of a killed postmaster: two sets of writers on one cluster.
 */
function ignoreStalePid(clusterDir: string): NodeJS.ProcessEnv {
  const stale = readPidFile(clusterDir)
  return stale ? { PG_GRANDPARENT_PID: String(stale.pid) } : {}
}

/** After a power cut lock files may be empty or garbage, at which PostgreSQL would give up. */
function clearBrokenLocks(clusterDir: string, socketDir: string): void {
  const pidFile = join(clusterDir, 'postmaster.pid')
  const isBroken = statSync(pidFile, { throwIfNoEntry: false }) && !readPidFile(clusterDir)
  if (isBroken && postgresProcessesOf(clusterDir).length === 0) rmSync(pidFile)
  // The socket's folder belongs to this cluster alone, and no postmaster of it is alive.
  for (const name of [socketName, `${socketName}.lock`]) rmSync(join(socketDir, name), { force: true })
}

function rotateLog(logFile: string): void {
  if (logEnd(logFile) > maxLogBytes) renameSync(logFile, join(dirname(logFile), 'postgres.log.1'))
}

/** A process that is not our child sends no event. The timer keeps nobody's event loop alive. */
async function pollUntilGone(identity: ProcessIdentity): Promise<void> {
  while (isAlive(identity)) await sleep(adoptedPollMs, undefined, { ref: false })
}
