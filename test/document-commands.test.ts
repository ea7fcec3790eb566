import { execFile } from 'node:child_process'
import { chmodSync, mkdirSync, mkdtempSync, rmSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { promisify } from 'node:util'
import { expect, test } from 'vitest'
import { type ControlPlane, startControlPlane } from './support/control-plane.ts'
import { startScriptedModel } from './support/scripted-model.ts'
import { programs, startWorkerProgram } from './support/worker-program.ts'

/**
 * The commands that the reference's guide to self-hosting shows, letter for letter, as somebody brings them along: only host names, the key and
 * the id of the environment are put in. `oz` finds the server by the reference's own variable.
 */
const run = promisify(execFile)

const setUp = 'export WARP_API_KEY="your_team_api_key"'
const agentRun = 'oz agent run --prompt "Refactor the authentication module" --share team'
const shares = [
  '--share',
  '--share team',
  '--share team:view',
  '--share team:edit',
  '--share user@example.com',
  '--share user@example.com:edit',
  '--share team:edit --share user@example.com --share',
]
/** Of the Kubernetes Job, whose image has `oz` as its entry point. */
const jobCommand = ['agent', 'run', '--prompt', 'Run the test suite and report failures']

const runCloud = 'oz agent run-cloud --prompt "Refactor the authentication module" --host "my-worker"'
const createRun = `curl -X POST https://app.warp.dev/api/v1/agent/run \\
  --header 'Authorization: Bearer YOUR_API_KEY' \\
  --header 'Content-Type: application/json' \\
  --data '{
    "prompt": "Refactor the authentication module",
    "config": {
      "environment_id": "ENV_ID",
      "worker_host": "my-worker"
    }
  }'`

async function startAll() {
  const folder = mkdtempSync(join(tmpdir(), 'oz-commands-'))
  chmodSync(folder, 0o755)
  mkdirSync(join(folder, 'bin'))
  mkdirSync(join(folder, 'checkout'))
  const oz = `#!/bin/sh\nexec ${process.execPath} ${join(programs, 'oz.mjs')} "$@"\n`
  writeFileSync(join(folder, 'bin', 'oz'), oz, { mode: 0o755 })
  const model = await startScriptedModel({ handler: () => ({ text: 'The module is tidy now.' }) })
  const cp = await startControlPlane({ env: { OPENAI_API_KEY: 'sk-test', OPENAI_BASE_URL: `${model.url}/v1` } })
  const key = (await cp.client.apiKeys.create({ name: 'ci', scope: 'team' })).raw_api_key
  const env = {
    PATH: `${join(folder, 'bin')}:${process.env.PATH}`,
    HOME: join(folder, 'home'),
    WARP_SERVER_ROOT_URL: cp.url,
  }
  return {
    cp,
    folder,
    key,
    /** In a shell, in a checkout; `text` as the guide has it. */
    async shell(text: string): Promise<{ stdout: string; stderr: string }> {
      const script = text
        .replaceAll('https://app.warp.dev', cp.url)
        .replaceAll(/your_team_api_key|YOUR_API_KEY/g, key)
        .replaceAll(/^curl /gm, 'curl --silent --show-error --fail-with-body ')
      return run('bash', ['--norc', '-eu', '-c', script], { cwd: join(folder, 'checkout'), env })
    },
    async [Symbol.asyncDispose]() {
      await cp[Symbol.asyncDispose]()
      await model.close()
      rmSync(folder, { recursive: true, force: true, maxRetries: 5 })
    },
  }
}

/** Newest first. */
async function runsOf(cp: ControlPlane) {
  return (await cp.client.runs.list({ sort_by: 'created_at', sort_order: 'desc' })).runs
}

test('an agent that is started by hand runs where it is, is listed, and is shared as its flags say', {
  timeout: 180_000,
}, async () => {
  await using all = await startAll()
  const { stdout } = await all.shell(`${setUp}\n${agentRun}`)
  expect(stdout).toContain('The module is tidy now.')
  expect((await runsOf(all.cp))[0]).toMatchObject({ state: 'SUCCEEDED', execution_location: 'LOCAL' })

  for (const flags of shares) await all.shell(`${setUp}\noz agent run --prompt "Say hello" ${flags}`)
  const job = jobCommand.map((word) => `'${word}'`).join(' ')
  await all.shell(`${setUp}\noz ${job}`)
  const runs = await runsOf(all.cp)
  expect(runs.map(({ state }) => state)).toEqual(runs.map(() => 'SUCCEEDED'))
  expect(runs.length).toBe(shares.length + 2)
})

test('runs are routed to a worker from the command line and from the API', { timeout: 120_000 }, async () => {
  await using all = await startAll()
  const env = { WARP_API_KEY: all.key, WARP_SERVER_ROOT_URL: all.cp.url }
  await using _worker = await startWorkerProgram(all.folder, { workerId: 'my-worker', env })
  await all.shell(`${setUp}\n${runCloud}`)
  const created = await all.cp.request<{ uid: string }>('POST', '/api/v1/agent/environments', {
    key: all.key,
    json: { name: 'shop' },
  })
  const { stdout } = await all.shell(createRun.replace('ENV_ID', created.body.uid))
  expect(JSON.parse(stdout)).toMatchObject({ run_id: expect.any(String) })
  const [byApi, byCommand] = await runsOf(all.cp)
  for (const one of [byApi, byCommand]) {
    const ended = await all.cp.waitFor(one?.run_id ?? '', 'SUCCEEDED', 30_000)
    expect(ended.agent_config.worker_host).toBe('my-worker')
  }
  expect(byApi?.agent_config.environment_id).toBe(created.body.uid)
})
