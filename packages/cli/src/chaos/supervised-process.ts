import { type ChildProcess, spawn } from 'node:child_process'
import { once } from 'node:events'
import { closeSync, openSync } from 'node:fs'
import { createInterface } from 'node:readline'
import { identifyProcess, type ProcessIdentity, sleep } from '@openoz/machine'
import { signalOwn } from './own-processes.ts'
import type { Random } from './random.ts'

/**
 * A program of the round that is started again, a little later, whenever it has ended: as a service would. It gets signals from nobody but the
 * round, so an end that no signal of ours explains is written down.
 */
export interface SupervisedProcess {
  readonly name: string
  /** undefined while it is away. */
  readonly identity: ProcessIdentity | undefined
  /** Ends that nobody asked for. */
  readonly crashes: readonly Crash[]
  /** False when it is away. */
  signal(signal: NodeJS.Signals): boolean
  /** Asks it to end, and starts it again when it has. */
  restart(graceMs: number): Promise<void>
  /** SIGTERM, and SIGKILL after the grace. Whether it ended by itself. */
  stop(graceMs: number): Promise<boolean>
}

export interface Crash {
  name: string
  code: number | null
  signal: NodeJS.Signals | null
}

export interface ProgramOptions {
  name: string
  args: string[]
  env: NodeJS.ProcessEnv
  /** Gets what it says on stderr. */
  logFile: string
  random: Random
  /** Aborted: it is killed, and not started again. */
  signal: AbortSignal
  /** Each line on stdout. */
  onLine?: (line: string) => void
  onEnd?: () => void
}

export function startSupervised(options: ProgramOptions): SupervisedProcess {
  const { name, random, onEnd } = options
  const crashes: Crash[] = []
  const stopping = new AbortController()
  let child: ChildProcess | undefined
  let identity: ProcessIdentity | undefined
  let isExpected = false

  async function supervise(): Promise<void> {
    while (!stopping.signal.aborted) {
      isExpected = false
      child = spawnProgram(options)
      identity = child.pid === undefined ? undefined : identifyProcess(child.pid)
      const [code, signal] = await once(child, 'exit').catch(() => [null, null])
      identity = undefined
      onEnd?.()
      if (!isExpected && !stopping.signal.aborted) crashes.push({ name, code, signal })
      await sleep(random.whole(200, 2_000), stopping.signal).catch(() => {})
    }
  }

  const send = (signal: NodeJS.Signals) => {
    if (!identity) return false
    // These two end nothing.
    if (signal !== 'SIGSTOP' && signal !== 'SIGCONT') isExpected = true
    return signalOwn(identity, signal)
  }
  const giveUp = () => {
    stopping.abort()
    send('SIGKILL')
  }
  options.signal.addEventListener('abort', giveUp, { once: true })
  const supervision = supervise()
  const endWithin = async (graceMs: number): Promise<boolean> => {
    const ending = child
    if (!ending || ending.exitCode !== null || ending.signalCode !== null) return true
    const exited = once(ending, 'exit')
    const limit = new AbortController()
    send('SIGTERM')
    send('SIGCONT')
    const isPolite = await Promise.race([
      exited.then(() => true),
      sleep(graceMs, limit.signal).then(
        () => false,
        () => false,
      ),
    ])
    limit.abort()
    if (isPolite) return true
    send('SIGKILL')
    await exited
    return false
  }
  return {
    name,
    crashes,
    get identity() {
      return identity
    },
    signal: send,
    async restart(graceMs) {
      await endWithin(graceMs)
    },
    async stop(graceMs) {
      stopping.abort()
      const isPolite = await endWithin(graceMs)
      await supervision
      return isPolite
    },
  }
}

function spawnProgram({ args, env, logFile, onLine }: ProgramOptions): ChildProcess {
  const log = openSync(logFile, 'a', 0o600)
  try {
    // A group of its own: a Ctrl-C in the terminal is for the round.
    const child = spawn(process.execPath, args, { env, detached: true, stdio: ['ignore', 'pipe', log] })
    child.on('error', () => {})
    if (child.stdout) createInterface({ input: child.stdout }).on('line', (line) => onLine?.(line))
    return child
  } finally {
    closeSync(log)
  }
}
