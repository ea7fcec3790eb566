import { randomUUID } from 'node:crypto'
import { pino } from 'pino'
import { beforeAll, expect, inject, test } from 'vitest'
import {
  bundleLabel,
  type LabelOwner,
  labelsOf,
  namesOf,
  sharedLabels,
} from '../../packages/worker/src/backends/docker-labels.ts'
import { removeInstallation } from '../../packages/worker/src/backends/docker-sweep.ts'
import { createContainer, inspectContainer, removeContainer } from '../../packages/worker/src/engine/containers.ts'
import { createHelper } from '../../packages/worker/src/engine/helper-container.ts'
import { createNetwork, inspectNetwork, removeNetwork } from '../../packages/worker/src/engine/networks.ts'
import { createVolume, inspectVolume, removeVolume } from '../../packages/worker/src/engine/volumes.ts'
import { readInstallationId } from '../../packages/worker/src/installation.ts'
import { openInstances } from '../../packages/worker/src/instances.ts'
import { makeSceneAgent, openBackendScene, sceneAssignment } from '../support/docker-backend.ts'
import { imageName, openTestEngine } from '../support/test-images.ts'

const open = () => openTestEngine(inject('dockerEngine') ?? { socket: '' })

beforeAll(async () => {
  if (inject('dockerEngine')) await makeSceneAgent()
})

/** A container that runs, its helper, network and volume, as a worker has made them and not removed. */
async function makeLeft(owner: LabelOwner) {
  await using engine = open()
  const refs = { task_id: randomUUID(), execution_id: randomUUID() }
  const names = namesOf(refs)
  const labels = (role: Parameters<typeof labelsOf>[2]) => labelsOf(owner, refs, role)
  await createNetwork(engine, { name: names.network, labels: labels('network') })
  await createVolume(engine, { name: names.control, labels: labels('control') })
  const { Id: id } = await createContainer(
    engine,
    {
      Image: imageName('musl'),
      Cmd: ['/bin/sleep', '600'],
      Labels: labels('task'),
      HostConfig: { NetworkMode: names.network, Mounts: [{ Type: 'volume', Source: names.control, Target: '/c' }] },
    },
    { name: names.container },
  )
  await engine.json('POST', `/containers/${id}/start`)
  await createHelper(engine, { name: names.helper, labels: labels('helper'), mounts: [] })
  const left = async () => {
    await using asked = open()
    const all = {
      container: await inspectContainer(asked, names.container),
      helper: await inspectContainer(asked, names.helper),
      network: await inspectNetwork(asked, names.network),
      volume: await inspectVolume(asked, names.control),
    }
    return Object.entries(all).flatMap(([name, found]) => (found ? [name] : []))
  }
  return {
    left,
    async [Symbol.asyncDispose]() {
      await using again = open()
      for (const name of [names.container, names.helper]) await removeContainer(again, name)
      await removeNetwork(again, names.network)
      await removeVolume(again, names.control)
    },
  }
}

async function ownerOf(stateDir: string, more: Partial<LabelOwner> = {}): Promise<LabelOwner> {
  return {
    ...{ workerId: 'w1', serverUrl: 'http://127.0.0.1:9', installationId: await readInstallationId(stateDir) },
    ...{ instance: randomUUID(), version: '1', keeps: false },
    ...more,
  }
}

const everything = ['container', 'helper', 'network', 'volume']

test('what a dead worker of this state folder has left without a folder is removed; what others have, or was kept, is not', async () => {
  await using scene = await openBackendScene()
  const { stateDir } = scene
  const live = openInstances(stateDir, { worker_id: 'w2', server_url: 'http://127.0.0.1:9', backend: 'docker' })
  await using dead = await makeLeft(await ownerOf(stateDir))
  await using ofLive = await makeLeft(await ownerOf(stateDir, { instance: live.own }))
  await using young = await makeLeft(await ownerOf(stateDir, { instance: scene.backend.instances[0] ?? '' }))
  await using sameWorker = await makeLeft(await ownerOf(stateDir, { installationId: randomUUID() }))
  await using foreign = await makeLeft(await ownerOf(stateDir, { installationId: randomUUID(), workerId: 'w9' }))
  await using kept = await makeLeft(await ownerOf(stateDir, { keeps: true }))
  const assignment = sceneAssignment('sleep 600')
  const task = await scene.start(assignment)
  let hasEnded = false
  void task.exited.then(() => {
    hasEnded = true
  })
  await scene.backend.sweep()
  expect(await dead.left()).toEqual([])
  for (const others of [ofLive, young, sameWorker, foreign]) expect(await others.left()).toEqual(everything)
  expect(await kept.left()).toEqual(expect.arrayContaining(['container', 'volume']))
  expect(hasEnded).toBe(false)
  live.close({ isDone: true })
  await scene.backend.sweep()
  expect(await ofLive.left()).toEqual([])
  await task.stop(0)
  await task.close(undefined)
  await scene.backend.remove(assignment.execution_id)
})

test('a machine that is no worker any more has nothing left on its engine but what was kept, which is named', async () => {
  await using scene = await openBackendScene()
  const { stateDir } = scene
  await using engine = open()
  const owner = await ownerOf(stateDir)
  await using left = await makeLeft(owner)
  await using kept = await makeLeft({ ...owner, keeps: true })
  await using foreign = await makeLeft(await ownerOf(stateDir, { installationId: randomUUID() }))
  const volume = `oz-agent-${owner.instance}`
  await createVolume(engine, { name: volume, labels: { ...sharedLabels(owner), [bundleLabel]: 'x' } })
  const report = await removeInstallation(engine, { stateDir, log: pino({ level: 'silent' }) })
  expect(await left.left()).toEqual([])
  expect(await inspectVolume(engine, volume)).toBeUndefined()
  expect(await kept.left()).toEqual(expect.arrayContaining(['container', 'volume']))
  expect(report.kept).toHaveLength(1)
  expect(await foreign.left()).toEqual(everything)
})

test('what another worker id of this state folder runs goes on when its worker dies, until that is back', async () => {
  await using first = await openBackendScene({ workerId: 'w1' })
  const assignment = sceneAssignment('sleep 600')
  const task = await first.start(assignment)
  const container = task.place.split(' ')[1] ?? ''
  await first.leave()
  await using other = await openBackendScene({ folder: first.folder, workerId: 'w2' })
  const reporterOf = () => other.reporter
  expect(await other.backend.adopt(reporterOf)).toEqual([])
  await other.backend.sweep()
  await using engine = open()
  expect((await inspectContainer(engine, container))?.State.Running).toBe(true)
  await using back = await openBackendScene({ folder: first.folder, workerId: 'w1' })
  const [adopted] = await back.backend.adopt(() => back.reporter)
  const again = await adopted?.task
  await again?.stop(0)
  await again?.close('cancel')
  await back.backend.remove(assignment.execution_id)
  expect(await inspectContainer(engine, container)).toBeUndefined()
})
