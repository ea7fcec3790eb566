import { randomUUID } from 'node:crypto'
import { mkdtempSync, readFileSync, rmSync } from 'node:fs'
import { join } from 'node:path'
import { createDialer } from '@openoz/machine'
import type { TaskAssignment } from '@openoz/protocol'
import { pino } from 'pino'
import { inject } from 'vitest'
import type { StepReporter, Task } from '../../packages/worker/src/backends/backend.ts'
import { createDockerBackend } from '../../packages/worker/src/backends/docker.ts'
import { type DockerBlock, readDockerOptions } from '../../packages/worker/src/docker-options.ts'
import { importImage } from '../../packages/worker/src/engine/images.ts'
import { tarOf } from '../../packages/worker/src/engine/tar-text.ts'
import { Link } from '../../packages/worker/src/link.ts'
import { imageName, openTestEngine } from './test-images.ts'

/** An agent that does what the variable SCENE says; made for an image with a shell. */
export const sceneAgent = 'oz-test/agent:1'

export async function makeSceneAgent(engine = inject('dockerEngine')): Promise<void> {
  await using api = openTestEngine(engine ?? { socket: '' })
  const archive = await tarOf([{ name: 'entrypoint.sh', mode: 0o755, body: '#!/bin/sh\neval "$SCENE"\n' }])
  await importImage(api, { repository: 'oz-test/agent', tag: '1', archive })
}

export interface BackendSceneOptions {
  docker?: DockerBlock
  cleanup?: boolean
  serverUrl?: string
  engine?: { env: { DOCKER_HOST: string } } | null
  env?: NodeJS.ProcessEnv
  /** Of a scene before, whose successor this is. */
  folder?: string
  workerId?: string
  savingTimeoutMs?: number
}

/** The docker backend without a control plane. */
export async function openBackendScene(options: BackendSceneOptions = {}) {
  const { engine = inject('dockerEngine') } = options
  const folder = options.folder ?? mkdtempSync('/tmp/oz-db-')
  const stateDir = join(folder, 'state')
  const { serverUrl = 'http://127.0.0.1:9' } = options
  const env = { PATH: process.env.PATH, HOME: folder, ...engine?.env, ...options.env }
  const dialer = createDialer({ serverUrl, env })
  const block = { state_dir: stateDir, bundle: inject('agentBundle'), sidecar_image: sceneAgent, ...options.docker }
  const link = new Link()
  link.set(true)
  const backend = createDockerBackend({
    worker: {
      ...{
        workerId: options.workerId ?? 'w1',
        apiKey: 'wk-test',
        serverUrl,
        serverRootUrl: serverUrl,
        backend: 'docker',
        direct: {},
      },
      ...{ docker: readDockerOptions(block, {}), logLevel: 'info', cleanup: options.cleanup ?? true },
      ...{ maxConcurrentTasks: 0, oneShot: false, drain: 'stop', taskEnvironment: {}, env },
    },
    ...(options.savingTimeoutMs === undefined ? {} : { savingTimeoutMs: options.savingTimeoutMs }),
    ...{ dialer, link, log: pino({ level: process.env.OZ_TEST_LOG ?? 'silent' }) },
  })
  const steps: string[] = []
  const reporter: StepReporter = {
    started: (step) => steps.push(`${step} started`),
    completed: (step, detail) => steps.push(`${step} completed${detail === undefined ? '' : `: ${detail}`}`),
    failed: (step, detail) => steps.push(`${step} failed: ${detail}`),
    progress: (step, { text }) => steps.push(`${step} progress: ${text}`),
  }
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
    ...{ backend, folder, stateDir, steps, reporter, leave },
    start(assignment: TaskAssignment, signal = new AbortController().signal): Promise<Task> {
      return backend.start(assignment, reporter, { claimed: Promise.resolve(), signal })
    },
    logOf: ({ execution_id: id }: TaskAssignment) => readFileSync(join(stateDir, 'tasks', id, 'agent.log'), 'utf8'),
    [Symbol.asyncDispose]: close,
  }
}

/** Of a run of its own, whose agent does what `scene` says. */
export function sceneAssignment(scene: string, more: Partial<TaskAssignment> = {}): TaskAssignment {
  const id = randomUUID()
  return {
    task_id: id,
    execution_id: randomUUID(),
    task: {
      ...{ id, title: 'scene', task_definition: { prompt: '' }, created_at: '', updated_at: '' },
      owner: { Type: 'USER', Id: 1 },
    },
    docker_image: imageName('musl'),
    execution_token: 'et-secret-token',
    ...more,
    env_vars: { SCENE: scene, ...more.env_vars },
  }
}
