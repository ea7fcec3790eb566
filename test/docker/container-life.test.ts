import { constants } from 'node:os'
import { beforeAll, expect, inject, test } from 'vitest'
import { TaskStopped } from '../../packages/worker/src/backends/backend.ts'
import {
  inspectContainer,
  killContainer,
  listContainers,
  removeContainer,
} from '../../packages/worker/src/engine/containers.ts'
import { listNetworks } from '../../packages/worker/src/engine/networks.ts'
import { listVolumes, removeVolume } from '../../packages/worker/src/engine/volumes.ts'
import { makeSceneAgent, openBackendScene, sceneAgent, sceneAssignment } from '../support/docker-backend.ts'
import { until } from '../support/poll.ts'
import { imageName, openTestEngine } from '../support/test-images.ts'

const open = () => openTestEngine(inject('dockerEngine') ?? { socket: '' })

async function leftOf(runId: string) {
  await using engine = open()
  const labels = [`oz-task-id=${runId}`]
  const containers = (await listContainers(engine, { labels })).map(({ Names, State }) => `${Names[0]} ${State}`)
  const volumes = (await listVolumes(engine, { labels })).map(({ Name }) => Name)
  const networks = (await listNetworks(engine, { labels })).map(({ Name }) => Name)
  return { containers, volumes, networks }
}
const nothing = { containers: [], volumes: [], networks: [] }

beforeAll(async () => {
  if (inject('dockerEngine')) await makeSceneAgent()
})

test('an agent’s exit code is its container’s, its last words are kept, and nothing is left on the engine', async () => {
  await using scene = await openBackendScene()
  const assignment = sceneAssignment('echo working; echo badly >&2; exit 7')
  const task = await scene.start(assignment)
  expect(task.place).toBe(`container oz-task-${assignment.task_id}-${assignment.execution_id.slice(-12)}`)
  expect(await task.exited).toEqual({ type: 'exited', code: 7 })
  await task.close(undefined)
  expect(scene.logOf(assignment)).toMatch(/working\n[\s\S]*badly/)
  await scene.backend.remove(assignment.execution_id)
  expect(await leftOf(assignment.task_id)).toEqual(nothing)
})

test('an agent that is asked to end has its time, and one that does not listen is killed at once after it', async () => {
  await using scene = await openBackendScene()
  const polite = sceneAssignment('trap "sleep 0.3; exit 9" TERM; echo ready; while :; do sleep 0.1; done')
  const deaf = sceneAssignment('trap "" TERM; while :; do sleep 0.1; done')
  const tasks = [await scene.start(polite), await scene.start(deaf)] as const
  await until(async () => {
    await using engine = open()
    return (await listContainers(engine, { labels: [`oz-task-id=${deaf.task_id}`] })).length
  }, Boolean)
  const startedAt = performance.now()
  await Promise.all([tasks[0].stop(10_000), tasks[1].stop(500)])
  expect(performance.now() - startedAt).toBeLessThan(5_000)
  const exits = await Promise.all(tasks.map(({ exited }) => exited))
  expect(exits[1]).toEqual({ type: 'killed', signal: constants.signals.SIGKILL })
  expect([
    { type: 'exited', code: 9 },
    { type: 'killed', signal: constants.signals.SIGTERM },
  ]).toContainEqual(exits[0])
  for (const { execution_id: id } of [polite, deaf]) await scene.backend.remove(id)
})

test('a task that used more memory than it was given is told from one that somebody killed', async () => {
  await using scene = await openBackendScene()
  const shape = { instance_shape: { vcpus: 0.5, memory_gb: 0.02 } }
  const hungry = sceneAssignment('x=x; while :; do x=$x$x; done', shape)
  const killed = sceneAssignment('sleep 100')
  const tasks = [await scene.start(hungry), await scene.start(killed)] as const
  await using engine = open()
  const { HostConfig } = (await inspectContainer(engine, tasks[0].place.split(' ')[1] ?? '')) ?? {}
  expect(HostConfig).toMatchObject({ NanoCpus: 5e8, Memory: Math.floor(0.02 * 1024 ** 3) })
  expect(HostConfig?.MemorySwap).toBe(HostConfig?.Memory)
  await killContainer(engine, tasks[1].place.split(' ')[1] ?? '')
  const remains = []
  for (const task of tasks) {
    expect(await task.exited).toEqual({ type: 'killed', signal: 9 })
    await task.close(undefined)
    const never = new AbortController().signal
    remains.push(await task.finish({ abandoned: never, signal: never }))
  }
  expect(remains.map(({ outOfMemory }) => outOfMemory)).toEqual(['task', undefined])
  expect(remains.map(({ memoryLimitBytes }) => memoryLimitBytes)).toEqual([HostConfig?.Memory, undefined])
  expect(remains.map(({ isEngineStopped }) => isEngineStopped)).toEqual([undefined, undefined])
  for (const { execution_id: id } of [hungry, killed]) await scene.backend.remove(id)
})

test('a container is hardened, on a network of its own, with labels on everything', async () => {
  await using scene = await openBackendScene()
  const assignment = sceneAssignment('grep -E "CapEff|NoNewPrivs|Seccomp:" /proc/self/status; sleep 100')
  const task = await scene.start(assignment)
  await using engine = open()
  const found = await inspectContainer(engine, task.place.split(' ')[1] ?? '')
  expect(found?.HostConfig).toMatchObject({
    ...{ Init: true, SecurityOpt: ['no-new-privileges'], CapDrop: ['ALL'], PidsLimit: 4096, AutoRemove: false },
    NetworkMode: `oz-${assignment.execution_id}`,
  })
  expect(found?.Config.Labels).toMatchObject({
    ...{ 'oz-worker-id': 'w1', 'oz-task-id': assignment.task_id, 'oz-execution-id': assignment.execution_id },
    'oz-role': 'task',
  })
  const { volumes, networks, containers } = await leftOf(assignment.task_id)
  expect({ volumes: volumes.length, networks: networks.length, containers: containers.length }).toEqual({
    volumes: 2,
    networks: 1,
    containers: 2,
  })
  await task.stop(0)
  await task.close(undefined)
  expect(scene.logOf(assignment)).toMatch(/CapEff:\s+00000000000004fb[\s\S]*NoNewPrivs:\s+1[\s\S]*Seccomp:\s+2/)
  await scene.backend.remove(assignment.execution_id)
})

test('a task of a worker that keeps everything stays, stopped, with its volumes and without its network', async () => {
  await using scene = await openBackendScene({ cleanup: false })
  const assignment = sceneAssignment('echo kept > file; sleep 100')
  const task = await scene.start(assignment)
  await task.stop(0)
  await task.close('cancel')
  await scene.backend.remove(assignment.execution_id)
  const left = await leftOf(assignment.task_id)
  expect(left.containers).toEqual([`/${task.place.split(' ')[1]} exited`])
  expect(left.networks).toEqual([])
  expect(left.volumes).toHaveLength(2)
  await using engine = open()
  await removeContainer(engine, task.place.split(' ')[1] ?? '')
  for (const name of left.volumes) await removeVolume(engine, name)
})

test('a stop during the start ends it, and leaves nothing', async () => {
  await using scene = await openBackendScene()
  const assignment = sceneAssignment('sleep 100')
  const stopping = new AbortController()
  const reason = new TaskStopped('cancel')
  const never = new Promise<void>(() => {})
  const starting = scene.backend.start(assignment, scene.reporter, { claimed: never, signal: stopping.signal })
  await until(() => scene.steps.some((step) => step.startsWith('container completed')), Boolean, { timeoutMs: 20_000 })
  stopping.abort(reason)
  await expect(starting).rejects.toBe(reason)
  expect((await leftOf(assignment.task_id)).containers).not.toContainEqual(expect.stringMatching(/running/))
  await scene.backend.remove(assignment.execution_id)
  expect(await leftOf(assignment.task_id)).toEqual(nothing)
})

test('sidecars are unpacked once and read-only, unless the task may write to its own', async () => {
  await using scene = await openBackendScene()
  const sidecars = [
    { image: sceneAgent, mount_path: '/tools' },
    { image: sceneAgent, mount_path: '/own', read_write: true },
  ]
  const assignment = sceneAssignment(
    'ls /tools /own; touch /tools/x 2>/dev/null || echo closed; touch /own/x && echo open',
    {
      additional_sidecars: sidecars,
    },
  )
  const task = await scene.start(assignment)
  expect(await task.exited).toEqual({ type: 'exited', code: 0 })
  await task.close(undefined)
  expect(scene.logOf(assignment)).toMatch(/entrypoint\.sh[\s\S]*entrypoint\.sh[\s\S]*closed\nopen/)
  await scene.backend.remove(assignment.execution_id)
  expect(await leftOf(assignment.task_id)).toEqual(nothing)
})

test.each([
  ['an image that is nowhere', { docker_image: 'oz-test/none:1' }, 'image_pull'],
  ['a name that is none', { docker_image: 'UPPER:1' }, 'invalid_image'],
  [
    'a sidecar on the workspace',
    { additional_sidecars: [{ image: sceneAgent, mount_path: '/workspace' }] },
    'sidecar_prep',
  ],
  ['more CPUs than there are', { instance_shape: { vcpus: 1000, memory_gb: 1 } }, 'unschedulable'],
])('%s ends the start with what it is', async (_, more, reason) => {
  await using scene = await openBackendScene({ docker: { image_pull_policy: 'Never' } })
  const assignment = sceneAssignment('exit 0', more)
  await expect(scene.start(assignment)).rejects.toMatchObject({ reason })
  await scene.backend.remove(assignment.execution_id)
  expect(await leftOf(assignment.task_id)).toEqual(nothing)
})

test('a folder of the operator that is missing is not made, and said to be', async () => {
  await using scene = await openBackendScene({ docker: { volumes: ['/nonexistent/oz:/x'] } })
  const assignment = sceneAssignment('exit 0', { docker_image: imageName('musl') })
  await expect(scene.start(assignment)).rejects.toMatchObject({ reason: 'volume_mount', code: 'bind_source_missing' })
  await scene.backend.remove(assignment.execution_id)
})

test.each([
  [{ runtime: 'runsc' }, 'container_runtime_missing'],
  [{ network: 'no-such-network' }, 'network_missing'],
  [{ volumes: ['/etc:/x'], allowed_host_paths: ['/srv'] }, 'host_path_not_allowed'],
])('what cannot work is said before the first task: %o', async (docker, code) => {
  await expect(openBackendScene({ docker })).rejects.toMatchObject({ code })
})
