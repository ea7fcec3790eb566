import { readFile } from 'node:fs/promises'
import { runStates } from '@openoz/protocol'
import { expect, test } from 'vitest'
import { useControlPlane } from './test-support/control-plane.ts'
import { makeTestHome, runOz, startOz } from './test-support/run-program.ts'

/** The command line as people and scripts use it, against one real control plane without a worker. */
const home = useControlPlane()

const oz = (args: string[], env: NodeJS.ProcessEnv = {}) => runOz(args, { ...home.env, ...env })

async function createWaitingRun(...flags: string[]): Promise<string> {
  const created = ['agent', 'run-cloud', '-p', 'wait', '--host', 'nobody', ...flags, '--output-format', 'json']
  return JSON.parse((await oz(created)).stdout).run_id
}

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
  const runId = await createWaitingRun()
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
  const runId = await createWaitingRun()
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
  const { url } = JSON.parse(await home.server.line(/server_ready/))
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
  expect((await oz(['agent', 'run'])).exitCode).toBe(2)
  expect((await oz(['agent', 'run-cloud'])).exitCode).toBe(2)
  expect((await oz(['run', 'list', '--state', 'sleeping'])).exitCode).toBe(2)
  for (const limit of ['0', '501', 'ten', '1e2']) {
    const wrong = await oz(['run', 'list', '-L', limit])
    expect(wrong).toMatchObject({ exitCode: 2, stderr: expect.stringContaining('a whole number from 1 to 500') })
  }
})

test('the help names what the reference’s scripts use: its variables, and how long an agent stays', async () => {
  const { stdout } = await oz(['agent', 'run', '--help'])
  for (const name of ['WARP_OUTPUT_FORMAT', 'WARP_SERVER_ROOT_URL', '--idle-on-complete', '--idle-on-fail'])
    expect(stdout).toContain(name)
})

test('the help of a command has examples', async () => {
  expect(await oz([])).toMatchObject({ exitCode: 0, stdout: expect.stringContaining('Usage: oz') })
  expect(await oz(['help', 'run'])).toMatchObject({ exitCode: 0, stdout: expect.stringContaining('Usage: oz run') })
  expect(await oz(['run', 'list', '--help'])).toMatchObject({
    exitCode: 0,
    stdout: expect.stringMatching(/Examples:\n {2}\$ oz run list/),
  })
})

test('a jq program chooses from the JSON of a command, in whatever format it prints', async () => {
  const runId = await createWaitingRun('-n', 'with jq')
  const jq = async (args: string[], program: string) => (await oz([...args, '--jq', program])).stdout
  expect(await jq(['run', 'list', '--name', 'with jq'], '.runs[] | .run_id, .state')).toBe(`${runId}\nQUEUED\n`)
  expect(await jq(['run', 'list', '--name', 'nobody’s'], '.runs')).toBe('[]\n')
  expect(await jq(['run', 'get', runId, '--output-format', 'text'], '{state}')).toBe('{\n  "state": "QUEUED"\n}\n')
  expect(await jq(['run', 'get', runId, '--output-format', 'ndjson'], '{state}')).toBe('{"state":"QUEUED"}\n')
  expect(await jq(['worker', 'list'], 'length')).toBe('0\n')
  expect(await jq(['model', 'list'], 'length, empty')).toBe('0\n')
  expect(await jq(['api-key', 'list'], '.[] | select(.name == "admin").scope')).toBe('user\n')
  await oz(['run', 'cancel', runId])
})

test('a jq program that is none is refused before anything is done', async () => {
  const create = ['api-key', 'create', 'not made', '--no-expiration', '--jq']
  expect(await oz([...create, '.raw_api_key |'])).toMatchObject({
    exitCode: 2,
    stdout: '',
    stderr: expect.stringMatching(/syntax error.*\[jq_invalid\]/s),
  })
  expect((await oz(['api-key', 'list'])).stdout).not.toContain('not made')
  const unfit = await oz(['worker', 'list', '--jq', '.worker_id', '--output-format', 'json'])
  expect(unfit).toMatchObject({ exitCode: 2, stdout: '' })
  expect(JSON.parse(unfit.stderr)).toMatchObject({ error: { code: 'jq_invalid' } })
  const made = await oz(['api-key', 'create', 'made', '--no-expiration', '--jq', '.raw_api_key'])
  expect(made).toMatchObject({ exitCode: 0, stdout: expect.stringMatching(/^wk-\S+\n$/) })
})

test('an output format that does not exist is refused by the name of its variable', async () => {
  for (const variable of ['OZ_OUTPUT_FORMAT', 'WARP_OUTPUT_FORMAT']) {
    const wrong = await oz(['run', 'list'], { [variable]: 'yaml' })
    expect(wrong).toMatchObject({ exitCode: 2, stdout: '', stderr: expect.stringContaining(variable) })
  }
  expect((await oz(['worker', 'list'], { OZ_OUTPUT_FORMAT: '', WARP_OUTPUT_FORMAT: 'json' })).stdout).toBe('[]')
  const flag = await oz(['worker', 'list', '--output-format', 'text'], { OZ_OUTPUT_FORMAT: 'json' })
  expect(flag.stderr).toContain('No worker')
})

test('runs are found by labels, skill and what they made', async () => {
  const runId = await createWaitingRun('--metadata', 'ticket=SHOP-7', '--metadata', 'a[b]=c=d')
  const found = async (...flags: string[]) =>
    (await oz(['run', 'list', ...flags, '--jq', '.runs[].run_id'])).stdout.trim()
  expect(await found('--metadata', 'ticket=SHOP-7')).toBe(runId)
  expect(await found('--metadata', 'ticket=SHOP-7', '--artifact-type', 'plan')).toBe('')
  expect(await found('--metadata', 'ticket=SHOP-8')).toBe('')
  expect(await found('--skill', 'acme/shop:review')).toBe('')
  expect(await found('--schedule', runId)).toBe('')
  expect((await oz(['run', 'list', '--metadata', 'ticket'])).exitCode).toBe(2)
  await oz(['run', 'cancel', runId])
})

test('what completes a command line is printed', async () => {
  expect(await oz(['completions', 'bash'])).toMatchObject({
    exitCode: 0,
    stdout: expect.stringContaining('complete -F _oz oz'),
  })
  expect((await oz(['completions', 'tcsh'])).exitCode).toBe(2)
})

test('nothing is coloured where nobody looks, and NO_COLOR holds', async () => {
  const failing = ['run', 'get', 'x']
  expect((await oz(failing, { FORCE_COLOR: '1' })).stderr).toContain('\u001b[31m')
  expect((await oz(failing)).stderr).not.toContain('\u001b[')
  expect((await oz(failing, { FORCE_COLOR: '1', NO_COLOR: '1' })).stderr).not.toContain('\u001b[')
})
