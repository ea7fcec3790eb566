import { readFile } from 'node:fs/promises'
import { runStates } from '@openoz/protocol'
import { afterAll, beforeAll, expect, test } from 'vitest'
import { makeTestHome, type RunningProgram, runOz, startOz, type TestHome } from './test-support/run-program.ts'

/** The command line as people and scripts use it, against one real control plane without a worker. */
let home: TestHome
let server: RunningProgram

beforeAll(async () => {
  home = await makeTestHome()
  server = startOz(['up', '--no-worker', '--listen', '127.0.0.1:0', '--output-format', 'ndjson'], home.env)
  await server.line(/server_ready/)
})

afterAll(async () => {
  server.child.kill('SIGTERM')
  expect((await server.ended).exitCode).toBe(0)
  await home[Symbol.asyncDispose]()
})

const oz = (args: string[], env: NodeJS.ProcessEnv = {}) => runOz(args, { ...home.env, ...env })

test('the first start saves a login that the other commands use', async () => {
  const me = await oz(['whoami', '--output-format', 'json'])
  expect(me.exitCode).toBe(0)
  expect(JSON.parse(me.stdout)).toMatchObject({ type: 'user', team_names: ['default'] })
  expect((await oz(['whoami', '--output-format', 'text'])).stdout).toMatch(/^user:[0-9a-f-]{36}\n$/)
})

test('a run is started, listed, explained, cancelled and shown', async () => {
  const created = await oz(['agent', 'run-cloud', '-p', 'say hi', '--host', 'nobody', '-n', 'greeting'])
  expect(created.exitCode).toBe(0)
  const runId = /^Spawned ambient agent with run ID: (\S+)$/m.exec(created.stdout)?.[1] ?? ''
  expect(created.stdout).toMatch(/^Agent state: QUEUED$/m)
  expect(created.stdout).toContain('nobody')

  const list = await oz(['run', 'list', '--name', 'greeting', '--output-format', 'json'])
  expect(JSON.parse(list.stdout)).toMatchObject({ runs: [{ run_id: runId, state: 'QUEUED', source: 'CLI' }] })
  const lines = await oz(['run', 'list', '--state', 'queued', '--output-format', 'ndjson'])
  expect(
    lines.stdout
      .trim()
      .split('\n')
      .map((line) => JSON.parse(line).run_id),
  ).toContain(runId)
  expect((await oz(['run', 'list', '--state', 'failed'])).stderr).toBe('No runs.\n')

  expect((await oz(['run', 'why', runId])).stdout).toContain('nobody')
  expect((await oz(['run', 'cancel', runId])).stdout).toBe(`Cancelled run ${runId}.\n`)
  expect((await oz(['run', 'get', runId])).stdout).toMatch(/^State +CANCELLED$/m)
  expect(runStates).toContain(JSON.parse((await oz(['run', 'get', runId, '--output-format', 'json'])).stdout).state)

  const watched = await oz(['task', 'watch', runId, '--output-format', 'ndjson'])
  expect(watched.exitCode).toBe(1)
  const events = watched.stdout
    .trim()
    .split('\n')
    .map((line) => JSON.parse(line))
  expect(events.map(({ seq }) => seq)).toEqual(events.map((_, index) => index + 1))
  expect(events.at(-1)).toMatchObject({ type: 'run_state', data: { state: 'CANCELLED' } })

  const unsaved = await oz(['run', 'diff', runId])
  expect(unsaved).toMatchObject({ exitCode: 1, stderr: expect.stringContaining('workspace_not_saved') })
})

test('Ctrl-C stops watching and leaves the run alone', async () => {
  const { stdout } = await oz(['agent', 'run-cloud', '-p', 'wait', '--host', 'nobody', '--output-format', 'json'])
  const { run_id: runId } = JSON.parse(stdout)
  const watch = startOz(['run', 'watch', runId], home.env)
  await watch.line(/QUEUED/)
  watch.child.kill('SIGINT')
  const end = await watch.ended
  expect(end.exitCode).toBe(130)
  expect(end.stderr).toContain(`oz run cancel ${runId}`)
  expect(JSON.parse((await oz(['run', 'get', runId, '--output-format', 'json'])).stdout).state).toBe('QUEUED')
  await oz(['run', 'cancel', runId])
})

test('a key given as a flag does not stay in the command line, which everybody can read', async () => {
  const { stdout } = await oz(['agent', 'run-cloud', '-p', 'wait', '--host', 'nobody', '--output-format', 'json'])
  const { run_id: runId } = JSON.parse(stdout)
  const key = (await readFile(`${home.env.OZ_DATA_DIR}/admin-api-key`, 'utf8')).trim()
  const watch = startOz(['run', 'watch', runId, '--api-key', key], home.env)
  await watch.line(/QUEUED/)
  const commandLine = await readFile(`/proc/${watch.child.pid}/cmdline`, 'utf8')
  watch.child.kill('SIGINT')
  await watch.ended
  await oz(['run', 'cancel', runId])
  expect(commandLine).not.toContain(key)
})

test('keys are made for one worker, listed without their secret, and ended', async () => {
  const made = await oz([
    'api-key',
    'create',
    'ci',
    '--scope',
    'worker',
    '--worker-id',
    'w',
    '--expires-in',
    '2h',
    '--output-format',
    'json',
  ])
  const { raw_api_key: secret, api_key: key } = JSON.parse(made.stdout)
  expect(key).toMatchObject({ name: 'ci', scope: 'worker', worker_id: 'w' })
  const listed = await oz(['api-key', 'list'])
  expect(listed.stdout).toContain(`wk-**${secret.slice(-4)}`)
  expect(listed.stdout).not.toContain(secret)
  expect((await oz(['api-key', 'create', 'ci'])).exitCode).toBe(2)
  expect((await oz(['api-key', 'expire', 'ci'])).exitCode).toBe(2)
  expect((await oz(['api-key', 'expire', 'ci', '--force'])).exitCode).toBe(0)
  expect((await oz(['whoami'], { OZ_API_KEY: secret })).stderr).toMatch(/api_key_(revoked|expired)/)
})

test('a login is checked before it is saved, and its key can come from a pipe', async () => {
  const { url, adminKey } = await readServer()
  await using other = await makeTestHome()
  const wrong = await runOz(['login', '--server-url', url, '--stdin'], other.env, 'wk-wrong-wrong-wrong-wrong\n')
  expect(wrong).toMatchObject({ exitCode: 1, stderr: expect.stringContaining('api_key_unknown') })
  expect((await runOz(['whoami'], other.env)).stderr).toContain('not_logged_in')
  const right = await runOz(['login', '--server-url', url, '--stdin'], other.env, `${adminKey}\n`)
  expect(right.exitCode).toBe(0)
  expect(right.stdout).not.toContain(adminKey)
  expect((await runOz(['whoami'], other.env)).exitCode).toBe(0)
  expect((await runOz(['logout'], other.env)).exitCode).toBe(0)
  expect((await runOz(['whoami'], other.env)).exitCode).toBe(1)
})

async function readServer(): Promise<{ url: string; adminKey: string }> {
  const { url } = JSON.parse(await server.line(/server_ready/))
  const adminKey = (await readFile(`${home.env.OZ_DATA_DIR}/admin-api-key`, 'utf8')).trim()
  return { url, adminKey }
}

test('the doctor names what is missing and what to do, and fails for it', async () => {
  const { stdout, exitCode } = await oz(['doctor', '--output-format', 'json'])
  const findings = JSON.parse(stdout) as { check: string; level: string; remedy?: string }[]
  const level = (check: string) => findings.find((finding) => finding.check === check)?.level
  expect([level('git'), level('address'), level('key'), level('models'), level('workers')]).toEqual([
    'ok',
    'ok',
    'ok',
    'fail',
    'fail',
  ])
  expect(exitCode).toBe(1)
  for (const finding of findings.filter((one) => one.level === 'fail'))
    expect(finding.remedy, finding.check).toBeTruthy()
})

test('errors say what happened and what to do; for programs they are JSON', async () => {
  const unreachable = await oz(['run', 'list', '--server-url', 'http://127.0.0.1:9', '--api-key', 'wk-x'])
  expect(unreachable).toMatchObject({ exitCode: 1, stdout: '', stderr: expect.stringContaining('server_unreachable') })
  const unknown = await oz(['run', 'get', '0198c2f0-0000-7000-8000-000000000000', '--output-format', 'json'])
  expect(JSON.parse(unknown.stderr)).toMatchObject({ error: { code: 'run_not_found' } })
  const variable = await oz(['run', 'get', 'x'], { OZ_OUTPUT_FORMAT: 'ndjson' })
  expect(JSON.parse(variable.stderr)).toHaveProperty('error')
})

test('wrong use is exit code 2, with a suggestion where one is near', async () => {
  const typo = await oz(['rum', 'list'])
  expect(typo).toMatchObject({ exitCode: 2, stdout: '', stderr: expect.stringContaining('Did you mean run?') })
  expect((await oz(['run', 'list', '--limt', '3'])).stderr).toContain('Did you mean --limit?')
  expect((await oz(['run'])).exitCode).toBe(2)
  expect((await oz(['agent', 'run', '--prompt', 'x'])).exitCode).toBe(2)
  expect((await oz(['agent', 'run-cloud'])).exitCode).toBe(2)
  expect((await oz(['run', 'list', '--state', 'sleeping'])).exitCode).toBe(2)
})

test('every command has help with examples', async () => {
  expect(await oz([])).toMatchObject({ exitCode: 0, stdout: expect.stringContaining('Usage: oz') })
  const commands = [
    'up',
    'server',
    'agent run-cloud',
    'agent run',
    'run list',
    'run get',
    'run watch',
    'run cancel',
    'run why',
  ]
  const more = [
    'run diff',
    'run checkout',
    'run follow-up',
    'run fork',
    'run transcript',
    'run conversation get',
    'model list',
    'worker list',
    'environment list',
    'environment get',
    'environment create',
    'environment update',
    'environment delete',
    'api-key list',
    'api-key create',
    'api-key expire',
  ]
  for (const command of [...commands, ...more, 'login', 'logout', 'whoami', 'doctor']) {
    const { exitCode, stdout } = await oz([...command.split(' '), '--help'])
    expect(exitCode, command).toBe(0)
    expect(stdout, command).toMatch(/Examples:\n {2}\$ /)
  }
})

test('nothing is coloured where nobody looks, and NO_COLOR holds', async () => {
  const failing = ['run', 'get', 'x']
  expect((await oz(failing, { FORCE_COLOR: '1' })).stderr).toContain('\u001b[31m')
  expect((await oz(failing)).stderr).not.toContain('\u001b[')
  expect((await oz(failing, { FORCE_COLOR: '1', NO_COLOR: '1' })).stderr).not.toContain('\u001b[')
})
