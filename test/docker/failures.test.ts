import { spawn } from 'node:child_process'
import { once } from 'node:events'
import { chownSync, mkdtempSync, rmSync } from 'node:fs'
import { createServer } from 'node:http'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import type { CreateRunRequest } from '@openoz/protocol'
import { expect, inject, test } from 'vitest'
import { killContainer, listContainers, removeContainer } from '../../packages/worker/src/engine/containers.ts'
import { createNetwork, removeNetwork } from '../../packages/worker/src/engine/networks.ts'
import { removeVolume } from '../../packages/worker/src/engine/volumes.ts'
import { startControlPlane } from '../support/control-plane.ts'
import { startEngine } from '../support/docker-engine.ts'
import { endOf, leftOf, startModelOf, untilNothingIsLeft } from '../support/docker-runs.ts'
import { startDockerWorker } from '../support/docker-worker.ts'
import { until } from '../support/poll.ts'
import { imageName, objectsOf, openTestEngine, prepareImages } from '../support/test-images.ts'
import { programs } from '../support/worker-program.ts'

/** Failures as people meet them: a run that ends, or a worker that does not start, each with what it is and what to do. */

const engineOfAll = () => inject('dockerEngine') ?? { socket: '' }

type RunConfig = NonNullable<CreateRunRequest['config']>

/** One attempt, where a test is not about the next one. */
function runOf(prompt: string, config: RunConfig = {}, retry: 'once' | 'as usual' = 'once'): Partial<CreateRunRequest> {
  const environment = { docker_image: imageName('musl'), ...config.environment }
  return {
    prompt,
    config: { worker_host: 'w1', idle_timeout_minutes: 0, ...config, environment },
    ...(retry === 'once' && { retry: { max_attempts: 1 } }),
  }
}

const untilAnswered = { timeoutMs: 60_000, everyMs: 50 }

test('what keeps a container from being made ends the run with what it is and what to do, and leaves nothing', async () => {
  const cases: [name: string, config: RunConfig, end: object][] = [
    [
      'a sidecar on the workspace',
      { additional_sidecars: [{ image: imageName('empty'), mount_path: '/workspace' }] },
      {
        ...{ state: 'ERROR', code: 'internal_error', reason: 'sidecar_prep' },
        message: expect.stringMatching(/cannot be mounted at \/workspace: .*Choose an absolute path/),
      },
    ],
    [
      'more memory than there is',
      { instance_shape: { vcpus: 1, memory_gb: 60_000 } },
      {
        ...{ state: 'FAILED', code: 'resource_unavailable', reason: 'unschedulable' },
        message: expect.stringMatching(
          /wants 1 CPUs and 60000 GB of memory, and the engine of worker w1 has .*Ask for less/,
        ),
      },
    ],
    [
      'a name that is none',
      { environment: { docker_image: 'UPPER:1' } },
      {
        ...{ state: 'FAILED', code: 'environment_setup_failed', reason: 'invalid_image' },
        message: expect.stringMatching(/UPPER:1 is not the name of an image.*as for `docker pull`/),
      },
    ],
    [
      'an image that the operator has not put there',
      { environment: { docker_image: 'oz-test/nowhere:1' }, worker_host: 'careful' },
      {
        ...{ state: 'FAILED', code: 'environment_setup_failed', reason: 'image_pull' },
        message: expect.stringMatching(/oz-test\/nowhere:1 is not on the engine.*Never.*`docker pull/),
      },
    ],
    [
      'a sidecar that the operator has not put there',
      { additional_sidecars: [{ image: 'oz-test/nowhere:2', mount_path: '/x' }], worker_host: 'careful' },
      {
        ...{ state: 'FAILED', code: 'environment_setup_failed', reason: 'image_pull' },
        message: expect.stringContaining('oz-test/nowhere:2 is not on the engine'),
      },
    ],
    [
      'a folder of the worker that is not there',
      { worker_host: 'mounting' },
      {
        ...{ state: 'FAILED', code: 'environment_setup_failed', reason: 'volume_mount' },
        message: expect.stringMatching(/folder \/nonexistent\/oz .*does not exist on the engine’s machine.*Create it/),
      },
    ],
    [
      'setup commands without a shell',
      { environment: { docker_image: imageName('static'), setup_commands: ['true'] } },
      {
        ...{ state: 'FAILED', code: 'environment_setup_failed', reason: 'shell_missing' },
        message: expect.stringMatching(/shell/),
      },
    ],
  ]
  await using model = await startModelOf()
  await using cp = await startControlPlane({ env: model.env })
  await using _plain = await startDockerWorker(cp)
  await using _careful = await startDockerWorker(cp, { workerId: 'careful', docker: { image_pull_policy: 'Never' } })
  const volumes = ['/nonexistent/oz:/x']
  await using _mounting = await startDockerWorker(cp, { workerId: 'mounting', docker: { volumes } })
  const runIds = await Promise.all(cases.map(([name, config]) => cp.createRun(runOf(name, config))))
  const ends = await Promise.all(runIds.map(async (runId, index) => [cases[index]?.[0], await endOf(cp, runId)]))
  expect(ends).toEqual(cases.map(([name, , end]) => [name, end]))
  await untilNothingIsLeft(engineOfAll(), runIds)
})

test('an agent without memory ends its run with the limit; a command without memory does not', async () => {
  const command = 'x=x; while :; do x=$x$x; done'
  await using model = await startModelOf({
    'a hungry command': [{ toolCalls: [{ name: 'run_command', arguments: { command } }] }, { text: 'Went on.' }],
  })
  await using cp = await startControlPlane({ env: model.env })
  await using _worker = await startDockerWorker(cp)
  const shape = (memoryGb: number) => ({ instance_shape: { vcpus: 1, memory_gb: memoryGb } })
  const agent = await cp.createRun(runOf('a hungry agent', shape(0.04), 'as usual'))
  const commandRun = await cp.createRun(runOf('a hungry command', shape(0.5)))
  expect(await endOf(cp, agent)).toEqual({
    ...{ state: 'FAILED', code: 'resource_unavailable', reason: 'container_oom' },
    message: expect.stringMatching(/ran out of memory: its container is limited to 40 MiB\./),
  })
  expect(await endOf(cp, commandRun)).toMatchObject({
    state: 'SUCCEEDED',
    message: expect.stringContaining('Went on.'),
  })
  expect(model.askedBy('a hungry command').at(-1)).toMatch(/memory ran out/)
  await untilNothingIsLeft(engineOfAll(), [agent, commandRun])
})

test('a container that somebody kills is tried again, and never called out of memory', async () => {
  await using model = await startModelOf({ 'a victim': [{ text: 'Never heard.', delayMs: 60_000 }] })
  await using cp = await startControlPlane({ env: model.env })
  await using _worker = await startDockerWorker(cp)
  const runId = await cp.createRun(runOf('a victim', { instance_shape: { vcpus: 1, memory_gb: 0.5 } }, 'as usual'))
  await until(() => model.askedBy('a victim').length, Boolean, untilAnswered)
  await using engine = openTestEngine(engineOfAll())
  const [task] = await listContainers(engine, { labels: [`oz-task-id=${runId}`, 'oz-role=task'] })
  await killContainer(engine, task?.Id ?? '')
  expect(await endOf(cp, runId)).toMatchObject({ state: 'SUCCEEDED' })
  const states = (await cp.eventsOf(runId)).flatMap(({ type, data }) => (type === 'run_state' ? [data] : []))
  expect(states).toContainEqual(
    expect.objectContaining({
      ...{ state: 'QUEUED', failure_reason: 'agent_invocation' },
      message: expect.stringMatching(/^Attempt 2 of 3: agent_invocation.*ended by signal 9/),
    }),
  )
  expect(JSON.stringify(states)).not.toMatch(/memory/i)
  const { executions } = await cp.client.runs.executions(runId)
  expect(executions).toMatchObject([{ exit_code: 137 }, {}])
  await untilNothingIsLeft(engineOfAll(), [runId])
})

test('with --no-cleanup a cancelled task is stopped and kept', async () => {
  await using model = await startModelOf({ 'a kept one': [{ text: 'Never heard.', delayMs: 60_000 }] })
  await using cp = await startControlPlane({ env: model.env })
  await using worker = await startDockerWorker(cp, { cleanup: false })
  const runId = await cp.createRun(runOf('a kept one'))
  await until(() => model.askedBy('a kept one').length, Boolean, untilAnswered)
  await cp.client.runs.cancel(runId)
  expect(await endOf(cp, runId)).toMatchObject({ state: 'CANCELLED' })
  await until(() => worker.events.find(({ type }) => type === 'task_ended'), Boolean, untilAnswered)
  const left = await until(
    () => leftOf(engineOfAll(), runId),
    (found) => found.length === 3,
    { timeoutMs: 20_000 },
  )
  expect(left.map((one) => one.replace(/ oz-\S*/, ''))).toEqual(['container exited', 'volume', 'volume'])
  await using engine = openTestEngine(engineOfAll())
  for (const [, kind, name = ''] of left.map((one) => /^(\w+) (\S+)/.exec(one) ?? []))
    await (kind === 'container' ? removeContainer : removeVolume)(engine, name)
})

test.each([
  ['with live-restore, and killed: the run goes on, and the next one waits for it', true],
  ['without: the run is tried again', false],
])('an engine that ends in the middle of a run, %s', async (_, liveRestore) => {
  await using machine = await startEngine({ liveRestore })
  await prepareImages(machine, ['musl'])
  await using model = await startModelOf({ 'a long one': [{ text: 'Heard.', delayMs: liveRestore ? 6_000 : 60_000 }] })
  await using cp = await startControlPlane({ env: model.env })
  await using _worker = await startDockerWorker(cp, { env: machine.env })
  const runId = await cp.createRun(runOf('a long one', {}, 'as usual'))
  await until(() => model.askedBy('a long one').length, Boolean, untilAnswered)
  await machine[liveRestore ? 'kill' : 'stop']()
  await machine.start()
  const { state, message } = await endOf(cp, runId)
  expect(state).toBe('SUCCEEDED')
  const { executions } = await cp.client.runs.executions(runId)
  if (liveRestore) {
    expect(message).toContain('Heard.')
    expect(executions).toHaveLength(1)
    await machine.kill()
    const waiting = await cp.createRun(runOf('one that waits', {}, 'as usual'))
    const why = await until(
      () => cp.client.runs.why(waiting),
      ({ workers }) => workers.some(({ reason }) => reason?.includes('Docker engine')),
    )
    expect(why).toMatchObject({
      state: 'QUEUED',
      workers: [{ reason: expect.stringMatching(/\(DOCKER_HOST\) cannot be reached: .*`docker info`/) }],
    })
    await machine.start()
    expect(await endOf(cp, waiting)).toMatchObject({ state: 'SUCCEEDED' })
    expect((await cp.client.runs.executions(waiting)).executions.at(-1)?.failure_reason).toBe(null)
  } else {
    expect(executions.map(({ failure_reason: reason }) => reason)).toEqual(['container_wait', null])
    const states = (await cp.eventsOf(runId)).flatMap(({ type, data }) => (type === 'run_state' ? [data.message] : []))
    expect(states).toContainEqual(expect.stringMatching(/engine was stopped while the task ran.*`live-restore`/))
  }
  await untilNothingIsLeft(machine, [runId])
})

test('an engine without addresses for another network says so, and the run leaves nothing', async () => {
  // Two networks, and a worker whose own range is all taken: by the engine's bridge.
  await using machine = await startEngine({ addressPool: 'base=10.213.0.0/27,size=28' })
  await prepareImages(machine, ['musl'])
  await using model = await startModelOf()
  await using cp = await startControlPlane({ env: model.env })
  await using _full = await startDockerWorker(cp, { env: machine.env, docker: { network_pool: '10.212.0.0/28' } })
  await using _roomy = await startDockerWorker(cp, { env: machine.env, workerId: 'roomy' })
  await using engine = openTestEngine(machine)
  for (const name of ['one', 'two']) await createNetwork(engine, { name, labels: {} })
  const full = await cp.createRun(runOf('no room'))
  expect(await endOf(cp, full)).toEqual({
    ...{ state: 'ERROR', code: 'internal_error', reason: 'container_create' },
    message: expect.stringMatching(/no addresses left .* in 10\.212\.0\.0\/28\. .*`docker network prune`/),
  })
  await untilNothingIsLeft(machine, [full])
  // In a range of its own a worker goes on.
  const elsewhere = await cp.createRun(runOf('elsewhere', { worker_host: 'roomy' }))
  expect(await endOf(cp, elsewhere)).toMatchObject({ state: 'SUCCEEDED' })
  await removeNetwork(engine, 'one')
  const again = await cp.createRun(runOf('again'))
  expect(await endOf(cp, again)).toMatchObject({ state: 'SUCCEEDED' })
  await untilNothingIsLeft(machine, [elsewhere, again])
  expect((await objectsOf(machine)).filter((one) => !one.startsWith('volume oz-agent-'))).toEqual(['network two'])
})

const version = { Version: '20.10.24', ApiVersion: '1.41', MinAPIVersion: '1.12', Os: 'linux', Arch: 'amd64' }
const info = { OSType: 'linux', Architecture: 'x86_64', NCPU: 2, MemTotal: 4e9, CgroupVersion: '2', Runtimes: {} }

/** What answers as an engine of another kind. */
async function standIn(folder: string, more: { version?: object; info?: object }) {
  const socket = join(folder, 'docker.sock')
  const server = createServer(({ url = '' }, response) => {
    response.end(JSON.stringify(url.endsWith('/version') ? { ...version, ...more.version } : { ...info, ...more.info }))
  })
  await once(server.listen(socket), 'listening')
  return {
    socket,
    async [Symbol.asyncDispose]() {
      server.closeAllConnections()
      await new Promise((resolve) => server.close(resolve))
    },
  }
}

/** Root's rights over files of others would do instead of permissions. */
const withoutOverride = ['setpriv', '--bounding-set', '-dac_override,-dac_read_search']

test.each<[string, { version?: object; info?: object }, string, RegExp]>([
  ['is not there', {}, 'engine_unreachable', /none\.sock \(DOCKER_HOST\).*there is no such socket.*`docker info`/],
  ['it may not use', {}, 'engine_permission', /User root may not use the Docker engine.*usermod -aG docker root/],
  ['is Windows’', { info: { OSType: 'windows' } }, 'engine_not_linux', /containers of windows; agents need Linux/],
  ['has another CPU', { version: { Arch: 's390x' } }, 'engine_platform_unsupported', /linux\/s390x; agents run on/],
  ['is too old', { version: { ApiVersion: '1.39' } }, 'engine_api_unsupported', /speaks API .*Engine 20\.10 is the/],
])('a worker whose engine %s does not start, and says what to do', async (_, answers, code, sentence) => {
  const folder = mkdtempSync(join(tmpdir(), 'oz-refusal-'))
  try {
    await using stand = await standIn(folder, answers)
    const isForbidden = code === 'engine_permission'
    if (isForbidden) chownSync(stand.socket, 12_345, 12_345)
    const socket = code === 'engine_unreachable' ? join(folder, 'none.sock') : stand.socket
    const worker = [process.execPath, join(programs, 'oz-agent-worker.mjs'), '--worker-id', 'w1', '--backend', 'docker']
    const [program = '', ...args] = [...(isForbidden ? withoutOverride : []), ...worker]
    const connection = { WARP_API_KEY: 'wk-test', OZ_SERVER_URL: 'http://127.0.0.1:9', DOCKER_HOST: `unix://${socket}` }
    const env = { PATH: process.env.PATH, HOME: folder, XDG_STATE_HOME: folder, ...connection }
    const child = spawn(program, args, { env, stdio: ['ignore', 'ignore', 'pipe'] })
    let said = ''
    child.stderr.on('data', (chunk: Buffer) => {
      said += chunk
    })
    expect(await once(child, 'close')).toEqual([1, null])
    expect(said).toMatch(sentence)
    expect(said).toContain(`[${code}]`)
  } finally {
    rmSync(folder, { recursive: true })
  }
})
