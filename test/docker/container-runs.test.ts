import { spawn } from 'node:child_process'
import { once } from 'node:events'
import { mkdtempSync, rmSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'
import { expect, inject, test } from 'vitest'
import { createContainer, listContainers, removeContainer } from '../../packages/worker/src/engine/containers.ts'
import { listNetworks } from '../../packages/worker/src/engine/networks.ts'
import { listVolumes } from '../../packages/worker/src/engine/volumes.ts'
import { startControlPlane } from '../support/control-plane.ts'
import { type DockerWorkerOptions, startDockerWorker } from '../support/docker-worker.ts'
import { until } from '../support/poll.ts'
import { type ScriptedStep, startScriptedModel } from '../support/scripted-model.ts'
import { imageName, openTestEngine } from '../support/test-images.ts'
import { programs } from '../support/worker-program.ts'

const openai = (url: string) => ({ OPENAI_API_KEY: 'sk-test', OPENAI_BASE_URL: `${url}/v1` })
const open = () => openTestEngine(inject('dockerEngine') ?? { socket: '' })

/** Everything of a run that is on the engine. */
async function leftOf(runId: string) {
  await using engine = open()
  const labels = [`oz-task-id=${runId}`]
  return {
    containers: (await listContainers(engine, { labels })).map(({ Names }) => Names[0]),
    volumes: (await listVolumes(engine, { labels })).map(({ Name }) => Name),
    networks: (await listNetworks(engine, { labels })).map(({ Name }) => Name),
  }
}

interface RunOptions {
  steps: ScriptedStep[]
  image: string
  worker?: DockerWorkerOptions
}

/** One run from its creation to its end and the removal of its container. */
async function runIn({ steps, image, worker: options }: RunOptions) {
  await using model = await startScriptedModel({ apiKey: 'sk-test', steps })
  await using cp = await startControlPlane({ env: openai(model.url) })
  await using worker = await startDockerWorker(cp, options)
  const runId = await cp.createRun({
    prompt: 'Say hello.',
    config: { environment: { docker_image: image }, worker_host: 'w1', idle_timeout_minutes: 0 },
  })
  await until(() => worker.events.find(({ type }) => type === 'task_ended'), Boolean, { timeoutMs: 60_000 })
  const run = await cp.client.runs.get(runId)
  const events = await cp.eventsOf(runId)
  await until(
    () => leftOf(runId),
    (left) => Object.values(left).flat().length === 0,
    { timeoutMs: 20_000 },
  )
  return { run, events, said: JSON.stringify(model.requests.at(-1)?.body) }
}

test('a run goes through its container to its end, and leaves nothing on the engine', async () => {
  const command = 'id -u; pwd; env | sort; cat from-image; echo hello > hello.txt'
  const { run, events, said } = await runIn({
    image: imageName('musl'),
    steps: [{ toolCalls: [{ name: 'run_command', arguments: { command } }] }, { text: 'Done.' }],
  })
  expect(run).toMatchObject({ state: 'SUCCEEDED' })
  expect(run.status_message?.message).toContain('Done.')
  expect(said).toContain('/workspace')
  expect(said).not.toMatch(/LD_LIBRARY_PATH|NODE_OPTIONS|NODE_PATH|WARP_API_KEY|OZ_EXECUTION_TOKEN_FILE|GIT_EXEC_PATH/)
  const steps = events.flatMap((event) =>
    event.type === 'setup_step' && event.data.status === 'completed' ? [event.data.step] : [],
  )
  expect(steps).toEqual(expect.arrayContaining(['image_pull', 'agent_bundle', 'container', 'start']))
})

test.each([
  ['without a network', { network: 'none' }],
  ['with a root that cannot be written to, and no capability', { read_only_root: true, security: 'strict' }],
] as const)('an agent works %s', async (_, docker) => {
  const { run, said } = await runIn({
    image: imageName('musl'),
    worker: { docker },
    steps: [
      { toolCalls: [{ name: 'run_command', arguments: { command: 'ls /sys/class/net; touch /etc/x || echo no' } }] },
      { text: 'Done.' },
    ],
  })
  expect(run.status_message?.message).toContain('Done.')
  if ('network' in docker) expect(said).not.toContain('eth0')
  else expect(said).toContain('Read-only file system')
})

test('the token of an execution stands nowhere in what the engine tells of its container', async () => {
  await using model = await startScriptedModel({ apiKey: 'sk-test', steps: [{ text: 'Done.', delayMs: 5_000 }] })
  await using cp = await startControlPlane({ env: openai(model.url) })
  await using _worker = await startDockerWorker(cp)
  const runId = await cp.createRun({
    prompt: 'Wait.',
    config: { environment: { docker_image: imageName('musl') }, worker_host: 'w1', idle_timeout_minutes: 0 },
  })
  await until(() => model.requests.length, Boolean, { timeoutMs: 60_000 })
  await using engine = open()
  const [found] = await listContainers(engine, { labels: [`oz-task-id=${runId}`, 'oz-role=task'] })
  const details = await engine.json<object>('GET', `/containers/${found?.Id}/json`)
  // Of our own tokens and keys, each has its prefix.
  expect(JSON.stringify(details)).not.toMatch(/\b(et|wk|jt)-[A-Za-z0-9_-]{16,}/)
  expect(JSON.stringify(details)).not.toContain(cp.adminKey)
})

test('a worker that is started again follows the containers of the one before', async () => {
  // Its way to the control plane is through the worker here: the first answer is cut off with that, and asked for again.
  const steps = [{ text: 'Cut off.', delayMs: 4_000 }, { text: 'Done.' }]
  await using model = await startScriptedModel({ apiKey: 'sk-test', steps })
  await using cp = await startControlPlane({ env: openai(model.url) })
  await using first = await startDockerWorker(cp)
  const runId = await cp.createRun({
    prompt: 'Wait.',
    config: { environment: { docker_image: imageName('musl') }, worker_host: 'w1', idle_timeout_minutes: 0 },
  })
  await until(() => model.requests.length, Boolean, { timeoutMs: 60_000 })
  await first.stop('leave')
  await using second = await startDockerWorker(cp, { folder: first.folder })
  const run = await cp.waitFor(runId, 'SUCCEEDED', 60_000)
  expect(run.status_message?.message).toContain('Done.')
  await until(() => second.events.find(({ type }) => type === 'task_ended'), Boolean, { timeoutMs: 20_000 })
  expect(second.events).toContainEqual(expect.objectContaining({ type: 'task_ended', result: 'succeeded' }))
  await until(
    () => leftOf(runId),
    (left) => Object.values(left).flat().length === 0,
    { timeoutMs: 20_000 },
  )
})

test('`oz-agent-worker --backend docker` is such a worker: the program itself, told by its file and its environment', async () => {
  await using model = await startScriptedModel({ apiKey: 'sk-test', steps: [{ text: 'Done.' }] })
  await using cp = await startControlPlane({ env: openai(model.url) })
  const folder = mkdtempSync('/tmp/oz-dp-')
  const file = join(folder, 'worker.yaml')
  const docker = { state_dir: join(folder, 'state'), bundle: inject('agentBundle'), network: 'none' }
  writeFileSync(file, JSON.stringify({ backend: { docker } }))
  const child = spawn(
    process.execPath,
    [join(programs, 'oz-agent-worker.mjs'), '--config-file', file, '--worker-id', 'w1', '--drain', 'stop'],
    {
      env: {
        PATH: process.env.PATH,
        HOME: folder,
        WARP_API_KEY: cp.adminKey,
        OZ_SERVER_URL: cp.url,
        ...inject('dockerEngine')?.env,
      },
      stdio: 'ignore',
    },
  )
  try {
    const runId = await cp.createRun({
      prompt: 'Say hello.',
      config: { environment: { docker_image: imageName('musl') }, worker_host: 'w1', idle_timeout_minutes: 0 },
    })
    await cp.waitFor(runId, 'SUCCEEDED', 60_000)
    await until(
      () => leftOf(runId),
      (left) => Object.values(left).flat().length === 0,
      { timeoutMs: 20_000 },
    )
  } finally {
    child.kill('SIGTERM')
    await once(child, 'exit')
    rmSync(folder, { recursive: true, force: true })
  }
  expect(child.exitCode).toBe(0)
})

test('an image’s own user, by its name, owns what is the task’s; folders that it declares are volumes that go with the task', async () => {
  await using engine = open()
  const { Id: base } = await createContainer(
    engine,
    { Image: imageName('musl'), Cmd: ['/none'] },
    { name: 'oz-test-commit' },
  )
  const changes = ['USER ada', 'VOLUME /data', 'ENV NODE_OPTIONS=--no-such-option LD_PRELOAD=/none.so'].join('\n')
  await engine.json('POST', '/commit', { query: { container: base, repo: 'oz-test/ada', tag: '1', changes } })
  await removeContainer(engine, base)
  const command = 'id -u; touch file && ls -ld /workspace; env; ls -d /data'
  const { run, said } = await runIn({
    image: 'oz-test/ada:1',
    steps: [{ toolCalls: [{ name: 'run_command', arguments: { command } }] }, { text: 'Done.' }],
  })
  expect(run.status_message?.message).toContain('Done.')
  expect(said).toMatch(/1234/)
  // The image's own variables are its tools', and did not change the agent.
  expect(said).toContain('NODE_OPTIONS=--no-such-option')
})
