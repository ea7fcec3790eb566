import { readFileSync, statSync } from 'node:fs'
import { fileURLToPath } from 'node:url'
import { afterAll, beforeAll, expect, inject, type TestContext, test } from 'vitest'
import { buildPostgresImage, type ImageContext, imagesProblem, makeImageContext } from '../support/image-context.ts'
import { until } from '../support/poll.ts'
import { imageName, prepareImages } from '../support/test-images.ts'

/**
 * The images of `images/`, built on a base that has nothing of ours, without a network, and what they are for: a control plane with PostgreSQL by the
 * compose file, a worker by one line, an agent as a job. The model is a script, in a container beside them.
 */
const base = imageName('debian')
const problem = imagesProblem()
const source = fileURLToPath(new URL('../../', import.meta.url))
const modelScript = `
  const { startScriptedModel } = await import('/source/test/support/scripted-model.ts')
  const { handle } = await startScriptedModel({ apiKey: 'sk-test', handler: () => ({ text: 'Done.' }) })
  const { createServer } = await import('node:http')
  createServer(handle).listen(9000)`
/** A control plane that is published on the loopback, at an address where containers reach it: a proxy on the engine's machine. */
const frontScript = `
  const net = await import('node:net')
  net.createServer((client) => {
    const inside = net.connect(4747, '127.0.0.1')
    client.on('error', () => inside.destroy()).pipe(inside)
    inside.on('error', () => client.destroy()).pipe(client)
  }).listen(4748, '0.0.0.0')`
const node = (script: string) => ({
  image: 'openoz-agent',
  entrypoint: ['/agent/bin/node', '--input-type=module', '-e', script],
  command: [],
  volumes: [`${source}:/source:ro`],
})
/** The engine's end of its default network: see `--bip` of the tests' engine. */
const gateway = '10.212.0.1'

/** Each starts containers that start containers, some with 150 MB to be put onto the engine first. */
const patienceMs = 240_000

let context: ImageContext

beforeAll(async () => {
  const engine = inject('dockerEngine')
  if (engine === null || problem !== undefined) return
  await prepareImages(engine, ['debian'])
  context = await makeImageContext({
    agentBundle: inject('agentBundle'),
    dockerHost: engine.env.DOCKER_HOST,
    variables: {
      BASE: base,
      POSTGRES_IMAGE: 'oz-test/postgres:1',
      POSTGRES_PASSWORD: 'correcthorse',
      OPENAI_API_KEY: 'sk-test',
      OPENAI_BASE_URL: 'http://model:9000/v1',
      DOCKER_SOCKET: engine.socket,
    },
    override: {
      services: {
        model: { ...node(modelScript), networks: ['tasks'] },
        front: { ...node(frontScript), network_mode: 'host' },
      },
    },
  })
  const { docker, compose } = context
  await buildPostgresImage(context, { base, tag: 'oz-test/postgres:1' })
  await docker(...build('agent'), '.')
  await docker(...build('worker'), '--build-arg', `SERVER_URL=http://${gateway}:4748`, '.')
  await compose('build', 'server')
  await compose('up', '--detach', 'model', 'front', 'server')
  await healthy('openoz-test_server_1')
}, 300_000)

afterAll(async () => {
  if (!context) return
  await context.compose('--profile', 'worker', 'down', '--volumes', '--timeout', '5')
  context[Symbol.dispose]()
}, 120_000)

const build = (name: string) => [
  'build',
  '--quiet',
  '--file',
  `images/${name}/Dockerfile`,
  '--tag',
  `openoz-${name}`,
  '--build-arg',
  `BASE=${base}`,
]

function skipWithout(test: TestContext): void {
  if (problem === undefined) return
  if (process.env.CI) throw new Error(problem)
  console.error(`NOT TESTED: images: ${problem}`)
  test.skip(problem)
}

async function healthy(container: string): Promise<void> {
  const ask = () => context.docker('inspect', '--format', '{{.State.Status}} {{.State.Health.Status}}', container)
  await until(ask, (said) => said.trim() === 'running healthy', { timeoutMs: 90_000, everyMs: 500 }).catch(
    async (error: Error) => {
      throw new Error(`${error.message}\n${await context.docker('logs', container)}`)
    },
  )
}

/** What there is with a label: other tests use the same engine. */
async function labelled(label: string): Promise<string[]> {
  const kinds = [
    ['ps', '--all'],
    ['volume', 'ls'],
    ['network', 'ls'],
  ]
  const lists = kinds.map((kind) => context.docker(...kind, '--filter', `label=${label}`, '--quiet'))
  return (await Promise.all(lists)).flatMap((text) => text.split('\n').filter((line) => line !== ''))
}

/** The worker has removed what its task was made of, which it does after it has told the end. */
async function tidied(workerId: string, container: string): Promise<void> {
  const left = () => labelled(`oz-worker-id=${workerId}`)
  await until(left, (ids) => ids.length === 0, { timeoutMs: 60_000, everyMs: 300 }).catch(async (error: Error) => {
    throw new Error(`${error.message}\n${await context.docker('logs', container)}`)
  })
}

/** A command in the control plane's container, with its first key. */
const oz = (...args: string[]) => context.docker('exec', 'openoz-test_server_1', 'oz', ...args)

async function makeKey(...args: string[]): Promise<string> {
  const said = await oz('api-key', 'create', ...args, '--no-expiration', '--output-format', 'json')
  return /wk-[\w-]+/.exec(said)?.[0] ?? ''
}

async function runOn(worker: string): Promise<string> {
  const config = JSON.stringify({ environment: { docker_image: base }, idle_timeout_minutes: 0 })
  const script = `printf %s '${config}' >/tmp/run.json && exec oz agent run-cloud -f /tmp/run.json -p 'Say hello.' --host ${worker} --watch --output-format ndjson`
  return await context.docker('exec', 'openoz-test_server_1', 'sh', '-c', script)
}

test('the control plane of the compose file works as nobody in particular, and its container takes commands', async (test) => {
  skipWithout(test)
  expect(await context.docker('exec', 'openoz-test_server_1', 'id', '-u')).toBe('10001\n')
  expect(await oz('model', 'list')).toContain('openai/scripted')
  const settings = await context.docker('inspect', '--format', '{{json .Config}}', 'openoz-test_server_1')
  expect(settings).not.toMatch(/wk-/)
})

test('agent run in a container of the agent image performs a run, and its exit code is the run’s', async (test) => {
  skipWithout(test)
  const key = await makeKey('job', '--scope', 'team')
  const said = await context.docker(
    ...['run', '--rm', '--init', '--network', 'openoz-tasks', '--env', `WARP_API_KEY=${key}`],
    ...['--env', 'WARP_SERVER_ROOT_URL=http://server:4747', 'openoz-agent'],
    ...['agent', 'run', '--prompt', 'Say hello.', '--output-format', 'ndjson'],
  )
  expect(said).toMatch(/"run_finished".*"SUCCEEDED"/)
  const refused = ['run', '--rm', '--network', 'openoz-tasks', '--env', 'WARP_SERVER_ROOT_URL=http://server:4747']
  const wrong = context.docker(...refused, '--env', 'WARP_API_KEY=wk-wrong', 'openoz-agent', 'agent', 'run', '-p', 'x')
  await expect(wrong).rejects.toThrow(/No API key matches/)
})

test('one docker run with the engine’s socket, a key and a name starts a worker that runs tasks', {
  timeout: patienceMs,
}, async (test) => {
  skipWithout(test)
  const key = await makeKey('my-worker', '--scope', 'worker', '--worker-id', 'my-worker')
  const { socket } = inject('dockerEngine') ?? {}
  await context.docker(
    ...['run', '--detach', '--name', 'oz-my-worker', '--volume', `${socket}:/var/run/docker.sock`],
    ...['--env', `WARP_API_KEY=${key}`, 'openoz-worker', '--worker-id', 'my-worker'],
  )
  try {
    await healthy('oz-my-worker')
    expect(await runOn('my-worker')).toContain('SUCCEEDED')
    await tidied('my-worker', 'oz-my-worker')
  } finally {
    await context.docker('rm', '--force', '--volumes', 'oz-my-worker')
  }
})

test('a worker that is not root needs the group of the socket, and no more', { timeout: patienceMs }, async (test) => {
  skipWithout(test)
  const key = await makeKey('nobody', '--scope', 'worker', '--worker-id', 'nobody')
  const { socket = '' } = inject('dockerEngine') ?? {}
  const start = async (name: string, ...flags: string[]) => {
    const fixed = [
      '--volume',
      `${socket}:/var/run/docker.sock`,
      '--env',
      `WARP_API_KEY=${key}`,
      '--env',
      'HOME=/var/lib/oz',
    ]
    const worker = ['openoz-worker', '--worker-id', 'nobody', '--backend', 'docker']
    await context.docker('run', '--detach', '--name', name, '--user', '10001', ...fixed, ...flags, ...worker)
  }
  try {
    await start('oz-refused')
    expect(await context.docker('wait', 'oz-refused')).toBe('1\n')
    await start('oz-nobody', '--group-add', String(statSync(socket).gid))
    await healthy('oz-nobody')
  } finally {
    await context.docker('rm', '--force', '--volumes', 'oz-refused', 'oz-nobody')
  }
})

test('the worker of the compose file runs tasks, and all of it goes without a trace', {
  timeout: patienceMs,
}, async (test) => {
  skipWithout(test)
  const key = await makeKey('compose', '--scope', 'worker', '--worker-id', 'compose')
  context.variables.OZ_WORKER_KEY = key
  await context.compose('--profile', 'worker', 'up', '--detach', 'worker')
  await healthy('openoz-test_worker_1')
  expect(await runOn('compose')).toContain('SUCCEEDED')
  await tidied('compose', 'openoz-test_worker_1')
  expect(await labelled('com.docker.compose.project=openoz-test')).not.toEqual([])
  await context.compose('--profile', 'worker', 'down', '--volumes', '--timeout', '10')
  expect(await labelled('com.docker.compose.project=openoz-test')).toEqual([])
})

test('what an image is made of is only what is built, and what is written for it', () => {
  const ignored = readFileSync(new URL('../../.dockerignore', import.meta.url), 'utf8')
  expect(ignored.split('\n').filter((line) => line !== '' && !line.startsWith('#'))).toEqual(['*', '!dist', '!images'])
})
