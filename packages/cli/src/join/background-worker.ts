import { type ChildProcess, spawn } from 'node:child_process'
import { mkdir, open, readFile, rename, rm, stat } from 'node:fs/promises'
import { dirname, join } from 'node:path'
import {
  identifyProcess,
  isSameProcess,
  type ProcessIdentity,
  readPrivateFile,
  sleep,
  writePrivateFile,
} from '@openoz/machine'
import { AppError } from '@openoz/protocol'

/**
 * A worker that nobody keeps running, for machines without systemd: a process in a session of its own, with its log in a file. Who ends it, or ends the
 * machine, has to start it again; its agents outlive its crash, and the next one takes them over.
 */
export interface BackgroundWorker {
  /** With all arguments; nothing secret. */
  command: string[]
  /** Everything that it is started with, the key among it. */
  environment: Record<string, string>
}

/** `worker.log`, the one before it, and `worker.pid` are in the worker's state folder. */
interface BackgroundPlace {
  stateDir: string
}

export interface StartedWorker {
  pid: number
  /** Why it is not connected; undefined when it is. */
  problem?: AppError
}

/** Said to a worker by who started it: the end of the channel between them is not to be its own. */
export const stayMessage = 'stay'

const connectMs = 10_000
/** What a stopping worker may take to save the work of its agents, and some. */
const stopMs = 190_000
const pollMs = 50
/** At its next start the log becomes that of before, and a new one begins. */
const longLogBytes = 20 * 1024 * 1024

export const backgroundFiles = ['worker.log', 'worker.log.1', 'worker.pid']
export const backgroundLog = ({ stateDir }: BackgroundPlace) => join(stateDir, 'worker.log')
const pidFile = ({ stateDir }: BackgroundPlace) => join(stateDir, 'worker.pid')

export async function saveBackgroundWorker(file: string, worker: BackgroundWorker): Promise<void> {
  await writePrivateFile(file, `${JSON.stringify(worker, null, 2)}\n`)
}

/**
 * Resolves once it is connected, has ended, or has not connected within 10 s; in the last case it goes on trying. It says by its channel to us that it is
 * connected, and is told that the end of that channel, which is ours, is not to be its own.
 */
export async function startInBackground(file: string, place: BackgroundPlace): Promise<StartedWorker> {
  const { command, environment } = JSON.parse(await readPrivateFile(file)) as BackgroundWorker
  const log = backgroundLog(place)
  await mkdir(dirname(log), { recursive: true, mode: 0o755 })
  if ((await sizeOf(log)) > longLogBytes) await rename(log, `${log}.1`)
  await using output = await open(log, 'a', 0o600)
  const from = (await output.stat()).size
  const [program = '', ...args] = command
  const child = spawn(program, args, {
    cwd: '/',
    detached: true,
    stdio: ['ignore', output.fd, output.fd, 'ipc'],
    env: environment,
  })
  const outcome = outcomeOf(child)
  child.send(stayMessage, () => {})
  const identity = child.pid === undefined ? undefined : identifyProcess(child.pid)
  if (identity) await writePrivateFile(pidFile(place), `${identity.pid}\n${identity.startedAt}\n`)
  const how = await outcome
  if (child.connected) child.disconnect()
  child.unref()
  const pid = child.pid ?? 0
  if (how === 'connected') return { pid }
  const problem =
    how === 'ended'
      ? `it ended at once: ${lastWords(await textFrom(log, from))}`
      : 'it is not connected yet; it goes on trying'
  return { pid, problem: new AppError('worker_not_running', { problem, log }) }
}

async function outcomeOf(child: ChildProcess): Promise<'connected' | 'ended' | 'late'> {
  const { promise, resolve } = Promise.withResolvers<'connected' | 'ended' | 'late'>()
  const timer = setTimeout(() => resolve('late'), connectMs)
  child.on('message', (message: { type?: string }) => {
    if (message.type === 'connected') resolve('connected')
  })
  child.once('exit', () => resolve('ended'))
  child.once('error', () => resolve('ended'))
  const outcome = await promise
  clearTimeout(timer)
  return outcome
}

/**
 * Asks it to end, or with SIGUSR2 to leave its agents to the next one, and waits. False when none ran. Rejects with `worker_still_stopping`, and when
 * `signal` is aborted; then it ends all the same.
 */
export async function stopInBackground(
  place: BackgroundPlace,
  how: 'SIGTERM' | 'SIGUSR2',
  signal?: AbortSignal,
): Promise<boolean> {
  const identity = await readIdentity(place)
  if (!identity || !isSameProcess(identity)) return false
  process.kill(identity.pid, how)
  const deadline = performance.now() + stopMs
  while (isSameProcess(identity)) {
    if (performance.now() > deadline) {
      throw new AppError('worker_still_stopping', { pid: identity.pid, seconds: stopMs / 1000 })
    }
    await sleep(pollMs)
    signal?.throwIfAborted()
  }
  await rm(pidFile(place), { force: true })
  return true
}

/** Its pid; undefined when none runs. */
export async function findInBackground(place: BackgroundPlace): Promise<number | undefined> {
  const identity = await readIdentity(place)
  return identity && isSameProcess(identity) ? identity.pid : undefined
}

async function readIdentity(place: BackgroundPlace): Promise<ProcessIdentity | undefined> {
  const [pid, startedAt] = (await readFile(pidFile(place), 'utf8').catch(() => '')).split('\n')
  return pid && startedAt ? { pid: Number(pid), startedAt } : undefined
}

async function sizeOf(file: string): Promise<number> {
  return stat(file).then(
    ({ size }) => size,
    () => 0,
  )
}

/** Somebody may have emptied it meanwhile. */
async function textFrom(file: string, from: number): Promise<string> {
  const length = Math.max(0, (await sizeOf(file)) - from)
  await using handle = await open(file, 'r')
  const { buffer, bytesRead } = await handle.read(Buffer.alloc(length), 0, length, from)
  return buffer.toString('utf8', 0, bytesRead)
}

/** Of a log of JSON lines, or of an error for people. */
function lastWords(text: string): string {
  const line = text.trimEnd().split('\n').at(-1) ?? ''
  try {
    const { msg, message } = JSON.parse(line) as { msg?: string; message?: string }
    return msg ?? message ?? line
  } catch {
    return line
  }
}
