import { existsSync } from 'node:fs'
import { join } from 'node:path'
import { inject } from 'vitest'
import type { TaskRefs } from '../../packages/worker/src/backends/backend.ts'
import { namesOf } from '../../packages/worker/src/backends/docker-labels.ts'
import {
  inspectContainer,
  killContainer,
  listContainers,
  logsTail,
} from '../../packages/worker/src/engine/containers.ts'
import { listNetworks } from '../../packages/worker/src/engine/networks.ts'
import { listVolumes } from '../../packages/worker/src/engine/volumes.ts'
import { taskFolder } from '../../packages/worker/src/task-folder.ts'
import { makeSceneAgent, openBackendScene, sceneAgent } from '../support/docker-backend.ts'
import { startDockerWorker } from '../support/docker-worker.ts'
import { imageName, openTestEngine } from '../support/test-images.ts'
import type { BackendFixture } from './backend-fixture.ts'

const open = () => openTestEngine(inject('dockerEngine') ?? { socket: '' })

export const dockerFixture: BackendFixture = {
  name: 'docker',
  runConfig: { environment: { docker_image: imageName('musl') } },

  async prepare() {
    if (inject('dockerEngine')) await makeSceneAgent()
  },

  openScene: (options = {}) => openBackendScene(options),

  startWorker(cp, { scene, taskEnvironment = {}, ...options } = {}) {
    return startDockerWorker(cp, {
      ...options,
      ...(scene === undefined ? {} : { docker: { sidecar_image: sceneAgent } }),
      taskEnvironment: { ...taskEnvironment, ...(scene === undefined ? {} : { SCENE: scene }) },
    })
  },

  async leftOf({ execution_id: executionId }, folder) {
    await using engine = open()
    const labels = [`oz-execution-id=${executionId}`]
    const files = taskFolder(join(folder, 'state'), executionId).folder
    return [
      ...(await listContainers(engine, { labels })).map(({ Names }) => `container ${Names[0]}`),
      ...(await listVolumes(engine, { labels })).map(({ Name }) => `volume ${Name}`),
      ...(await listNetworks(engine, { labels })).map(({ Name }) => `network ${Name}`),
      ...(existsSync(files) ? [`folder ${files}`] : []),
    ]
  },

  async countProcesses(task) {
    await using engine = open()
    const { container } = namesOf(task)
    if (!(await inspectContainer(engine, container))?.State.Running) return 0
    const top = await engine
      .json<{ Processes: unknown[] | null }>('GET', `/containers/${container}/top`)
      // It has ended in between.
      .catch(() => ({ Processes: [] }))
    return top.Processes?.length ?? 0
  },

  async outputOf(task: TaskRefs) {
    await using engine = open()
    return await logsTail(engine, namesOf(task).container, { maxBytes: 65_536 })
  },

  async killAgent(task) {
    await using engine = open()
    await killContainer(engine, namesOf(task).container)
  },

  starve: () => ({
    script: 'x=x; while :; do x=$x$x; done',
    more: { instance_shape: { vcpus: 0.5, memory_gb: 0.02 } },
    outOfMemory: 'task',
    [Symbol.dispose]() {},
  }),
}
