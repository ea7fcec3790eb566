import { randomUUID } from 'node:crypto'
import { containerSpec } from '../packages/worker/src/backends/docker-spec.ts'
import { readDockerOptions } from '../packages/worker/src/docker-options.ts'
import {
  type ContainerSpec,
  createContainer,
  removeContainer,
  startContainer,
} from '../packages/worker/src/engine/containers.ts'
import type { Engine } from '../packages/worker/src/engine/engine.ts'
import { inspectImage } from '../packages/worker/src/engine/images.ts'
import { createNetwork, removeNetwork } from '../packages/worker/src/engine/networks.ts'
import { listVolumes, removeVolume } from '../packages/worker/src/engine/volumes.ts'
import { benchImage } from './docker-scene.ts'

/** What a control's container is to do. */
export interface BareTask {
  command: string[]
  environment?: Record<string, string>
  /** Mounted at /run/openoz-server. */
  relay: string
}

/**
 * A task's container as the worker asks for it, but by nobody but the engine: volumes that it makes itself, and its own network instead of one for the
 * task alone.
 */
async function bareSpec(
  engine: Engine,
  { command, environment = {}, relay }: BareTask,
): Promise<{ spec: ContainerSpec; volumes: [string, string] }> {
  const image = await inspectImage(engine, benchImage)
  const [agent] = await listVolumes(engine, { labels: ['oz-bundle'] })
  if (!image || !agent) throw new Error('no task has run on this engine yet')
  const name = randomUUID()
  const volumes: [string, string] = [`bare-${name}-control`, `bare-${name}-workspace`]
  const spec = containerSpec({
    image: { id: image.Id, config: image.Config ?? {} },
    ...{ command, environment, relay, labels: { bench: name }, network: 'bridge', limits: undefined },
    options: readDockerOptions({}, {}),
    volumes: { agent: agent.Name, control: volumes[0], workspace: volumes[1], sidecars: [], ofImage: [] },
  })
  return { spec, volumes }
}

/** Milliseconds that the engine needs to make such a container and to start it. Nothing of it is left. */
export async function bareStartMs(engine: Engine, task: BareTask): Promise<number> {
  const { spec, volumes } = await bareSpec(engine, task)
  const from = performance.now()
  const { Id } = await createContainer(engine, spec, { name: volumes[0] })
  await startContainer(engine, Id)
  const ms = performance.now() - from
  await removeContainer(engine, Id)
  for (const volume of volumes) await removeVolume(engine, volume)
  return ms
}

/** As `docker run --rm` does it: until the container has ended well, and nothing of it is left. */
export async function runBare(engine: Engine, task: BareTask & { hasOwnNetwork?: boolean }): Promise<void> {
  const { spec, volumes } = await bareSpec(engine, task)
  const name = volumes[0]
  if (task.hasOwnNetwork) {
    await createNetwork(engine, { name, labels: {} })
    spec.HostConfig = { ...spec.HostConfig, NetworkMode: name }
  }
  const { Id } = await createContainer(engine, spec, { name })
  await startContainer(engine, Id)
  const { StatusCode: code } = await engine.json<{ StatusCode: number }>('POST', `/containers/${Id}/wait`, {
    timeoutMs: 5 * 60_000,
  })
  if (code !== 0) throw new Error(`a bare container ended with ${code}`)
  await removeContainer(engine, Id)
  if (task.hasOwnNetwork) await removeNetwork(engine, name)
  for (const volume of volumes) await removeVolume(engine, volume)
}
