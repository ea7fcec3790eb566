import { chmodSync, mkdirSync, mkdtempSync, readdirSync, rmSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { pino } from 'pino'
import { runWorker } from '../run-worker.ts'
import type { WorkerEvent, WorkerOptions } from '../worker-options.ts'
import type { WorkerTiming } from '../worker-timing.ts'
import type { ControlPlane } from './control-plane.ts'
import { until } from './until.ts'

/** Open to every user, as system folders are: tasks of a worker that is root run as users of their own. */
export function createFolder(): { path: string } & Disposable {
  const path = mkdtempSync(join(tmpdir(), 'oz-worker-test-'))
  chmodSync(path, 0o755)
  return { path, [Symbol.dispose]: () => rmSync(path, { recursive: true, force: true }) }
}

/** Writes an `oz` that is a shell script; returns its path. */
export function writeOz(folder: string, script: string): string {
  const bin = join(folder, 'bin')
  mkdirSync(bin, { recursive: true })
  const file = join(bin, 'oz')
  writeFileSync(file, `#!/bin/sh\n${script}\n`, { mode: 0o755 })
  return file
}

export type TestWorkerOptions = Partial<Omit<WorkerOptions, 'direct'>> & {
  direct?: Partial<WorkerOptions['direct']>
  /** Body of the stand-in for `oz`. */
  oz?: string
  timing?: Partial<WorkerTiming>
}

export const workerKey = 'wk-worker-test-key-0123456789abcdef'

/** A real worker in this process, with everything that it writes in `folder`. */
export function startWorker(cp: Pick<ControlPlane, 'url'>, folder: string, options: TestWorkerOptions = {}) {
  const { oz = 'exit 0', timing, direct, ...rest } = options
  const lines: string[] = []
  const events: WorkerEvent[] = []
  const stop = new AbortController()
  const stopNow = new AbortController()
  const stateDir = join(folder, 'state')
  const ended = runWorker(
    {
      workerId: 'test-worker',
      apiKey: workerKey,
      serverUrl: cp.url,
      serverRootUrl: cp.url,
      backend: 'direct',
      direct: { stateDir, ozPath: writeOz(folder, oz), ...direct },
      logLevel: 'debug',
      cleanup: true,
      maxConcurrentTasks: 0,
      oneShot: false,
      drain: 'stop',
      taskEnvironment: {},
      env: { PATH: process.env.PATH, HOME: process.env.HOME },
      log: pino({ level: 'debug' }, { write: (line: string) => lines.push(line) }),
      signal: stop.signal,
      stopNow: stopNow.signal,
      onEvent: (event) => events.push(event),
      ...rest,
    },
    {
      connection: { backoffBaseMs: 20, backoffMaxMs: 50, pingEveryMs: 200 },
      graceMs: 500,
      deliveryTimeoutMs: 2_000,
      settleMs: 1_000,
      ...timing,
    },
  )
  // A test that expects the rejection awaits `ended` itself.
  ended.catch(() => {})
  const event = <T extends WorkerEvent['type']>(type: T) =>
    until(`an event ${type}`, () =>
      events.find((candidate): candidate is Extract<WorkerEvent, { type: T }> => candidate.type === type),
    )
  return {
    ended,
    events,
    lines,
    stateDir,
    workspaceRoot: direct?.workspaceRoot ?? join(stateDir, 'workspaces'),
    log: () => lines.join(''),
    event,
    listening: () => event('listening'),
    stop: () => stop.abort(),
    stopNow: () => stopNow.abort(),
    /** Once nothing of tasks is left on disk. */
    async leavesNothing() {
      const nothing = JSON.stringify({ tasks: [], workspaces: [], users: [] })
      await until('nothing to be left', () => JSON.stringify(this.leftovers()) === nothing).catch(() => {
        throw new Error(`${JSON.stringify(this.leftovers())} is left`)
      })
    },
    /** What is left of tasks on disk. */
    leftovers: () => ({
      tasks: list(join(stateDir, 'tasks')),
      workspaces: list(direct?.workspaceRoot ?? join(stateDir, 'workspaces')),
      users: list(join(stateDir, 'users')),
    }),
    async [Symbol.asyncDispose]() {
      stop.abort()
      await ended.catch(() => {})
    },
  }
}

function list(folder: string): string[] {
  try {
    return readdirSync(folder)
  } catch {
    return []
  }
}
