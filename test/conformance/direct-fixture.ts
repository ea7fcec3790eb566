import {
  chmodSync,
  existsSync,
  mkdirSync,
  mkdtempSync,
  readdirSync,
  readFileSync,
  rmSync,
  writeFileSync,
} from 'node:fs'
import { join } from 'node:path'
import { createDialer, findProcesses } from '@openoz/machine'
import { runWorker, type WorkerEvent } from '@openoz/worker'
import { pino } from 'pino'
import type { TaskRefs } from '../../packages/worker/src/backends/backend.ts'
import { silentReporter } from '../../packages/worker/src/backends/backend.ts'
import { createDirectBackend } from '../../packages/worker/src/backends/direct.ts'
import { Link } from '../../packages/worker/src/link.ts'
import { taskFolder } from '../../packages/worker/src/task-folder.ts'
import type { WorkerOptions } from '../../packages/worker/src/worker-options.ts'
import type { ControlPlane } from '../support/control-plane.ts'
import { limitMemory, memoryHog } from '../support/memory-limit.ts'
import { until } from '../support/poll.ts'
import { programs } from '../support/worker-program.ts'
import type { BackendFixture, ConformanceWorker, ConformanceWorkerOptions, Scene } from './backend-fixture.ts'

const log = pino({ level: process.env.OZ_TEST_LOG ?? 'silent' })

/** Open to every user: tasks of a worker that is root run as users of their own. */
function makeFolder(): string {
  const folder = mkdtempSync('/tmp/oz-dc-')
  chmodSync(folder, 0o755)
  return folder
}

/** An agent that does what the variable SCENE says. */
function sceneProgram(folder: string): string {
  const file = join(folder, 'bin', 'oz')
  mkdirSync(join(folder, 'bin'), { recursive: true })
  if (!existsSync(file)) writeFileSync(file, '#!/bin/sh\neval "$SCENE"\n', { mode: 0o755 })
  return file
}

interface WorkerShape {
  serverUrl: string
  apiKey: string
  folder: string
  ozPath: string
  env?: NodeJS.ProcessEnv
  taskEnvironment?: Record<string, string>
}

function workerOptions({ serverUrl, apiKey, folder, ozPath, env, taskEnvironment = {} }: WorkerShape): WorkerOptions {
  return {
    ...{ workerId: 'w1', apiKey, serverUrl, serverRootUrl: serverUrl, backend: 'direct' },
    ...{ direct: { stateDir: join(folder, 'state'), ozPath }, logLevel: 'info', cleanup: true },
    ...{ maxConcurrentTasks: 0, oneShot: false, drain: 'stop', taskEnvironment },
    env: { PATH: process.env.PATH, HOME: folder, OTEL_METRICS_EXPORTER: 'none', ...env },
  }
}

async function openScene(options: { folder?: string } = {}): Promise<Scene> {
  const folder = options.folder ?? makeFolder()
  const serverUrl = 'http://127.0.0.1:9'
  const worker = workerOptions({ serverUrl, apiKey: 'wk-test', folder, ozPath: sceneProgram(folder) })
  const dialer = createDialer({ serverUrl, env: worker.env })
  const link = new Link()
  link.set(true)
  const backend = createDirectBackend({ worker, dialer, link, log })
  let hasLeft = false
  const leave = async () => {
    if (hasLeft) return
    hasLeft = true
    await backend.leave({ isAllTold: true })
    await dialer.close()
  }
  const close = async () => {
    await leave()
    rmSync(folder, { recursive: true, force: true })
  }
  try {
    await backend.check(AbortSignal.timeout(30_000))
  } catch (error) {
    await close()
    throw error
  }
  return {
    ...{ backend, folder, stateDir: join(folder, 'state'), reporter: silentReporter, leave },
    start: (assignment) =>
      backend.start(assignment, silentReporter, {
        claimed: Promise.resolve(),
        signal: new AbortController().signal,
      }),
    [Symbol.asyncDispose]: close,
  }
}

async function startWorker(
  cp: Pick<ControlPlane, 'url' | 'adminKey'>,
  { scene, taskEnvironment = {}, env = {}, ...options }: ConformanceWorkerOptions = {},
): Promise<ConformanceWorker> {
  const folder = options.folder ?? makeFolder()
  const events: WorkerEvent[] = []
  const ending = { stop: new AbortController(), leave: new AbortController() }
  const ozPath = scene === undefined ? join(programs, 'oz.mjs') : sceneProgram(folder)
  const variables = { ...taskEnvironment, ...(scene === undefined ? {} : { SCENE: scene }) }
  const running = runWorker({
    ...workerOptions({ serverUrl: cp.url, apiKey: cp.adminKey, folder, ozPath, env, taskEnvironment: variables }),
    ...{ log, signal: ending.stop.signal, leave: ending.leave.signal },
    onEvent: (event) => events.push(event),
  })
  let failure: unknown
  running.catch((error: unknown) => {
    failure = error ?? new Error('ended')
  })
  const stop = async (how: 'stop' | 'leave' = 'stop') => {
    ending[how].abort()
    await running.catch(() => {})
  }
  await until(() => failure !== undefined || events.some(({ type }) => type === 'listening'))
  if (failure !== undefined) throw failure
  return {
    ...{ events, folder, stop },
    async [Symbol.asyncDispose]() {
      await stop()
      if (options.folder === undefined) rmSync(folder, { recursive: true, force: true })
    },
  }
}

/** Empty when there is none, or none any more. */
function textOf(file: string): string {
  try {
    return readFileSync(file, 'utf8')
  } catch {
    return ''
  }
}

const processesOf = ({ execution_id: id }: TaskRefs) => findProcesses({ marker: `OZ_EXECUTION_ID=${id}` })

export const directFixture: BackendFixture = {
  name: 'direct',
  runConfig: {},
  async prepare() {},
  openScene,
  startWorker,

  async leftOf(task, folder) {
    const { task_id: taskId, execution_id: executionId } = task
    const stateDir = join(folder, 'state')
    const users = join(stateDir, 'users')
    const taken = existsSync(users) ? readdirSync(users) : []
    const folders = [taskFolder(stateDir, executionId).folder, join(stateDir, 'workspaces', taskId)]
    return [
      ...(await processesOf(task)).map(({ pid, command }) => `process ${pid} ${command}`),
      ...folders.filter((path) => existsSync(path)).map((path) => `folder ${path}`),
      ...taken.filter((uid) => textOf(join(users, uid)).includes(executionId)).map((uid) => `user ${uid}`),
    ]
  },

  countProcesses: async (task) => (await processesOf(task)).length,

  async outputOf({ execution_id: executionId }, folder) {
    return textOf(taskFolder(join(folder, 'state'), executionId).log)
  },

  async killAgent(task) {
    // Not its shim, and not its tools: as the kernel would, who takes the largest.
    const agents = (await processesOf(task)).filter(({ pid }) => {
      const [program = '', ...words] = textOf(`/proc/${pid}/cmdline`).split('\0')
      return program.endsWith('node') && words.includes('agent') && words.includes('run')
    })
    if (agents.length === 0) throw new Error('there is no agent')
    for (const { pid } of agents) process.kill(pid, 'SIGKILL')
  },

  starve() {
    const limit = limitMemory(40_000_000)
    if (!limit) throw new Error('no control group can be made here')
    return {
      script: `sh -c '${memoryHog(limit)}'; exit $?`,
      more: {},
      outOfMemory: 'machine',
      [Symbol.dispose]: () => limit[Symbol.dispose](),
    }
  },
}
