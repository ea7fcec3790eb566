import { randomUUID } from 'node:crypto'
import { expect, inject, test } from 'vitest'
import {
  createContainer,
  inspectContainer,
  listContainers,
  logsTail,
  putArchive,
  removeContainer,
  startContainer,
} from '../../packages/worker/src/engine/containers.ts'
import type { Engine } from '../../packages/worker/src/engine/engine.ts'
import { listNetworks } from '../../packages/worker/src/engine/networks.ts'
import { tarOf } from '../../packages/worker/src/engine/tar-text.ts'
import { listVolumes } from '../../packages/worker/src/engine/volumes.ts'
import { startContainerWay } from '../support/container-git.ts'
import { startControlPlane } from '../support/control-plane.ts'
import { endOf, startModelOf, untilNothingIsLeft } from '../support/docker-runs.ts'
import { until } from '../support/poll.ts'
import { imageName, openTestEngine } from '../support/test-images.ts'

/**
 * A worker that is a container itself, as `docker run --rm` starts it: with the engine's socket, a key and a name, and its state in a volume that goes
 * with it. What it ran is all that is left when it is killed.
 */
const engineOfAll = () => inject('dockerEngine') ?? { socket: '' }
const wait = 'until [ -e go ]; do sleep 0.1; done; echo went'
const waits = [{ toolCalls: [{ name: 'run_command', arguments: { command: wait } }] }, { text: 'Done.' }]

/** Its id. */
async function startWorkerContainer(
  engine: Engine,
  { workerId, url, key }: Record<'workerId' | 'url' | 'key', string>,
): Promise<string> {
  const { Id: id } = await createContainer(
    engine,
    {
      ...{ Image: imageName('musl'), Entrypoint: ['/agent/bin/oz-agent-worker'] },
      Cmd: ['--backend', 'docker', '--worker-id', workerId],
      Env: [`WARP_API_KEY=${key}`, `OZ_SERVER_URL=${url}`],
      Volumes: { '/var/lib/oz': {} },
      HostConfig: {
        Binds: [`${engineOfAll().socket}:/var/run/docker.sock`, `${inject('agentBundle')}:/agent:ro`],
        AutoRemove: true,
      },
    },
    { name: `oz-test-worker-${randomUUID()}` },
  )
  await startContainer(engine, id)
  return id
}

/** Of all workers of this id, and what they keep for themselves. */
async function ofWorker(engine: Engine, workerId: string): Promise<string[]> {
  const labels = [`oz-worker-id=${workerId}`]
  return [
    ...(await listContainers(engine, { labels })).map(({ Names }) => `container ${Names[0]}`),
    ...(await listNetworks(engine, { labels })).map(({ Name }) => `network ${Name}`),
    ...(await listVolumes(engine, { labels })).map(({ Name }) => `volume ${Name}`),
  ]
}

async function letGo(engine: Engine, runId: string): Promise<void> {
  const [task] = await listContainers(engine, { labels: [`oz-task-id=${runId}`, 'oz-role=task'] })
  await putArchive(engine, task?.Id ?? '', { path: '/workspace', archive: await tarOf([{ name: 'go', body: '' }]) })
}

test('a worker in a container that is killed, and gone with its state, costs no run: the next one goes on with what it ran', {
  timeout: 240_000,
}, async () => {
  const prompts = ['Wait for the second worker.', 'Do not wait for any.']
  await using model = await startModelOf({ [prompts[0] ?? '']: waits, [prompts[1] ?? '']: waits })
  await using cp = await startControlPlane({ env: model.env })
  await using way = await startContainerWay(engineOfAll(), {
    ...{ port: 4793, to: Number(new URL(cp.url).port) },
    agentBundle: inject('agentBundle'),
  })
  await using engine = openTestEngine(engineOfAll())
  const workerId = `w-${randomUUID()}`
  const created = await cp.client.apiKeys.create({ name: 'worker', scope: 'worker', worker_id: workerId })
  const how = { workerId, url: way.url, key: created.raw_api_key }
  const first = await startWorkerContainer(engine, how)
  const runs = await Promise.all(
    prompts.map((prompt) =>
      cp.createRun({
        prompt,
        config: {
          ...{ worker_host: workerId, idle_timeout_minutes: 0 },
          environment: { docker_image: imageName('musl') },
        },
      }),
    ),
  )
  const [later = '', meanwhile = ''] = runs
  await until(() => prompts.every((prompt) => model.askedBy(prompt).length > 0), Boolean, { timeoutMs: 90_000 }).catch(
    async (error: Error) => {
      throw new Error(`${error.message}\n${await logsTail(engine, first, { maxBytes: 8_000 }).catch(String)}`)
    },
  )
  const state = (await inspectContainer(engine, first))?.Mounts.find(({ Type }) => Type === 'volume')?.Name
  await removeContainer(engine, first)
  expect((await listVolumes(engine, { labels: [] })).map(({ Name }) => Name)).not.toContain(state)

  // With nobody beside it an agent ends its run as ever.
  await letGo(engine, meanwhile)
  expect(await endOf(cp, meanwhile)).toMatchObject({ state: 'SUCCEEDED' })

  const second = await startWorkerContainer(engine, how)
  await until(
    () => cp.client.workers.list(),
    ({ workers }) => workers.some((worker) => worker.worker_id === workerId),
    { timeoutMs: 30_000 },
  )
  await untilNothingIsLeft(engineOfAll(), [meanwhile])
  await letGo(engine, later)
  expect(await endOf(cp, later)).toMatchObject({ state: 'SUCCEEDED' })
  for (const runId of runs) {
    const { executions } = await cp.client.runs.executions(runId)
    expect(executions).toHaveLength(1)
    expect((await cp.statesOf(runId)).filter((one) => one === 'SUCCEEDED')).toHaveLength(1)
  }
  await untilNothingIsLeft(engineOfAll(), runs)
  // The claim on what the first one had goes when the second one looks around again, which it does each minute.
  await until(
    () => ofWorker(engine, workerId),
    (left) => left.length === 0,
    { timeoutMs: 90_000, everyMs: 250 },
  )
  await engine.json('POST', `/containers/${second}/stop`, { query: { t: 20 }, timeoutMs: 30_000 })
  await until(
    () => inspectContainer(engine, second),
    (found) => found === undefined,
  )
  expect(await ofWorker(engine, workerId)).toEqual([])
})
