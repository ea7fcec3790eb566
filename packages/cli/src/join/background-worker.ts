import { spawn } from 'node:child_process'
import { once } from 'node:events'
import { mkdir, open, readFile, rm, stat } from 'node:fs/promises'
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

/** `worker.log` and `worker.pid` are in the worker's state folder. */
interface BackgroundPlace {
  stateDir: string
}

const connectMs = 10_000
/** What a stopping worker may take to save the work of its agents, and some. */
const stopMs = 190_000
const pollMs = 50

export const backgroundLog = ({ stateDir }: BackgroundPlace) => join(stateDir, 'worker.log')
const pidFile = ({ stateDir }: BackgroundPlace) => join(stateDir, 'worker.pid')

export async function saveBackgroundWorker(file: string, worker: BackgroundWorker): Promise<void> {
  await writePrivateFile(file, `${JSON.stringify(worker, null, 2)}\n`)
}

/**
 * Resolves with its pid once it is connected. Rejects with `worker_not_running` when it ends before, or does not connect within 10 s; in the second
 * case it goes on trying.
 */
export async function startInBackground(file: string, place: BackgroundPlace): Promise<number> {
  const { command, environment } = JSON.parse(await readPrivateFile(file)) as BackgroundWorker
  const log = backgroundLog(place)
  await mkdir(dirname(log), { recursive: true, mode: 0o755 })
  await using output = await open(log, 'a', 0o600)
  const from = (await output.stat()).size
  const [program = '', ...args] = command
  const child = spawn(program, args, {
    cwd: '/',
    detached: true,
    stdio: ['ignore', output.fd, output.fd],
    env: environment,
  })
  const ended = once(child, 'exit').then(
    () => true,
    () => true,
  )
  child.unref()
  const identity = child.pid === undefined ? undefined : identifyProcess(child.pid)
  if (identity) await writePrivateFile(pidFile(place), `${identity.pid}\n${identity.startedAt}\n`)
  const deadline = performance.now() + connectMs
  while (performance.now() < deadline) {
    const hasEnded = await Promise.race([ended, sleep(pollMs).then(() => false)])
    const said = await textFrom(log, from)
    if (said.includes('Listening for tasks')) return child.pid ?? 0
    if (hasEnded) throw new AppError('worker_not_running', { problem: `it ended at once: ${lastWords(said)}`, log })
  }
  throw new AppError('worker_not_running', { problem: 'it is not connected yet; it goes on trying', log })
}

/** Asks it to end, or with SIGUSR2 to leave its agents to the next one, and waits. False when none ran. Rejects with `worker_still_stopping`. */
export async function stopInBackground(place: BackgroundPlace, signal: 'SIGTERM' | 'SIGUSR2'): Promise<boolean> {
  const identity = await readIdentity(place)
  if (!identity || !isSameProcess(identity)) return false
  process.kill(identity.pid, signal)
  const deadline = performance.now() + stopMs
  while (isSameProcess(identity)) {
    if (performance.now() > deadline) {
      throw new AppError('worker_still_stopping', { pid: identity.pid, seconds: stopMs / 1000 })
    }
    await sleep(pollMs)
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

async function textFrom(file: string, from: number): Promise<string> {
  const { size } = await stat(file)
  await using handle = await open(file, 'r')
  const { buffer, bytesRead } = await handle.read(Buffer.alloc(size - from), 0, size - from, from)
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
