import { type ChildProcess, spawn } from 'node:child_process'
import { once } from 'node:events'
import { fullJitterMs, sleep } from '@openoz/machine'
import type { Logger } from 'pino'
import { workerProgram } from '../program-files.ts'

/**
 * One `oz-agent-worker` as a child process, started again when it ends by itself. Its states: starting → connected ⇄ disconnected → ended →
 * (after a back-off) starting. `oz up` and the demo own one.
 *
 * The channel between us has two uses: the child says when it is connected, and notices our death by the channel's end, however we died.
 * It has a process group of its own, so that a Ctrl-C in the terminal is ours to pass on: once, when the time has come.
 */
export interface WorkerProcess {
  /** Resolves when a worker is connected for the first time; rejects when it ended a few times without. */
  readonly connected: Promise<void>
  /** SIGTERM, and waits: the worker ends its tasks and reports them. */
  stop(): Promise<void>
  /** After `stop`: the worker kills its tasks and goes. Does not wait. */
  stopNow(): void
}

export interface WorkerProcessOptions {
  args: string[]
  env: NodeJS.ProcessEnv
  log: Logger
  /** Where the worker's log goes: our stderr, or nowhere but `onLog`. */
  onLog?: (chunk: Buffer) => void
}

/** What the child sends over the channel. */
export type WorkerMessage = { type: 'connected' } | { type: 'disconnected'; problem: string }

/** A worker that was told something wrong (exit code 2) would be told the same again. */
const usageExitCode = 2

/** What keeps it from connecting so often is not a bad moment. It is still tried: an operator may be repairing it. */
const startsBeforeGivingUp = 3

/** Who worked for so long is started again at once, since its tasks wait to be taken over; only who dies early is made to wait. */
const stableMs = 10_000

export function startWorkerProcess(options: WorkerProcessOptions): WorkerProcess {
  const { log } = options
  const stopping = new AbortController()
  const firstConnection = Promise.withResolvers<void>()
  // Whoever waits for it gets the error; nobody has to.
  firstConnection.promise.catch(() => {})
  let child: ChildProcess | undefined

  async function superviseForever(): Promise<void> {
    let earlyEnds = 0
    for (let starts = 1; !stopping.signal.aborted; starts++) {
      const startedAt = performance.now()
      child = spawnWorker(options)
      child.on('message', (message) => {
        if ((message as WorkerMessage).type === 'connected') firstConnection.resolve()
      })
      const end = await endOf(child)
      if (stopping.signal.aborted) return
      if (end.code === usageExitCode) {
        log.error('the worker does not start; its log says why')
        firstConnection.reject(new Error('the worker does not start'))
        return
      }
      if (starts === startsBeforeGivingUp) firstConnection.reject(new Error('the worker ends before it connects'))
      if (performance.now() - startedAt > stableMs) earlyEnds = 0
      else earlyEnds++
      const waitMs = earlyEnds === 0 ? 0 : 500 + fullJitterMs(earlyEnds - 1)
      log.error(
        { code: end.code, signal: end.signal, inMs: Math.round(waitMs) },
        'the worker ended; it is started again',
      )
      await sleep(waitMs, stopping.signal)
    }
  }

  const supervision = superviseForever()
  return {
    connected: firstConnection.promise,
    async stop() {
      stopping.abort()
      child?.kill('SIGTERM')
      await supervision
      firstConnection.reject(new Error('the worker was stopped'))
    },
    stopNow() {
      // Its second one. It knows its tasks, which no signal from here would reach.
      child?.kill('SIGTERM')
    },
  }
}

function spawnWorker({ args, env, onLog }: WorkerProcessOptions): ChildProcess {
  const child = spawn(process.execPath, [workerProgram, ...args], {
    env,
    detached: true,
    stdio: ['ignore', 'ignore', onLog ? 'pipe' : 'inherit', 'ipc'],
  })
  if (onLog) child.stderr?.on('data', onLog)
  return child
}

async function endOf(child: ChildProcess): Promise<{ code: number | null; signal: NodeJS.Signals | null }> {
  try {
    const [code, signal] = (await once(child, 'exit')) as [number | null, NodeJS.Signals | null]
    return { code, signal }
  } catch {
    // It could not be started at all (no memory, no file).
    return { code: null, signal: null }
  }
}
