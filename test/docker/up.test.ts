import { readdirSync, readFileSync } from 'node:fs'
import { join } from 'node:path'
import { createApiClient } from '@openoz/protocol'
import { expect, inject, test } from 'vitest'
import { makeTestHome, runOz, startOz } from '../../packages/cli/src/test-support/run-program.ts'
import { listContainers, putArchive } from '../../packages/worker/src/engine/containers.ts'
import { tarOf } from '../../packages/worker/src/engine/tar-text.ts'
import { untilNothingIsLeft } from '../support/docker-runs.ts'
import { until } from '../support/poll.ts'
import { startScriptedModel } from '../support/scripted-model.ts'
import { imageName, openTestEngine } from '../support/test-images.ts'

const up = ['up', '--listen', '127.0.0.1:0', '--worker-id', 'here', '--output-format', 'ndjson']
const engineOfAll = () => inject('dockerEngine') ?? { socket: '', env: { DOCKER_HOST: '' } }

/** With this in its command line. */
function workerOf(folder: string): number | undefined {
  const pids = readdirSync('/proc').filter((name) => /^\d+$/.test(name))
  const found = pids.find((pid) => {
    try {
      const command = readFileSync(`/proc/${pid}/cmdline`, 'utf8')
      return command.includes('oz-agent-worker') && command.includes(folder)
    } catch {
      return false
    }
  })
  return found === undefined ? undefined : Number(found)
}

test('`oz up --backend auto` runs tasks in containers of an engine that answers, and a worker that is killed takes its own over', {
  timeout: 180_000,
}, async () => {
  await using home = await makeTestHome()
  const steps = [
    { toolCalls: [{ name: 'run_command', arguments: { command: 'until [ -e go ]; do sleep 0.1; done; echo went' } }] },
    { text: 'Done.' },
  ]
  await using model = await startScriptedModel({ apiKey: 'sk-test', steps })
  const program = startOz([...up, '--backend', 'auto'], {
    ...home.env,
    ...engineOfAll().env,
    ...{ OPENAI_API_KEY: 'sk-test', OPENAI_BASE_URL: `${model.url}/v1`, OZ_AGENT_BUNDLE: inject('agentBundle') },
  })
  try {
    expect(JSON.parse(await program.line(/worker_ready/))).toMatchObject({
      ...{ worker_id: 'here', backend: 'docker' },
      why: expect.stringMatching(/^Docker \S+ answers at unix:/),
    })
    const login = JSON.parse(readFileSync(join(home.folder, 'config/openoz/config.json'), 'utf8')) as Login
    const client = createApiClient({
      apiKey: login.api_key,
      fetch: (path, init) => fetch(`${login.server_url}${path}`, init),
    })
    const { run_id: runId } = await client.runs.create({
      prompt: 'Wait for it.',
      config: {
        ...{ worker_host: 'here', idle_timeout_minutes: 0 },
        environment: { docker_image: imageName('musl') },
      },
    })
    await until(() => model.requests.length, Boolean, { timeoutMs: 60_000 })

    const killed = workerOf(home.folder)
    process.kill(killed ?? 0, 'SIGKILL')
    await until(
      () => workerOf(home.folder),
      (pid) => pid !== undefined && pid !== killed,
      { timeoutMs: 20_000 },
    )
    await using engine = openTestEngine(engineOfAll())
    const [task] = await listContainers(engine, { labels: [`oz-task-id=${runId}`, 'oz-role=task'] })
    await putArchive(engine, task?.Id ?? '', { path: '/workspace', archive: await tarOf([{ name: 'go', body: '' }]) })
    const run = await until(
      () => client.runs.get(runId),
      ({ state }) => state === 'SUCCEEDED',
      { timeoutMs: 60_000 },
    )
    expect(run.status_message?.message).toContain('Done.')
    expect((await client.runs.executions(runId)).executions).toHaveLength(1)
    await untilNothingIsLeft(engineOfAll(), [runId])
  } finally {
    program.child.kill('SIGTERM')
    await program.ended
  }
  expect((await program.ended).exitCode).toBe(0)
})

interface Login {
  server_url: string
  api_key: string
}

test('without an agent bundle nothing is started, and how to make one is said for a clone and for what npm has installed', async () => {
  await using home = await makeTestHome()
  const env = { ...home.env, ...engineOfAll().env, OZ_AGENT_BUNDLE: join(home.folder, 'none') }
  for (const wish of ['docker', 'auto']) {
    const { exitCode, stderr } = await runOz([...up, '--backend', wish], env)
    expect(exitCode).toBe(1)
    const { error } = JSON.parse(stderr) as { error: { code: string; message: string } }
    expect(error.code).toBe('agent_bundle_missing')
    expect(error.message).toMatch(
      /`npm run build` in the clone makes it.*`oz bundle make` does where openoz was installed from npm/,
    )
  }
  expect(readdirSync(home.folder)).not.toContain('data')
})
