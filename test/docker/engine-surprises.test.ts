import { execFileSync } from 'node:child_process'
import { randomUUID } from 'node:crypto'
import { EventEmitter, once } from 'node:events'
import { mkdirSync, mkdtempSync, readdirSync, rmSync, symlinkSync } from 'node:fs'
import { createConnection, createServer, type Socket } from 'node:net'
import { join } from 'node:path'
import { beforeAll, expect, inject, test } from 'vitest'
import { namesOf, sharedNames } from '../../packages/worker/src/backends/docker-labels.ts'
import { inspectContainer, listContainers, removeContainer } from '../../packages/worker/src/engine/containers.ts'
import { importImage, inspectImage, removeImage } from '../../packages/worker/src/engine/images.ts'
import { tarOf } from '../../packages/worker/src/engine/tar-text.ts'
import { inspectVolume, listVolumes } from '../../packages/worker/src/engine/volumes.ts'
import { makeSceneAgent, openBackendScene, sceneAssignment } from '../support/docker-backend.ts'
import { until } from '../support/poll.ts'
import { imageName, openTestEngine } from '../support/test-images.ts'

const socket = inject('dockerEngine')?.socket ?? ''
const open = () => openTestEngine({ socket })
const never = new AbortController().signal

beforeAll(() => makeSceneAgent())

/** At once, for what happens between two steps of a start. */
function removeVolumeNow(name: string): void {
  const script = `
    const options = { socketPath: ${JSON.stringify(socket)}, path: ${JSON.stringify(`/v1.41/volumes/${name}`)}, method: 'DELETE' }
    require('node:http').request(options, ({ statusCode }) => process.exit(statusCode === 204 ? 0 : 1)).end()`
  execFileSync(process.execPath, ['-e', script])
}

/** An agent of its own, whose volume no other test has. */
async function makeAgent() {
  await using engine = open()
  const tag = randomUUID()
  const archive = await tarOf([{ name: 'entrypoint.sh', mode: 0o755, body: '#!/bin/sh\neval "$SCENE"\n' }])
  await importImage(engine, { repository: 'oz-test/surprised', tag, archive })
  const name = `oz-test/surprised:${tag}`
  const { Id: id } = (await inspectImage(engine, name)) ?? { Id: '' }
  return { name, volume: sharedNames('sidecar', id).volume }
}

test('a shared volume that is removed while a task is made costs that task alone, and no task starts with an empty one', async () => {
  const agent = await makeAgent()
  await using scene = await openBackendScene({ docker: { sidecar_image: agent.name } })
  const { backend, reporter } = scene
  await using engine = open()
  const run = async (script: string) => {
    const assignment = sceneAssignment(script)
    const task = await scene.start(assignment)
    const exit = await task.exited
    await task.close(undefined)
    await backend.remove(assignment.execution_id)
    return exit
  }
  expect(await run('exit 6')).toMatchObject({ code: 6 })
  // Engines date volumes to the second.
  const filledAt = Date.parse((await inspectVolume(engine, agent.volume))?.CreatedAt ?? '')
  await until(() => Date.now() - filledAt > 1_000)
  const unlucky = sceneAssignment('exit 0')
  const started = (step: string) => {
    if (step === 'container') removeVolumeNow(agent.volume)
  }
  const starting = backend.start(unlucky, { ...reporter, started }, { claimed: Promise.resolve(), signal: never })
  await expect(starting).rejects.toMatchObject({ reason: 'container_create', message: /removed from the engine/ })
  // It stays in the way for as long as its task, and is not nobody's.
  expect((await inspectVolume(engine, agent.volume))?.Labels).toMatchObject({ 'oz-sidecar': expect.any(String) })
  expect(await run('exit 7')).toMatchObject({ code: 7 })
  await backend.remove(unlucky.execution_id)
  await removeImage(engine, agent.name)
})

/**
 * The way to the engine, with something in it. A worker has one connection per request: `answer` is given its first line, and may keep it for itself; with
 * `pass` it gets there all the same, and what the engine says to it is read by nobody else.
 */
async function openWay(answer: (line: string, pass: () => Socket) => 'kept' | 'passed' | 'hung') {
  const folder = mkdtempSync('/tmp/oz-way-')
  const path = join(folder, 'docker.sock')
  const sockets = new Set<Socket>()
  const keep = (one: Socket) => {
    sockets.add(one.on('error', () => {}).once('close', () => sockets.delete(one)))
    return one
  }
  const server = createServer((client) => {
    keep(client).once('data', (first) => {
      const pass = () => {
        const inside = keep(createConnection(socket))
        inside.write(first)
        return inside
      }
      const what = answer(first.toString('latin1').split('\r\n')[0] ?? '', pass)
      if (what === 'hung') return
      if (what === 'kept') return void client.destroy()
      const inside = pass()
      client.pipe(inside).pipe(client)
      client.once('close', () => inside.destroy())
      inside.once('close', () => client.destroy())
    })
  })
  await once(server.listen(path), 'listening')
  return {
    engine: { env: { DOCKER_HOST: `unix://${path}` } },
    async [Symbol.asyncDispose]() {
      server.close()
      for (const one of sockets) one.destroy()
      rmSync(folder, { recursive: true, force: true })
    },
  }
}

const isStart = (line: string) => /^POST \S+\/containers\/[^/]+\/start /.test(line)
const isInspect = (line: string) => /^GET \S+\/containers\/[^/]+\/json /.test(line)

test('a container that was started although no answer came is followed, once the engine says so', async () => {
  let silences = 0
  await using way = await openWay((request, pass) => {
    if (isStart(request)) {
      silences = 3
      pass().resume()
      return 'kept'
    }
    if (!isInspect(request) || silences === 0) return 'passed'
    silences--
    return 'kept'
  })
  await using scene = await openBackendScene({ engine: way.engine })
  const assignment = sceneAssignment('sleep 1; exit 5')
  const task = await scene.start(assignment)
  expect(silences).toBe(0)
  expect(await task.exited).toMatchObject({ code: 5 })
  await task.close(undefined)
  await scene.backend.remove(assignment.execution_id)
})

test('a container whose start was never answered, nor begun, does not begin later', async () => {
  await using engine = open()
  let startLater: (() => Socket) | undefined
  await using way = await openWay((request, pass) => {
    if (!isStart(request)) return 'passed'
    startLater = pass
    return 'kept'
  })
  await using scene = await openBackendScene({ engine: way.engine })
  const assignment = sceneAssignment('sleep 60')
  await expect(scene.start(assignment)).rejects.toMatchObject({ reason: 'container_create' })
  const late = startLater?.()
  expect(late).toBeDefined()
  const [answered] = await once(late ?? new EventEmitter(), 'data')
  expect(String(answered)).toMatch(/^HTTP\/1.1 404 /)
  const labels = [`oz-execution-id=${assignment.execution_id}`]
  expect((await listContainers(engine, { labels })).filter(({ State }) => State === 'running')).toEqual([])
  await scene.backend.remove(assignment.execution_id)
})

test('what an agent told that ended without its worker is delivered, also when its container has been cleared away since', async () => {
  await using engine = open()
  await using scene = await openBackendScene()
  const name = 'acked'
  const assignment = sceneAssignment(`echo 0 > /run/openoz/spool/${name}; sleep 1`)
  const task = await scene.start(assignment)
  await scene.backend.leave({ isAllTold: false })
  const container = namesOf(assignment).container
  await until(async () => (await inspectContainer(engine, container))?.State.Status === 'exited')
  await removeContainer(engine, container)
  await using next = await openBackendScene({ folder: scene.folder })
  const [adopted, ...others] = await next.backend.adopt(() => next.reporter)
  expect(others).toEqual([])
  expect(adopted).toMatchObject({ phase: 'running', refs: { execution_id: assignment.execution_id } })
  const found = await adopted?.task
  expect(found?.place).toBe(task.place)
  expect(await found?.exited).toEqual({ type: 'vanished' })
  await found?.close(undefined)
  expect(readdirSync(join(next.stateDir, 'tasks', assignment.execution_id, 'spool'))).toContain(name)
  await next.backend.remove(assignment.execution_id)
})

const toolsAt = (path: string) => ({
  additional_sidecars: [{ image: imageName('musl'), mount_path: path, read_write: true }],
})

async function leftOf({ execution_id: id }: { execution_id: string }) {
  await using engine = open()
  const labels = [`oz-execution-id=${id}`]
  return [...(await listContainers(engine, { labels })), ...(await listVolumes(engine, { labels }))]
}

test('a cancel ends the unpacking of a sidecar', async () => {
  let isHanging = false
  const stop = new AbortController()
  await using way = await openWay((line) => {
    if (!isHanging || !/^GET \S+\/export /.test(line)) return 'passed'
    stop.abort(new Error('cancelled'))
    return 'hung'
  })
  await using scene = await openBackendScene({ engine: way.engine })
  // Makes what all tasks share.
  const first = sceneAssignment('exit 0')
  await (await scene.start(first)).exited
  await scene.backend.remove(first.execution_id)
  isHanging = true
  const assignment = sceneAssignment('exit 0', toolsAt('/tools'))
  await expect(scene.start(assignment, stop.signal)).rejects.toThrow('cancelled')
  await scene.backend.remove(assignment.execution_id)
  expect(await leftOf(assignment)).toEqual([])
})

test('a start that fails has ended all that it was about: no sidecar is made after it', async () => {
  await using scene = await openBackendScene({ docker: { image_pull_policy: 'Never' } })
  const assignment = sceneAssignment('exit 0', { ...toolsAt('/tools'), docker_image: 'oz-test/none:1' })
  await expect(scene.start(assignment)).rejects.toMatchObject({ reason: 'image_pull' })
  expect(scene.steps.filter((step) => /^sidecars (failed|completed)/.test(step))).toHaveLength(1)
  await scene.backend.remove(assignment.execution_id)
  expect(await leftOf(assignment)).toEqual([])
})

test('a folder that may be mounted when the worker starts, and leads elsewhere when a task does, is not', async () => {
  const folder = mkdtempSync('/tmp/oz-allowed-')
  mkdirSync(join(folder, 'a'))
  const docker = { volumes: [`${folder}/a:/a`], allowed_host_paths: [`${folder}/`] }
  await using scene = await openBackendScene({ docker })
  rmSync(join(folder, 'a'), { recursive: true })
  symlinkSync('/', join(folder, 'a'))
  const assignment = sceneAssignment('exit 0')
  const starting = scene.start(assignment)
  await expect(starting).rejects.toMatchObject({ reason: 'volume_mount', code: 'host_path_not_allowed' })
  await scene.backend.remove(assignment.execution_id)
  rmSync(folder, { recursive: true })
})

test('behind a proxy of this machine a container gets no proxy, and the worker’s way to the control plane', async () => {
  await using scene = await openBackendScene({
    serverUrl: 'http://oz.invalid',
    env: { HTTP_PROXY: 'http://me:word@127.0.0.1:9', NO_PROXY: 'localhost' },
  })
  const assignment = sceneAssignment('echo "<$HTTP_PROXY> <$NO_PROXY>"; ls /run/openoz-server')
  const task = await scene.start(assignment)
  await task.exited
  await task.close(undefined)
  expect(scene.logOf(assignment)).toBe('<> <localhost>\nserver.sock\n')
  await scene.backend.remove(assignment.execution_id)
})
