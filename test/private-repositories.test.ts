import { chmodSync, existsSync, mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { fileURLToPath } from 'node:url'
import { pino } from 'pino'
import { expect, test } from 'vitest'
import { runWorker } from '../packages/worker/src/run-worker.ts'
import { makeRepository } from './support/agent-fixture.ts'
import { startControlPlane } from './support/control-plane.ts'
import { startGitHttpServer } from './support/git-http-server.ts'
import { until } from './support/poll.ts'
import { startScriptedModel } from './support/scripted-model.ts'

const oz = fileURLToPath(new URL('../packages/cli/bin/oz.mjs', import.meta.url))

test('a run works in a private repository by the login of its worker’s operator, which it never sees', async () => {
  const folder = mkdtempSync(join(tmpdir(), 'oz-private-'))
  const stop = new AbortController()
  let ended: Promise<unknown> = Promise.resolve()
  try {
    // Open to every user, as tasks of a worker that is root run as users of their own.
    chmodSync(folder, 0o755)
    makeRepository(join(folder, 'origins', 'team', 'private.git'), { 'sum.txt': '3\n' })
    const login = { user: 'operator', password: 'hunter2-of-the-operator' }
    await using host = await startGitHttpServer(join(folder, 'origins'), { login })
    const stored = host.url('').replace('//', `//${login.user}:${login.password}@`)
    writeFileSync(join(folder, 'credentials'), `${stored}\n`, { mode: 0o600 })
    writeFileSync(
      join(folder, '.gitconfig'),
      `[credential]\n\thelper = store --file=${join(folder, 'credentials')}\n`,
      { mode: 0o600 },
    )
    const look = 'cat sum.txt .git/config; cat ../../../../credentials; env; echo 4 > sum.txt'
    await using model = await startScriptedModel({
      apiKey: 'sk-test',
      steps: [{ toolCalls: [{ name: 'run_command', arguments: { command: look } }] }, { text: 'Done.' }],
    })
    const modelEnv = { OPENAI_API_KEY: 'sk-test', OPENAI_BASE_URL: `${model.url}/v1` }
    await using cp = await startControlPlane({ env: modelEnv })
    ended = runWorker({
      workerId: 'w',
      apiKey: cp.adminKey,
      serverUrl: cp.url,
      serverRootUrl: cp.url,
      backend: 'direct',
      direct: { stateDir: join(folder, 'state'), ozPath: oz },
      logLevel: 'info',
      cleanup: true,
      maxConcurrentTasks: 0,
      oneShot: false,
      drain: 'stop',
      taskEnvironment: {},
      env: { PATH: process.env.PATH, HOME: folder },
      log: pino({ level: process.env.OZ_TEST_LOG ?? 'silent' }),
      signal: stop.signal,
    })
    const url = host.url('team/private.git')
    const runId = await cp.createRun({
      prompt: 'Look.',
      config: { environment: { source_repos: [{ url }] }, idle_timeout_minutes: 0, worker_host: 'w' },
    })
    await until(
      async () => (await cp.client.runs.get(runId)).state,
      (state) => ['SUCCEEDED', 'FAILED', 'ERROR'].includes(state),
      { timeoutMs: 60_000 },
    )
    const run = await cp.client.runs.get(runId)
    expect(run.status_message?.message).toBe('Done.')

    const events = await cp.eventsOf(runId)
    const said = JSON.stringify(events)
    expect(said).toContain('3\\n[core]')
    expect(said).toContain(`url = ${url}`)
    expect(said).not.toContain('hunter2')
    const steps = events.filter(({ type }) => type === 'setup_step').map(({ data }) => data as { step: string })
    expect(steps).toContainEqual(expect.objectContaining({ step: 'mirror', status: 'completed' }))
    const [execution] = (await cp.client.runs.executions(runId)).executions
    expect(execution?.waterfall).toContainEqual(expect.objectContaining({ step: 'mirror' }))
    const saved = await cp.client.runs.workspace(runId)
    expect(saved.repositories).toMatchObject([{ dir: 'private', url, uncommitted: true }])
    // The refs and the pack, once: what the agent clones is here already.
    expect(host.requests.filter((request) => request.startsWith('POST'))).toHaveLength(2)
    expect(existsSync(join(folder, 'credentials'))).toBe(true)
    expect(readFileSync(join(folder, '.gitconfig'), 'utf8')).toContain('helper')
  } finally {
    stop.abort()
    await ended
    rmSync(folder, { recursive: true, force: true })
  }
}, 90_000)
