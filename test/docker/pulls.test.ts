import { mkdtempSync, rmSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import type { CreateRunRequest } from '@openoz/protocol'
import { afterAll, beforeAll, expect, inject, type TestContext, test } from 'vitest'
import { importImage, removeImage } from '../../packages/worker/src/engine/images.ts'
import { tarOf } from '../../packages/worker/src/engine/tar-text.ts'
import { startControlPlane } from '../support/control-plane.ts'
import { makeSceneAgent, sceneAgent } from '../support/docker-backend.ts'
import { startEngine, type TestEngine } from '../support/docker-engine.ts'
import { endOf, startModelOf, untilNothingIsLeft } from '../support/docker-runs.ts'
import { startDockerWorker } from '../support/docker-worker.ts'
import { until } from '../support/poll.ts'
import { type PrivateRegistry, registryProblem, registryUser, startRegistry } from '../support/private-registry.ts'
import { imageName, loadForeignImage, openTestEngine, prepareImages } from '../support/test-images.ts'

/** Images of runs and of their sidecars, from a registry to the end of the run. What the puller itself does is in registry.test.ts. */

let machine: TestEngine
/** Asks for a login. */
let closed: PrivateRegistry
let open: PrivateRegistry
const root = mkdtempSync(join(tmpdir(), 'oz-pulls-'))
const isPossible = () => inject('dockerEngine') !== null && registryProblem() === undefined

beforeAll(async () => {
  if (!isPossible()) return
  machine = await startEngine()
  await prepareImages(machine, ['musl', 'static'])
  open = await startRegistry(machine, { port: 5001, hasLogin: false })
  closed = await startRegistry(machine, { port: 5002, hasLogin: true })
})
afterAll(async () => {
  await open?.[Symbol.asyncDispose]()
  await closed?.[Symbol.asyncDispose]()
  await machine?.[Symbol.asyncDispose]()
  rmSync(root, { recursive: true })
})

function skipWithout(context: TestContext): void {
  const problem = registryProblem()
  if (problem === undefined) return
  if (process.env.CI) throw new Error(problem)
  console.error(`NOT TESTED: ${context.task.name}: ${problem}`)
  context.skip(problem)
}

type RunConfig = NonNullable<CreateRunRequest['config']>

const runOf = (prompt: string, workerId: string, image: string, config: RunConfig = {}) => ({
  prompt,
  config: { environment: { docker_image: image }, worker_host: workerId, idle_timeout_minutes: 0, ...config },
})

/** What an operator's `docker login` leaves; a helper of theirs lies beside it. */
function loginOf(config: object, helper?: string): NodeJS.ProcessEnv {
  const folder = mkdtempSync(join(root, 'docker-'))
  writeFileSync(join(folder, 'config.json'), JSON.stringify(config))
  if (helper !== undefined)
    writeFileSync(join(folder, 'docker-credential-test'), `#!/bin/sh\n${helper}\n`, { mode: 0o755 })
  return { ...machine.env, DOCKER_CONFIG: folder, PATH: `${folder}:${process.env.PATH}` }
}

/** An image with one file, in a registry only. */
async function pushFile(registry: PrivateRegistry, name: string, file: { name: string; body: string | Buffer }) {
  await using api = openTestEngine(machine)
  const repository = 'oz-test/pushed'
  await importImage(api, { repository, tag: '1', archive: await tarOf([file]) })
  await registry.push(api, `${repository}:1`, name)
  await removeImage(api, `${repository}:1`)
}

const imagePull = { state: 'FAILED', code: 'environment_setup_failed', reason: 'image_pull' }

test('private images of tasks and of sidecars are pulled with the logins of the worker; without one the run says so', async (context) => {
  skipWithout(context)
  const { username, password } = registryUser
  const auth = Buffer.from(`${username}:${password}`).toString('base64')
  const logins = {
    bare: loginOf({}),
    known: loginOf({ auths: { [closed.host]: { auth } } }),
    helped: loginOf(
      { credHelpers: { [closed.host]: 'test' } },
      `echo '{"Username":"${username}","Secret":"${password}"}'`,
    ),
    broken: loginOf({ credsStore: 'test' }, 'exit 9'),
  }
  const names = ['bare', 'known', 'helped', 'broken'] as const
  const taskImage = (name: string) => `${closed.host}/${name}/task:1`
  const sidecar = (name: string) => ({
    additional_sidecars: [{ image: `${closed.host}/${name}/side:1`, mount_path: '/tools' }],
  })
  {
    await using api = openTestEngine(machine)
    for (const name of names) {
      await closed.push(api, imageName('musl'), taskImage(name))
      await pushFile(closed, `${closed.host}/${name}/side:1`, { name: 'tool', body: `the tool of ${name}\n` })
    }
  }
  const look = [{ toolCalls: [{ name: 'run_command', arguments: { command: 'cat /tools/tool' } }] }, { text: 'Done.' }]
  await using model = await startModelOf({ 'known run': look, 'helped run': look })
  await using cp = await startControlPlane({ env: model.env })
  await using workers = new AsyncDisposableStack()
  for (const workerId of names) workers.use(await startDockerWorker(cp, { workerId, env: logins[workerId] }))
  const start = (name: string, image = taskImage(name)) =>
    cp.createRun(runOf(`${name} run`, name, image, sidecar(name)))
  const runIds = await Promise.all(names.map((name) => start(name)))
  const besides = await start('bare', imageName('musl'))
  const [bare, known, helped, broken, side] = await Promise.all([...runIds, besides].map((id) => endOf(cp, id)))

  const asked = new RegExp(
    `registry ${closed.host} does not give the image .*without a login.*docker login ${closed.host}`,
  )
  for (const end of [bare, side]) expect(end).toEqual({ ...imagePull, message: expect.stringMatching(asked) })
  expect(side?.message).toContain('bare/side:1')
  expect(broken).toEqual({
    ...imagePull,
    message: expect.stringMatching(/helper docker-credential-test .*exit code 9/),
  })
  for (const [end, name] of [
    [known, 'known'],
    [helped, 'helped'],
  ] as const) {
    expect(end).toMatchObject({ state: 'SUCCEEDED' })
    expect(model.askedBy(`${name} run`).at(-1)).toContain(`the tool of ${name}`)
  }
  for (const id of [...runIds, besides]) {
    expect(JSON.stringify(await cp.eventsOf(id))).not.toMatch(new RegExp(`${password}|${auth}`))
  }
  await untilNothingIsLeft(machine, [...runIds, besides])
})

test('what a registry does not give ends the run with what it is and what to do', async (context) => {
  skipWithout(context)
  await using broken = await startRegistry(machine, { port: 5003, hasLogin: false })
  const [there, foreign] = [`${open.host}/there/tool`, `${open.host}/foreign/tool:1`]
  await loadForeignImage(machine, imageName('static'), 'oz-test/foreign:1')
  {
    await using api = openTestEngine(machine)
    await open.push(api, imageName('musl'), `${there}:1`)
    await open.push(api, 'oz-test/foreign:1', foreign)
  }
  const damaged = `${broken.host}/damaged/tool:1`
  await pushFile(broken, damaged, { name: 'random', body: randomBytes(200_000) })
  broken.damage()

  const cases: [image: string, end: object][] = [
    [
      `${there}:2`,
      { ...imagePull, message: expect.stringMatching(/There is no image .*there\/tool:2 at .*`docker pull/) },
    ],
    [
      '127.0.0.1:5999/away/tool:1',
      { ...imagePull, message: expect.stringMatching(/registry 127\.0\.0\.1:5999 .*cannot be reached.*refused/) },
    ],
    [
      foreign,
      {
        ...{ ...imagePull, reason: 'invalid_image' },
        message: expect.stringMatching(/is for linux\/arm64, and the engine runs linux\/amd64.*`docker buildx build/),
      },
    ],
    [damaged, { ...imagePull, message: expect.stringMatching(/arrived damaged from .*Push it again/) }],
  ]
  await using model = await startModelOf()
  await using cp = await startControlPlane({ env: model.env })
  await using _worker = await startDockerWorker(cp, { env: machine.env })
  const runIds = await Promise.all(cases.map(([image]) => cp.createRun(runOf(image, 'w1', image))))
  const ends = await Promise.all(runIds.map(async (id, index) => [cases[index]?.[0], await endOf(cp, id)]))
  expect(ends).toEqual(cases)
  await untilNothingIsLeft(machine, runIds)
})

function randomBytes(length: number): Buffer {
  return Buffer.from(Array.from({ length }, () => Math.floor(Math.random() * 256)))
}

/** A way to a registry with so many bytes per second and connection. */
const slowWay = `
const net = require('node:net')
net.createServer((client) => {
  const registry = net.connect(5001, '127.0.0.1')
  client.on('error', () => registry.destroy()).pipe(registry)
  registry.on('error', () => client.destroy())
  registry.on('end', () => client.end())
  registry.on('data', (chunk) => {
    client.write(chunk)
    registry.pause()
    setTimeout(() => registry.resume(), chunk.length / 600)
  })
}).listen(5004, '127.0.0.1', () => console.log('ready'))`

test('how far a pull is stands in the run’s log, of sidecars too', async (context) => {
  skipWithout(context)
  const [task, side] = ['slow/task:1', 'slow/side:1']
  for (const name of [task, side])
    await pushFile(open, `${open.host}/${name}`, { name: 'x', body: randomBytes(3_000_000) })
  const way = machine.spawnInside([process.execPath, '-e', slowWay], { stdio: ['ignore', 'pipe', 'inherit'] })
  try {
    await new Promise((resolve) => way.stdout?.once('data', resolve))
    await using model = await startModelOf()
    await using cp = await startControlPlane({ env: model.env })
    await using _worker = await startDockerWorker(cp, { env: machine.env })
    const additional_sidecars = [{ image: `127.0.0.1:5004/${side}`, mount_path: '/side' }]
    const runId = await cp.createRun(runOf('a slow one', 'w1', `127.0.0.1:5004/${task}`, { additional_sidecars }))
    expect(await endOf(cp, runId)).toMatchObject({ state: 'SUCCEEDED' })
    const steps = (await cp.eventsOf(runId)).flatMap(({ type, data }) => (type === 'setup_step' ? [data] : []))
    for (const step of ['image_pull', 'sidecars']) {
      const told = steps.filter((one) => one.step === step)
      expect(told.map(({ status }) => status)).toEqual(expect.arrayContaining(['started', 'progress', 'completed']))
      expect(told).toContainEqual(
        expect.objectContaining({
          status: 'progress',
          detail: expect.stringContaining('downloading, 0 of 1 layers are here'),
          progress: { current: expect.any(Number), total: expect.any(Number), unit: 'bytes' },
        }),
      )
    }
    await untilNothingIsLeft(machine, [runId])
  } finally {
    way.kill()
    await until(() => way.exitCode !== null || way.signalCode !== null)
  }
})

test('an engine whose disk is full ends the run with that', async (context) => {
  skipWithout(context)
  await using small = await startEngine({ diskMegabytes: 60 })
  await using registry = await startRegistry(small, { port: 5001, hasLogin: false })
  await prepareImages(small, ['musl'])
  await makeSceneAgent(small)
  const image = `${registry.host}/large/tool:1`
  {
    await using api = openTestEngine(small)
    const archive = await tarOf([{ name: 'random', body: randomBytes(25_000_000) }])
    await importImage(api, { repository: 'oz-test/large', tag: '1', archive })
    await registry.push(api, 'oz-test/large:1', image)
    await removeImage(api, 'oz-test/large:1')
  }
  const filler = small.spawnInside(['dd', 'if=/dev/zero', `of=${small.folder}/data/filler`, 'bs=1M', 'count=25'], {
    stdio: 'ignore',
  })
  await until(() => filler.exitCode !== null)
  await using model = await startModelOf()
  await using cp = await startControlPlane({ env: model.env })
  await using _light = await startDockerWorker(cp, { env: small.env, docker: { sidecar_image: sceneAgent } })
  await using _heavy = await startDockerWorker(cp, { env: small.env, workerId: 'heavy' })
  const pulled = await cp.createRun(runOf('pulled', 'w1', image))
  const filled = await cp.createRun({ ...runOf('filled', 'heavy', imageName('musl')), retry: { max_attempts: 1 } })
  expect(await endOf(cp, pulled)).toEqual({
    ...imagePull,
    message: expect.stringMatching(
      /disk of the engine is full; the image .*large\/tool:1 does not fit.*`docker system df`/,
    ),
  })
  // The agent itself has to find room there once.
  expect(await endOf(cp, filled)).toEqual({
    ...{ state: 'ERROR', code: 'internal_error', reason: 'container_create' },
    message: expect.stringMatching(
      /disk of the Docker engine at .* is full: .*no space left on device\. .*`docker system df`/,
    ),
  })
  await untilNothingIsLeft(small, [pulled, filled])
})
