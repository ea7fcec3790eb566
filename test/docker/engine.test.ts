import { execFileSync } from 'node:child_process'
import { randomUUID } from 'node:crypto'
import { Readable } from 'node:stream'
import { expect, inject, test } from 'vitest'
import {
  type ContainerSpec,
  createContainer,
  getArchive,
  inspectContainer,
  killContainer,
  listContainers,
  logsTail,
  putArchive,
  removeContainer,
  startContainer,
} from '../../packages/worker/src/engine/containers.ts'
import type { Engine } from '../../packages/worker/src/engine/engine.ts'
import { checkEngine } from '../../packages/worker/src/engine/engine-check.ts'
import { type EngineEvent, followEvents } from '../../packages/worker/src/engine/engine-events.ts'
import { isConflict } from '../../packages/worker/src/engine/engine-failure.ts'
import { importImage, inspectImage, removeImage } from '../../packages/worker/src/engine/images.ts'
import {
  createNetwork,
  inspectNetwork,
  listNetworks,
  removeNetwork,
} from '../../packages/worker/src/engine/networks.ts'
import { readTar, tarOf } from '../../packages/worker/src/engine/tar-text.ts'
import { createVolume, inspectVolume, listVolumes, removeVolume } from '../../packages/worker/src/engine/volumes.ts'
import { startEngine } from '../support/docker-engine.ts'
import { until } from '../support/poll.ts'
import { imageName, objectsOf, openTestEngine, prepareImages } from '../support/test-images.ts'

const open = () => openTestEngine(inject('dockerEngine') ?? { socket: '' })

/** A container that goes with the test, and a label of its own. */
async function container(engine: Engine, spec: Partial<ContainerSpec>, platform?: string) {
  const name = `oz-test-${randomUUID()}`
  const label = `oz-test=${name}`
  const HostConfig = { NetworkMode: 'none', ...spec.HostConfig }
  const body = { Image: imageName('musl'), Cmd: ['/bin/true'], Labels: { 'oz-test': name }, ...spec, HostConfig }
  const { Id } = await createContainer(engine, body, { name, platform })
  return { id: Id, name, label, [Symbol.asyncDispose]: () => removeContainer(engine, Id) }
}

async function ended(engine: Engine, id: string) {
  const details = await until(
    () => inspectContainer(engine, id),
    (found) => found?.State.Status === 'exited',
    { timeoutMs: 20_000 },
  )
  return details?.State
}

test('an engine says what it is', async () => {
  await using engine = open()
  const machine = process.arch === 'x64' ? 'linux/amd64' : 'linux/arm64'
  const facts = await checkEngine(engine)
  expect(facts).toMatchObject({
    platform: machine,
    isRootless: false,
    hasUserns: false,
    liveRestore: false,
    isLocal: true,
  })
  expect(facts.runtimes).toContain('runc')
  expect(facts.version).toMatch(/^\d+\.\d+/)
  expect(facts.cpus).toBeGreaterThan(0)
  expect(facts.memoryBytes).toBeGreaterThan(1e8)
})

test('a container is made, filled, started, followed, read and removed', async () => {
  await using engine = open()
  await using made = await container(engine, {
    Cmd: ['/bin/sh', '-c', 'cat /box/token; ls -ldn /box | cut -c1-30; echo done >/box/answer; echo oops >&2; exit 7'],
    User: '1234:1234',
    Volumes: { '/box': {} },
  })
  const events: EngineEvent[] = []
  const stop = new AbortController()
  const isFollowing = Promise.withResolvers<void>()
  const observer = {
    event: (event: EngineEvent) => events.push(event),
    broken: () => {},
    restored: isFollowing.resolve,
  }
  const following = followEvents(engine, { labels: [made.label], types: ['container'] }, observer, stop.signal)
  await isFollowing.promise

  // Above the mount, so that its own owner and mode are set as well.
  const archive = await tarOf([
    { name: 'box', type: 'directory', mode: 0o700, uid: 1234, gid: 1234 },
    { name: 'box/token', mode: 0o600, uid: 1234, gid: 1234, body: 'secret\n' },
  ])
  await putArchive(engine, made.id, { path: '/', archive })
  await startContainer(engine, made.id)
  expect(await ended(engine, made.id)).toMatchObject({ ExitCode: 7, OOMKilled: false, Running: false })
  const output = await logsTail(engine, made.id, { maxBytes: 10_000 })
  // Its two outputs come to the engine by two ways, so their order is not always that of the writing.
  expect(output).toContain('secret\n')
  expect(output).toMatch(/drwx------ .*1234/)
  expect(output).toContain('oops\n')
  expect(await filesIn(engine, made.id, '/box/answer')).toEqual({ answer: 'done\n' })

  await until(() => events.some(({ Action }) => Action === 'die'))
  const life = events.filter(({ Action }) => Action === 'start' || Action === 'die')
  expect(life.map(({ Action }) => Action)).toEqual(['start', 'die'])
  expect(life[1]?.Actor).toMatchObject({ ID: made.id, Attributes: { exitCode: '7', 'oz-test': made.name } })
  stop.abort()
  await following

  const [listed, ...more] = await listContainers(engine, { labels: [made.label] })
  expect(more).toEqual([])
  expect(listed).toMatchObject({ Id: made.id, State: 'exited', Labels: { 'oz-test': made.name } })
  await removeContainer(engine, made.id)
  expect(await inspectContainer(engine, made.id)).toBeUndefined()
  expect(await listContainers(engine, { labels: [made.label] })).toEqual([])
})

async function filesIn(engine: Engine, id: string, path: string): Promise<Record<string, string> | undefined> {
  const stream = await getArchive(engine, id, { path })
  if (stream === undefined) return undefined
  const files: Record<string, string> = {}
  for await (const { name, type, body } of readTar(stream, { maxBytes: 1e6, maxEntries: 100 }))
    if (type === 'file') {
      files[name] = ''
      for await (const chunk of body) files[name] += chunk
    }
  return files
}

test('what is not there is no error, and neither is what was done already', async () => {
  await using engine = open()
  expect(await inspectContainer(engine, 'oz-nobody')).toBeUndefined()
  expect(await getArchive(engine, 'oz-nobody', { path: '/' })).toBeUndefined()
  expect(await logsTail(engine, 'oz-nobody', { maxBytes: 100 })).toBe('')
  expect(await killContainer(engine, 'oz-nobody')).toBe(false)
  expect(await inspectVolume(engine, 'oz-nobody')).toBeUndefined()
  expect(await inspectNetwork(engine, 'oz-nobody')).toBeUndefined()
  expect(await inspectImage(engine, 'oz-nobody')).toBeUndefined()
  await removeContainer(engine, 'oz-nobody')
  await removeVolume(engine, 'oz-nobody')
  await removeNetwork(engine, 'oz-nobody')
  await removeImage(engine, 'oz-nobody')

  await using made = await container(engine, { Cmd: ['/bin/sleep', '60'] })
  expect(await killContainer(engine, made.id)).toBe(false)
  expect(await getArchive(engine, made.id, { path: '/nowhere' })).toBeUndefined()
  await startContainer(engine, made.id)
  await startContainer(engine, made.id)
  expect(await killContainer(engine, made.id)).toBe(true)
  expect(await ended(engine, made.id)).toMatchObject({ ExitCode: 137, OOMKilled: false })
})

test('the name of a container is a lock: the second to make it is told', async () => {
  await using engine = open()
  await using made = await container(engine, { Cmd: ['/bin/sleep', '60'] })
  const again = createContainer(engine, { Image: imageName('musl'), Cmd: ['/bin/true'] }, { name: made.name })
  await expect(again).rejects.toSatisfy(isConflict)
})

test('a container that several remove at once is gone for each of them', async () => {
  await using engine = open()
  await using made = await container(engine, { Cmd: ['/bin/sleep', '60'] })
  await startContainer(engine, made.id)
  await Promise.all([1, 2, 3].map(() => removeContainer(engine, made.id)))
  expect(await inspectContainer(engine, made.id)).toBeUndefined()
})

test('what cannot be started, or is for another CPU, is said in the engine’s words', async () => {
  await using engine = open()
  await using made = await container(engine, { Cmd: ['/no/such/program'] })
  await expect(startContainer(engine, made.id)).rejects.toThrow(/answered 400: .*no such file/)
  expect((await inspectContainer(engine, made.id))?.State).toMatchObject({ Status: 'created', ExitCode: 127 })
  await expect(container(engine, {}, 'linux/s390x')).rejects.toThrow(/answered 404: .*platform/)
})

test('an archive for a container that is not there is refused with the reason, however long it is', async () => {
  await using engine = open()
  let sent = 0
  async function* large() {
    for (; sent < 50_000_000; sent += 100_000) yield Buffer.alloc(100_000)
  }
  const putting = putArchive(engine, 'oz-nobody', { path: '/', archive: Readable.from(large()) })
  await expect(putting).rejects.toThrow(/answered 404: .*oz-nobody/)
  expect(sent).toBeLessThan(1_000_000)
})

test('an archive as a stream arrives whole', async () => {
  await using engine = open()
  await using made = await container(engine, { Cmd: ['/bin/sha256sum', '/large'] })
  const body = Buffer.alloc(8_000_000, 'openoz')
  await putArchive(engine, made.id, {
    path: '/',
    archive: Readable.from(pieces(await tarOf([{ name: 'large', body }]))),
  })
  await startContainer(engine, made.id)
  await ended(engine, made.id)
  const expected = execFileSync('sha256sum', { input: body }).toString().split(' ')[0]
  expect(await logsTail(engine, made.id, { maxBytes: 1_000 })).toContain(expected)
})

function* pieces(buffer: Buffer) {
  for (let at = 0; at < buffer.length; at += 60_000) yield buffer.subarray(at, at + 60_000)
}

test('of a long output only the end is kept', async () => {
  await using engine = open()
  const script = 'i=0; while [ $i -lt 20000 ]; do echo "line $i"; i=$((i+1)); done; echo last'
  await using made = await container(engine, { Cmd: ['/bin/sh', '-c', script] })
  await startContainer(engine, made.id)
  await ended(engine, made.id)
  const tail = await logsTail(engine, made.id, { maxBytes: 5_000 })
  expect(tail).toHaveLength(5_000)
  expect(tail).toMatch(/line 19998\nline 19999\nlast\n$/)
})

test('volumes and networks are found by their labels, and stay while they are used', async () => {
  await using engine = open()
  const name = `oz-test-${randomUUID()}`
  const labels = { 'oz-test': name }
  const filter = [`oz-test=${name}`]
  await createVolume(engine, { name, labels })
  const { Id } = await createNetwork(engine, { name, labels })
  try {
    await expect(createNetwork(engine, { name, labels })).rejects.toThrow('already exists')
    expect(await inspectVolume(engine, name)).toMatchObject({ Name: name, Labels: labels })
    expect((await listVolumes(engine, { labels: filter, dangling: true })).map(({ Name }) => Name)).toEqual([name])
    expect((await listNetworks(engine, { labels: filter })).map((network) => network.Id)).toEqual([Id])
    const Mounts = [{ Type: 'volume' as const, Source: name, Target: '/box' }]
    await using made = await container(engine, { Cmd: ['/bin/sleep', '60'], HostConfig: { Mounts, NetworkMode: name } })
    await startContainer(engine, made.id)
    await expect(removeVolume(engine, name)).rejects.toThrow(/answered 409: .*in use/)
    await expect(removeNetwork(engine, name)).rejects.toThrow(/answered 403: .*active endpoints/)
    expect(await listVolumes(engine, { labels: filter, dangling: true })).toEqual([])
  } finally {
    await removeNetwork(engine, name)
    await removeVolume(engine, name)
  }
  expect(await listVolumes(engine, { labels: filter })).toEqual([])
  expect(await listNetworks(engine, { labels: filter })).toEqual([])
})

test('an image is made of an archive, with labels', async () => {
  await using engine = open()
  const repository = `oz-test/${randomUUID()}`
  const labels = { 'oz-test': 'a "b" c', other: '' }
  const id = await importImage(engine, { repository, tag: '1', archive: await tarOf([]), labels })
  expect(await inspectImage(engine, `${repository}:1`)).toMatchObject({
    Id: id,
    Os: 'linux',
    Config: { Labels: labels },
  })
  await removeImage(engine, `${repository}:1`)
  expect(await inspectImage(engine, id)).toBeUndefined()
  await expect(
    importImage(engine, { repository, tag: '1', archive: Buffer.alloc(2_000, 'no archive ') }),
  ).rejects.toThrow('Docker engine, POST /images/create')
})

test('a call ends with the reason of its signal', async () => {
  await using engine = open()
  await using made = await container(engine, { Cmd: ['/bin/sleep', '60'] })
  await startContainer(engine, made.id)
  const stop = new AbortController()
  const waiting = engine.json('POST', `/containers/${made.id}/wait`, { signal: stop.signal })
  const events = await engine.stream('GET', '/events', { signal: stop.signal })
  const reading = (async () => {
    for await (const _ of events);
  })()
  stop.abort(new Error('enough'))
  await expect(waiting).rejects.toThrow('enough')
  await expect(reading).rejects.toThrow('enough')
  await expect(engine.json('GET', '/info', { signal: stop.signal })).rejects.toThrow('enough')
})

test('an engine that dies and comes back is followed again, and what ran goes on', async () => {
  await using machine = await startEngine({ liveRestore: true })
  await prepareImages(machine, ['musl'])
  await using engine = openTestEngine(machine)
  await using made = await container(engine, { Cmd: ['/bin/sleep', '60'] })
  await startContainer(engine, made.id)
  const told: string[] = []
  const stop = new AbortController()
  const observer = {
    event: ({ Action }: EngineEvent) => told.push(Action),
    broken: () => told.push('broken'),
    restored: () => told.push('restored'),
  }
  const following = followEvents(engine, { labels: [made.label], types: ['container'] }, observer, stop.signal)
  await until(() => told.includes('restored'))
  await machine.kill()
  await until(() => told.includes('broken'))
  await expect(inspectContainer(engine, made.id)).rejects.toThrow('no answer')
  await machine.start()
  await until(() => told.filter((word) => word === 'restored').length === 2)
  expect((await inspectContainer(engine, made.id))?.State.Status).toBe('running')
  await killContainer(engine, made.id)
  await until(() => told.includes('die'))
  // However often it has tried in vain.
  expect(told).toEqual(['restored', 'broken', 'restored', 'kill', 'die'])
  stop.abort()
  await following
  expect(await objectsOf(machine)).toEqual([`container ${made.name}`])
  await removeContainer(engine, made.id)
  expect(await objectsOf(machine)).toEqual([])
})
