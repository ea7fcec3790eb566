import { mkdtempSync, rmSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { AppError } from '@openoz/protocol'
import { pino } from 'pino'
import { afterAll, beforeAll, expect, type TestContext, test } from 'vitest'
import { createContainer, removeContainer } from '../../packages/worker/src/engine/containers.ts'
import type { Engine } from '../../packages/worker/src/engine/engine.ts'
import { createImagePuller, type EnsureOptions } from '../../packages/worker/src/engine/image-pull.ts'
import { importImage, inspectImage, removeImage } from '../../packages/worker/src/engine/images.ts'
import { tarOf } from '../../packages/worker/src/engine/tar-text.ts'
import { engineProblem, startEngine, type TestEngine } from '../support/docker-engine.ts'
import { until } from '../support/poll.ts'
import { type PrivateRegistry, registryProblem, registryUser, startRegistry } from '../support/private-registry.ts'
import { imageName, loadForeignImage, openTestEngine, prepareImages } from '../support/test-images.ts'

const platform = process.arch === 'x64' ? 'linux/amd64' : 'linux/arm64'
const problem = engineProblem() ?? registryProblem()

/** One engine with two registries: one asks for a login. Each test has names of its own in them. */
let machine: TestEngine
let open: PrivateRegistry
let closed: PrivateRegistry
const root = mkdtempSync(join(tmpdir(), 'oz-registry-'))

beforeAll(async () => {
  if (problem !== undefined) return
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

/** An engine to pull with, and what the puller logged. `config`: what `docker login` has left. */
function registryTest(
  name: string,
  body: (scene: Awaited<ReturnType<typeof setScene>>) => Promise<void>,
  timeoutMs?: number,
) {
  test(
    name,
    async (context) => {
      skipWithout(context)
      await using api = openTestEngine(machine)
      await body(await setScene(api))
    },
    timeoutMs,
  )
}

function skipWithout(context: TestContext): void {
  if (problem === undefined) return
  if (process.env.CI) throw new Error(problem)
  console.error(`NOT TESTED: images of registries: ${problem}`)
  context.skip(problem)
}

async function setScene(api: Engine, config: object = {}) {
  const folder = mkdtempSync(join(root, 'docker-'))
  const login = (content: object) => writeFileSync(join(folder, 'config.json'), JSON.stringify(content))
  login(config)
  const lines: string[] = []
  const log = pino({ level: 'debug' }, { write: (line: string) => void lines.push(line) })
  const env = { DOCKER_CONFIG: folder, PATH: `${folder}:${process.env.PATH}` }
  const puller = createImagePuller(api, { env, log, retryDelaysMs: [10, 20, 30] })
  const ensure = (image: string, options: Partial<EnsureOptions> = {}) => puller.ensure(image, { platform, ...options })
  const said = (text: string) => lines.filter((line) => line.includes(`"msg":"${text}`)).length
  return { api, folder, login, ensure, said, lines }
}

const auth = (password = registryUser.password) => ({
  auth: Buffer.from(`${registryUser.username}:${password}`).toString('base64'),
})

/** The code and the message of what is rejected with. */
async function failure(promise: Promise<unknown>): Promise<{ code: string; message: string }> {
  const error = await promise.then(
    () => undefined,
    (thrown: unknown) => thrown,
  )
  if (!(error instanceof AppError)) throw error ?? new Error('it did not fail')
  return { code: error.code, message: error.message }
}

registryTest(
  'a private image needs the operator’s login, and is pulled with it',
  async ({ api, ensure, login, lines }) => {
    const image = `${closed.host}/private/tool:1`
    await closed.push(api, imageName('musl'), image)
    expect(await failure(ensure(image))).toMatchObject({
      code: 'image_login_required',
      message: expect.stringContaining(`\`docker login ${closed.host}\``),
    })
    login({ auths: { [closed.host]: auth('wrong-password') } })
    const wrong = await failure(ensure(image))
    expect(wrong.code).toBe('image_login_required')
    expect(wrong.message).toContain('with the login that this worker has')
    login({ auths: { [`https://${closed.host}/v2/`]: auth() } })
    const pulled = await ensure(image)
    expect(pulled).toMatchObject({ platform, digest: expect.stringMatching(/^sha256:/) })
    expect(pulled.notice).toBeUndefined()
    expect(pulled.id).toBe((await inspectImage(api, imageName('musl')))?.Id)
    expect(JSON.stringify([wrong, lines])).not.toMatch(/wrong-password|registry-password|YWRh/)

    // By its digest, too, and whatever its tag means by then.
    await removeImage(api, image)
    const byDigest = await ensure(`${closed.host}/private/tool@${pulled.digest}`)
    expect(byDigest).toMatchObject({ id: pulled.id, digest: pulled.digest })
  },
)

registryTest(
  'a login may come from a helper; a broken helper counts only where a login is asked for',
  async (scene) => {
    const { api, ensure, login, folder } = scene
    const [secret, free] = [`${closed.host}/helper/tool:1`, `${open.host}/helper/tool:1`]
    await closed.push(api, imageName('musl'), secret)
    await open.push(api, imageName('musl'), free)
    const helper = (script: string) =>
      writeFileSync(join(folder, 'docker-credential-test'), `#!/bin/sh\n${script}\n`, { mode: 0o755 })
    login({ credsStore: 'test' })
    helper('exit 9')
    expect((await ensure(free)).platform).toBe(platform)
    expect(await failure(ensure(secret))).toMatchObject({
      code: 'credential_helper_failed',
      message: expect.stringContaining('exit code 9'),
    })
    helper(`echo '{"Username":"${registryUser.username}","Secret":"${registryUser.password}"}'`)
    expect((await ensure(secret)).platform).toBe(platform)
  },
)

registryTest('what a registry does not have is named', async ({ api, ensure }) => {
  await open.push(api, imageName('musl'), `${open.host}/there/tool:1`)
  for (const image of [`${open.host}/there/tool:2`, `${open.host}/nowhere/tool:1`])
    expect(await failure(ensure(image))).toMatchObject({
      code: 'image_not_found',
      message: expect.stringContaining(image),
    })
  expect((await failure(ensure('Not A Name'))).code).toBe('image_reference_invalid')
})

registryTest('a registry that cannot be reached is tried three times more', async ({ ensure, said }) => {
  const away = await failure(ensure('127.0.0.1:5999/tool:1'))
  expect(away).toMatchObject({ code: 'image_registry_unreachable', message: expect.stringContaining('refused') })
  expect(said('pull failed; trying again')).toBe(3)
  expect((await failure(ensure('nowhere.invalid/tool:1'))).code).toBe('image_registry_unreachable')
})

registryTest(
  'policies: what is there is taken, or asked for anew, or never asked for',
  async ({ api, ensure, said }) => {
    const versioned = `${open.host}/policy/tool:1`
    const latest = `${open.host}/policy/tool`
    await open.push(api, imageName('musl'), versioned)
    await open.push(api, imageName('musl'), `${latest}:latest`)
    expect(await failure(ensure(versioned, { policy: 'Never' }))).toMatchObject({ code: 'image_not_present' })
    await ensure(versioned)
    await ensure(versioned)
    await ensure(versioned, { policy: 'Never' })
    await ensure(versioned, { policy: 'IfNotPresent' })
    expect(said('image pulled')).toBe(1)
    await ensure(versioned, { policy: 'Always' })
    expect(said('image pulled')).toBe(2)
    await ensure(latest)
    await ensure(latest)
    expect(said('image pulled')).toBe(4)
    await ensure(latest, { policy: 'IfNotPresent' })
    expect(said('image pulled')).toBe(4)
  },
)

registryTest('an image without a version that only the engine has is taken, and that is said', async (scene) => {
  const { api, ensure, said } = scene
  for (const repository of ['127.0.0.1:5999/built-here', `${open.host}/built-here`]) {
    const id = await importImage(api, { repository, tag: 'latest', archive: await tarOf([]) })
    const taken = await ensure(repository)
    expect(taken).toMatchObject({
      id,
      digest: undefined,
      notice: expect.stringContaining('as it lies on the worker’s engine'),
    })
    const wanted = await failure(ensure(repository, { policy: 'Always' }))
    expect(wanted.code).toMatch(/image_(registry_unreachable|not_found)/)
  }
  // Only the one that had nothing to fall back on.
  expect(said('pull failed; trying again')).toBe(3)
})

registryTest('an image for another CPU is refused, wherever it lies', async ({ api, ensure }) => {
  const image = `${open.host}/foreign/tool:1`
  await loadForeignImage(machine, imageName('static'), 'oz-test/foreign:1')
  await open.push(api, 'oz-test/foreign:1', image)
  const expected = { code: 'image_wrong_platform', message: expect.stringContaining('linux/arm64') }
  expect(await failure(ensure(image))).toMatchObject(expected)
  expect(await failure(ensure('oz-test/foreign:1', { policy: 'Never' }))).toMatchObject(expected)
  // It is there and could be pulled anew, from where nobody has another.
  expect(await failure(ensure(image, { policy: 'IfNotPresent' }))).toMatchObject(expected)
  // The engine itself refuses only when it is told what is wanted.
  const made = createContainer(api, { Image: image, Cmd: ['/box'] }, { name: 'oz-foreign', platform })
  await expect(made).rejects.toThrow('platform')
  const { Id } = await createContainer(api, { Image: image, Cmd: ['/box'] }, { name: 'oz-foreign' })
  await removeContainer(api, Id)
})

registryTest(
  'an image that arrives damaged is named',
  async ({ api, ensure }) => {
    await using broken = await startRegistry(machine, { port: 5003, hasLogin: false })
    const image = `${broken.host}/broken/tool:1`
    const repository = 'oz-test/for-damage'
    const body = Buffer.from(Array.from({ length: 200_000 }, () => Math.floor(Math.random() * 256)))
    await importImage(api, { repository, tag: '1', archive: await tarOf([{ name: 'random', body }]) })
    await broken.push(api, `${repository}:1`, image)
    await removeImage(api, `${repository}:1`)
    broken.damage()
    expect(await failure(ensure(image))).toMatchObject({ code: 'image_corrupt' })
  },
  120_000,
)

registryTest('one pull serves all who want the image', async ({ api, ensure, said }) => {
  const image = `${open.host}/shared/tool:1`
  await open.push(api, imageName('musl'), image)
  const all = await Promise.all(Array.from({ length: 6 }, () => ensure(image)))
  expect(new Set(all.map(({ id }) => id)).size).toBe(1)
  expect(said('image pulled')).toBe(1)
})

/** A registry that takes connections and says nothing, until it is ended. */
const silent = `require('net').createServer(s => { s.on('error', () => {}); process.stdout.write('dialled') }).listen(5004, '127.0.0.1', () => process.stdout.write('ready'))`

registryTest('whoever goes away leaves the pull to the others; the last one ends it', async ({ ensure, api }) => {
  const child = machine.spawnInside([process.execPath, '-e', silent], { stdio: ['ignore', 'pipe', 'inherit'] })
  let said = ''
  child.stdout?.on('data', (chunk: Buffer) => {
    said += chunk
  })
  try {
    await until(() => said.includes('ready'))
    const image = '127.0.0.1:5004/silent/tool:1'
    const [first, second] = [new AbortController(), new AbortController()]
    const seen: string[] = []
    const onProgress = ({ text }: { text: string }) => seen.push(text)
    const one = ensure(image, { signal: first.signal })
    const other = ensure(image, { signal: second.signal, onProgress }).catch((error: Error) => error)
    await until(() => said.includes('dialled'))
    first.abort(new Error('the first has gone'))
    await expect(one).rejects.toThrow('the first has gone')
    // Nothing has moved, and that is told as well.
    await until(() => seen.length > 0)
    expect(seen[0]).toBe('asking the registry')
    second.abort(new Error('the second has gone'))
    expect(await other).toMatchObject({ message: 'the second has gone' })
    expect(await inspectImage(api, image)).toBeUndefined()
    // A signal that is given late is heeded, too.
    await expect(ensure(image, { signal: second.signal })).rejects.toThrow('the second has gone')
  } finally {
    child.kill()
  }
})

test('an engine without room for an image says so', async (context) => {
  skipWithout(context)
  await using small = await startEngine({ diskMegabytes: 60 })
  await using registry = await startRegistry(small, { port: 5001, hasLogin: false })
  await using api = openTestEngine(small)
  const { ensure } = await setScene(api)
  const image = `${registry.host}/large/tool:1`
  const repository = 'oz-test/large'
  const body = Buffer.alloc(25_000_000)
  for (let at = 0; at < body.length; at += 4) body.writeUInt32LE(Math.floor(Math.random() * 0xffff_ffff), at)
  await importImage(api, { repository, tag: '1', archive: await tarOf([{ name: 'random', body }]) })
  await registry.push(api, `${repository}:1`, image)
  await removeImage(api, `${repository}:1`)
  const filler = small.spawnInside(['dd', 'if=/dev/zero', `of=${small.folder}/data/filler`, 'bs=1M', 'count=25'], {
    stdio: 'ignore',
  })
  await until(() => filler.exitCode !== null)
  expect(await failure(ensure(image))).toMatchObject({ code: 'image_disk_full' })
})
