import { mkdtempSync, rmSync } from 'node:fs'
import { join } from 'node:path'
import { runWorker, type WorkerEvent } from '@openoz/worker'
import { pino } from 'pino'
import { inject } from 'vitest'
import { type DockerBlock, readDockerOptions } from '../../packages/worker/src/docker-options.ts'
import type { ControlPlane } from './control-plane.ts'
import { until } from './poll.ts'

export interface DockerWorker extends AsyncDisposable {
  readonly events: WorkerEvent[]
  readonly folder: string
  /** Ends it; containers go on with `leave`. */
  stop(how?: 'stop' | 'leave'): Promise<void>
}

export interface DockerWorkerOptions {
  docker?: DockerBlock
  env?: NodeJS.ProcessEnv
  cleanup?: boolean
  folder?: string
  workerId?: string
  taskEnvironment?: Record<string, string>
  /** The control plane as agents reach it, where that is another way. */
  serverRootUrl?: string
}

/** A worker of the docker backend in this process, on the engine that the tests share. Resolves once it listens. */
export async function startDockerWorker(
  cp: Pick<ControlPlane, 'url' | 'adminKey'>,
  options: DockerWorkerOptions = {},
): Promise<DockerWorker> {
  const engine = inject('dockerEngine')
  // Short: there will be sockets in it.
  const folder = options.folder ?? mkdtempSync('/tmp/oz-dw-')
  const events: WorkerEvent[] = []
  const ending = { stop: new AbortController(), leave: new AbortController() }
  const running = runWorker({
    workerId: options.workerId ?? 'w1',
    apiKey: cp.adminKey,
    serverUrl: cp.url,
    serverRootUrl: options.serverRootUrl ?? cp.url,
    backend: 'docker',
    direct: {},
    docker: readDockerOptions(
      { state_dir: join(folder, 'state'), bundle: inject('agentBundle'), ...options.docker },
      {},
    ),
    logLevel: 'info',
    cleanup: options.cleanup ?? true,
    maxConcurrentTasks: 0,
    oneShot: false,
    drain: 'stop',
    taskEnvironment: options.taskEnvironment ?? {},
    env: { PATH: process.env.PATH, HOME: folder, OTEL_METRICS_EXPORTER: 'none', ...engine?.env, ...options.env },
    log: pino({ level: process.env.OZ_TEST_LOG ?? 'silent' }),
    signal: ending.stop.signal,
    leave: ending.leave.signal,
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
  await until(() => failure !== undefined || events.some(({ type }) => type === 'listening'), Boolean, {
    timeoutMs: 30_000,
  })
  if (failure !== undefined) throw failure
  return {
    events,
    folder,
    stop,
    async [Symbol.asyncDispose]() {
      await stop()
      if (options.folder === undefined) rmSync(folder, { recursive: true, force: true })
    },
  }
}
