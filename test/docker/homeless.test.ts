import { randomUUID } from 'node:crypto'
import { expect, inject, test } from 'vitest'
import { adoptionEntries } from '../../packages/worker/src/backends/docker-homeless.ts'
import { claimName, type LabelOwner, labelsOf, namesOf } from '../../packages/worker/src/backends/docker-labels.ts'
import {
  createContainer,
  inspectContainer,
  listContainers,
  putArchive,
  removeContainer,
  startContainer,
} from '../../packages/worker/src/engine/containers.ts'
import { createHelper } from '../../packages/worker/src/engine/helper-container.ts'
import { tarOf } from '../../packages/worker/src/engine/tar-text.ts'
import { createVolume, listVolumes } from '../../packages/worker/src/engine/volumes.ts'
import { openBackendScene } from '../support/docker-backend.ts'
import { imageName, openTestEngine } from '../support/test-images.ts'

const open = () => openTestEngine(inject('dockerEngine') ?? { socket: '' })
const never = new AbortController().signal

/** What a worker that was a container has left: its task goes on. `policy`: what the engine does when the worker’s container ends. */
async function makeHomeless(workerId: string, serverUrl: string, { policy = 'no' } = {}) {
  await using engine = open()
  const worker = await createContainer(
    engine,
    {
      Image: imageName('musl'),
      Cmd: ['/bin/sleep', '600'],
      Labels: { test: workerId },
      HostConfig: { RestartPolicy: { Name: policy } },
    },
    { name: `oz-test-worker-${randomUUID()}` },
  )
  await startContainer(engine, worker.Id)
  const owner: LabelOwner = {
    ...{ workerId, serverUrl, installationId: randomUUID(), instance: randomUUID(), version: '1', keeps: false },
    ownContainer: worker.Id,
  }
  const refs = { task_id: randomUUID(), execution_id: randomUUID() }
  const names = namesOf(refs)
  await createVolume(engine, { name: names.control, labels: labelsOf(owner, refs, 'control') })
  const mounts = [{ Type: 'volume' as const, Source: names.control, Target: '/run/openoz' }]
  const { Id: id } = await createContainer(
    engine,
    {
      ...{ Image: imageName('musl'), Cmd: ['/bin/sh', '-c', 'mkdir /run/openoz/spool; echo alone; sleep 600'] },
      ...{ Labels: labelsOf(owner, refs, 'task'), HostConfig: { Mounts: mounts, NetworkMode: 'none' } },
    },
    { name: names.container },
  )
  await startContainer(engine, id)
  const helper = await createHelper(engine, { name: names.helper, labels: labelsOf(owner, refs, 'helper'), mounts })
  await putArchive(engine, helper, { path: '/', archive: await tarOf(adoptionEntries({ token: 'et-secret-token' })) })
  return { worker: worker.Id, refs, names, instance: owner.instance }
}

const silent = { started() {}, completed() {}, failed() {}, progress() {} }

test('tasks of a worker whose container is gone with its folder go on with the next one, which names its instance', async () => {
  const workerId = `w-${randomUUID()}`
  const serverUrl = 'http://127.0.0.1:9'
  const { worker, refs, names, instance } = await makeHomeless(workerId, serverUrl)
  await using engine = open()
  await using scene = await openBackendScene({ workerId, serverUrl })
  const { backend } = scene
  expect(await backend.adopt(() => silent)).toEqual([])
  expect(backend.instances).not.toContain(instance)

  await removeContainer(engine, worker)
  const [adopted, ...others] = await backend.adopt(() => silent)
  expect(others).toEqual([])
  expect(adopted).toMatchObject({ refs, phase: 'running' })
  expect(backend.instances).toContain(instance)
  // Nobody else may have it.
  await using second = await openBackendScene({ workerId, serverUrl })
  expect(await second.backend.adopt(() => silent)).toEqual([])
  expect(second.backend.instances).not.toContain(instance)
  expect(await backend.adopt(() => silent)).toEqual([])
  await backend.sweep()
  expect((await inspectContainer(engine, names.container))?.State.Running).toBe(true)

  const task = await adopted?.task
  await task?.stop(0)
  expect(await task?.exited).toEqual({ type: 'killed', signal: 9 })
  await task?.close(undefined)
  await task?.finish({ abandoned: never, signal: never })
  await backend.remove(refs.execution_id)
  const labels = [`oz-worker-id=${workerId}`]
  expect((await listContainers(engine, { labels })).map(({ Names }) => Names[0])).toEqual([`/${claimName(instance)}`])
  expect(await listVolumes(engine, { labels })).toEqual([])
  await backend.sweep()
  expect(backend.instances).toContain(instance)
  backend.forgetInstances(backend.instances)
  await backend.sweep()
  expect(backend.instances).not.toContain(instance)
  expect(await listContainers(engine, { labels })).toEqual([])
})

test('a worker whose container is stopped has its tasks for itself until that is removed, whatever its restart policy', async () => {
  const workerId = `w-${randomUUID()}`
  const serverUrl = 'http://127.0.0.1:9'
  const { worker, refs, instance } = await makeHomeless(workerId, serverUrl, { policy: 'no' })
  await using engine = open()
  await engine.json('POST', `/containers/${worker}/stop`, { query: { t: 0 } })
  await using scene = await openBackendScene({ workerId, serverUrl })
  expect(await scene.backend.adopt(() => silent)).toEqual([])
  expect(scene.backend.instances).not.toContain(instance)
  await removeContainer(engine, worker)
  const [adopted] = await scene.backend.adopt(() => silent)
  const task = await adopted?.task
  await task?.stop(0)
  await task?.close('abandon')
  await scene.backend.remove(refs.execution_id)
  scene.backend.forgetInstances(scene.backend.instances)
  await scene.backend.sweep()
})

test('what the dead one left of tasks that have ended is removed, and a worker that may come back keeps its own', async () => {
  const workerId = `w-${randomUUID()}`
  const serverUrl = 'http://127.0.0.1:9'
  const back = await makeHomeless(workerId, serverUrl, { policy: 'unless-stopped' })
  const gone = await makeHomeless(workerId, serverUrl)
  await using engine = open()
  await removeContainer(engine, gone.names.container)
  await removeContainer(engine, gone.worker)
  await engine.json('POST', `/containers/${back.worker}/stop`, { query: { t: 0 } })
  await using scene = await openBackendScene({ workerId, serverUrl })
  expect(await scene.backend.adopt(() => silent)).toEqual([])
  expect(scene.backend.instances).toContain(gone.instance)
  expect(scene.backend.instances).not.toContain(back.instance)
  await scene.backend.sweep()
  const labels = [`oz-execution-id=${gone.refs.execution_id}`]
  expect([...(await listContainers(engine, { labels })), ...(await listVolumes(engine, { labels }))]).toEqual([])
  expect((await inspectContainer(engine, back.names.container))?.State.Running).toBe(true)
  scene.backend.forgetInstances(scene.backend.instances)
  await scene.backend.sweep()
  await removeContainer(engine, back.worker)
  for (const { task } of await scene.backend.adopt(() => silent)) {
    const found = await task
    await found.stop(0)
    await found.close('abandon')
  }
  await scene.backend.remove(back.refs.execution_id)
  scene.backend.forgetInstances(scene.backend.instances)
  await scene.backend.sweep()
  expect(await listContainers(engine, { labels: [`oz-worker-id=${workerId}`] })).toEqual([])
})
