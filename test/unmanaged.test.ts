import { existsSync, mkdirSync, readFileSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'
import { expect, test } from 'vitest'
import { makeRepository } from './support/agent-fixture.ts'
import { command, isRunning, runIdLine, startPersonAtWork } from './support/person-at-work.ts'
import { until } from './support/poll.ts'

/** A command that lasts until somebody makes the file. */
const waiting = (file = 'go') => command(`echo ready > waiting; until [ -e ${file} ]; do sleep 0.05; done`)

test('a key and a prompt are enough, in a folder without git as well', async () => {
  await using person = await startPersonAtWork({ steps: [command('echo hi > made.txt'), { text: 'Made it.' }] })
  const { cp, oz, workspace } = person
  const { exitCode, stdout, stderr } = await oz(['agent', 'run', '--prompt', 'Make it.', '--share', 'team']).ended
  expect({ exitCode, stderr }).toEqual({ exitCode: 0, stderr: expect.stringMatching(/^The share is stored; .*\n$/) })
  expect(readFileSync(join(workspace, 'made.txt'), 'utf8')).toBe('hi\n')
  const runId = runIdLine.exec(stdout)?.[1] ?? ''
  const run = await cp.client.runs.get(runId)
  expect(stdout.split('\n').slice(0, 4)).toEqual([
    `Run ID: ${runId}`,
    `Open in Oz: ${cp.url}/api/v1/agent/runs/${runId}`,
    `New conversation started with debug ID: ${run.conversation_id}`,
    expect.stringMatching(/^Sharing session at: http/),
  ])
  expect(stdout).toContain('$ echo hi > made.txt')
  expect(stdout).toContain('Made it.')
  expect(run).toMatchObject({
    state: 'SUCCEEDED',
    execution_location: 'LOCAL',
    source: 'CLI',
    shares: [{ subject: 'team', access: 'view' }],
    is_sandbox_running: false,
  })
  expect(existsSync(join(person.folder, 'home', '.local', 'state', 'openoz', 'spools', runId))).toBe(false)
})

test('programs read one object per line, and nothing else', async () => {
  await using person = await startPersonAtWork({
    handler: ({ body }) =>
      JSON.stringify(body).includes('made 1') ? { text: ['All ', 'done.'] } : command('echo made 1; exit 3'),
  })
  for (const format of ['json', 'ndjson']) {
    const run = person.oz(['agent', 'run', '-p', 'Make it.', '--output-format', format], {
      env: { GITHUB_ACTIONS: 'true' },
    })
    expect(await run.ended).toMatchObject({ exitCode: 0, stderr: '' })
    const [started] = run.objects()
    const runId = String(started?.run_id)
    const item = await person.cp.client.runs.get(runId)
    expect(item.source).toBe('GITHUB_ACTION')
    expect(run.objects()).toEqual([
      { type: 'system', event_type: 'run_started', run_id: runId, run_url: expect.stringContaining(runId) },
      { type: 'system', event_type: 'conversation_started', conversation_id: item.conversation_id },
      { type: 'tool_call', tool: 'run_command', command: 'echo made 1; exit 3' },
      { type: 'tool_result', tool: 'run_command', status: 'complete', exit_code: 3, output: 'made 1\n' },
      { type: 'agent', text: 'All done.' },
      { type: 'system', event_type: 'run_finished', run_id: runId, state: 'SUCCEEDED', message: 'All done.' },
    ])
  }
  const text = await person.oz(['agent', 'run', '-p', 'Make it.', '--output-format', 'text']).ended
  expect(text.stdout).toMatch(/SUCCEEDED/)
})

test('it is listed, watched and steered like every other run, and takes follow-ups while it idles', async () => {
  await using person = await startPersonAtWork({ steps: [waiting(), { text: 'Blue it is.' }, { text: 'Green now.' }] })
  const { cp, oz, workspace, model } = person
  const run = oz(['agent', 'run', '-p', 'Paint it.', '--idle-on-complete', '30s', '-n', 'painting'])
  const runId = await run.says(runIdLine)
  await until(() => existsSync(join(workspace, 'waiting')))
  const listed = await cp.request<{ runs: { run_id: string }[] }>(
    'GET',
    '/api/v1/agent/runs?execution_location=LOCAL&name=painting',
  )
  expect(listed.body.runs).toMatchObject([{ run_id: runId, state: 'INPROGRESS', is_sandbox_running: true }])
  const steered = oz(['run', 'follow-up', runId, 'Make it blue.', '--mode', 'steer'])
  expect((await steered.ended).exitCode).toBe(0)
  await until(async () => (await cp.eventsOf(runId)).some(({ type }) => type === 'user_message'))
  writeFileSync(join(workspace, 'go'), '')
  await run.says(/Blue it is\./)
  expect(JSON.stringify(model.requests.at(-1)?.body)).toContain('Make it blue.')
  await cp.waitFor(runId, 'SUCCEEDED')
  await oz(['run', 'follow-up', runId, 'Green.']).ended
  await run.says(/Green now\./)
  await cp.waitFor(runId, 'SUCCEEDED')
  run.child.kill('SIGINT')
  expect((await run.ended).exitCode).toBe(130)
  expect((await cp.client.runs.get(runId)).state).toBe('SUCCEEDED')
})

test('cancelled from afar, it ends, and says so', async () => {
  await using person = await startPersonAtWork({ steps: [waiting()] })
  const run = person.oz(['agent', 'run', '-p', 'Wait.', '--output-format', 'ndjson'])
  const runId = await run.says(/"run_id":"([^"]+)"/)
  await until(() => existsSync(join(person.workspace, 'waiting')))
  await person.cp.client.runs.cancel(runId)
  expect((await run.ended).exitCode).toBe(1)
  expect(run.objects().at(-1)).toMatchObject({ event_type: 'run_finished', state: 'CANCELLED' })
  expect((await person.cp.client.runs.get(runId)).state).toBe('CANCELLED')
  const { executions } = await person.cp.client.runs.executions(runId)
  expect(executions).toMatchObject([{ state: 'ended' }])
})

test.each([
  ['SIGINT', 130],
  ['SIGTERM', 143],
] as const)('%s ends it as cancelled, with its work saved and nothing left running', async (signal, code) => {
  await using person = await startPersonAtWork({ steps: [waiting()] })
  makeRepository(person.workspace, { 'a.txt': 'a\n' })
  const run = person.oz(['agent', 'run', '-p', 'Wait.'])
  const runId = await run.says(runIdLine)
  await until(() => existsSync(join(person.workspace, 'waiting')))
  const began = performance.now()
  run.child.kill(signal)
  expect((await run.ended).exitCode).toBe(code)
  expect(performance.now() - began).toBeLessThan(7_000)
  const item = await person.cp.client.runs.get(runId)
  expect(item.state).toBe('CANCELLED')
  expect(item.status_message?.message).toContain('interrupted')
  const { executions } = await person.cp.client.runs.executions(runId)
  expect(executions).toMatchObject([{ state: 'ended' }])
  expect((await person.cp.client.runs.workspace(runId)).repositories).toMatchObject([{ dir: '.', files_changed: 1 }])
})

test('a second Ctrl-C ends it at once, with everything that it had started', async () => {
  const stubborn = command(`trap '' TERM INT; echo $$ > waiting; while :; do sleep 0.1; done`)
  await using person = await startPersonAtWork({ steps: [stubborn] })
  const run = person.oz(['agent', 'run', '-p', 'Wait.'])
  const runId = await run.says(runIdLine)
  await until(() => existsSync(join(person.workspace, 'waiting')))
  const pid = Number(readFileSync(join(person.workspace, 'waiting'), 'utf8'))
  run.child.kill('SIGINT')
  // What follows within 400 ms is the same keypress.
  await new Promise((resolve) => setTimeout(resolve, 500))
  const began = performance.now()
  run.child.kill('SIGINT')
  expect((await run.ended).exitCode).toBe(130)
  expect(performance.now() - began).toBeLessThan(2_000)
  expect(isRunning(pid)).toBe(false)
  expect((await person.cp.waitFor(runId, 'CANCELLED')).state).toBe('CANCELLED')
})

test('it never runs as somebody else: keys that are wrong, empty or of another kind are refused', async () => {
  await using person = await startPersonAtWork({ steps: [] })
  const { oz } = person
  const saved = join(person.folder, 'home', '.config', 'openoz')
  mkdirSync(saved, { recursive: true })
  const login = JSON.stringify({ server_url: person.cp.url, api_key: person.cp.adminKey })
  writeFileSync(join(saved, 'config.json'), login, { mode: 0o600 })
  const args = ['agent', 'run', '-p', 'x']
  const wrong = await oz(args, { env: { WARP_API_KEY: 'wk-wrong' } }).ended
  expect(wrong).toMatchObject({ exitCode: 1, stdout: '', stderr: expect.stringContaining('api_key_unknown') })
  const blank = await oz(args, { env: { WARP_API_KEY: ' ' } }).ended
  expect(blank).toMatchObject({ exitCode: 1, stdout: '', stderr: expect.stringContaining('WARP_API_KEY') })
  const { body } = await person.cp.request<{ key: string; api_key: string }>('POST', '/api/v1/api-keys', {
    json: { name: 'w', scope: 'worker', worker_id: 'w1' },
  })
  const worker = await oz(args, {
    env: { WARP_API_KEY: Object.values(body).find((one) => String(one).startsWith('wk-')) },
  }).ended
  expect(worker).toMatchObject({ exitCode: 1, stdout: '', stderr: expect.stringContaining('not_authorized') })
  expect((await person.cp.client.runs.list()).runs).toEqual([])
})

test('wrong use is told from failure', async () => {
  await using person = await startPersonAtWork({ steps: [] })
  const { oz } = person
  const usage = async (...args: string[]) => {
    const { exitCode, stderr } = await oz(['agent', 'run', ...args]).ended
    return `${exitCode} ${/\[(\w+)\]$/m.exec(stderr.trim())?.[1] ?? 'usage'}`
  }
  expect(
    await Promise.all([
      usage(),
      usage('--share', 'do it'),
      usage('-p', 'x', '--share', 'team:own'),
      usage('-p', 'x', '--mcp', 'linear'),
      usage('-p', 'x', '--harness', 'claude'),
      usage('-p', 'x', '--harness', 'none'),
      usage('-p', 'x', '--idle-on-complete', 'soon'),
      usage('-p', 'x', '--unknown'),
      usage('-p', 'x', '--task-id', '0198c2f0-0000-7000-8000-000000000000'),
      usage('-p', 'x', '--cwd', 'absent'),
      usage('-p', 'x', '--file', 'absent.yaml'),
    ]),
  ).toEqual([
    '2 usage',
    '2 share_invalid',
    '2 share_invalid',
    '2 flag_not_available',
    '2 flag_not_available',
    '2 flag_invalid',
    '2 flag_invalid',
    '2 usage',
    '2 usage',
    '1 working_directory_invalid',
    '1 config_file_invalid',
  ])
  expect((await person.cp.client.runs.list()).runs).toEqual([])
})

test('a control plane that cannot be reached is said within seconds', async () => {
  await using person = await startPersonAtWork({ steps: [] })
  const began = performance.now()
  const env = { WARP_SERVER_ROOT_URL: 'http://127.0.0.1:1' }
  const { exitCode, stderr } = await person.oz(['agent', 'run', '-p', 'x'], { env }).ended
  expect({ exitCode, stderr }).toEqual({ exitCode: 1, stderr: expect.stringContaining('server_unreachable') })
  expect(performance.now() - began).toBeLessThan(10_000)
})

test('a control plane that goes away in the middle is told everything when it returns', async () => {
  await using person = await startPersonAtWork({ steps: [waiting(), { text: 'Done.' }] })
  const { cp } = person
  const run = person.oz(['agent', 'run', '-p', 'Wait.'])
  const runId = await run.says(runIdLine)
  await until(() => existsSync(join(person.workspace, 'waiting')))
  const port = Number(new URL(cp.url).port)
  await cp.stop()
  writeFileSync(join(person.workspace, 'go'), '')
  await run.says(/✔/)
  await cp.addServer({ port })
  expect((await run.ended).exitCode).toBe(0)
  expect((await cp.client.runs.get(runId)).state).toBe('SUCCEEDED')
  const types = (await cp.eventsOf(runId)).map(({ type }) => type)
  expect(types).toEqual(expect.arrayContaining(['tool_call', 'tool_call_update', 'agent_message_chunk']))
  expect(types).not.toContain('event_invalid')
})

test('after a failure it waits for a follow-up when that was wished, and its last turn decides', async () => {
  await using person = await startPersonAtWork({
    handler: ({ body }) =>
      JSON.stringify(body).includes('Again.')
        ? { text: 'Better.' }
        : { status: 400, body: { error: { message: 'no' } } },
  })
  const run = person.oz(['agent', 'run', '-p', 'Try.'], { env: { OZ_IDLE_ON_FAIL: '5s' } })
  const runId = await run.says(runIdLine)
  await until(async () => ['FAILED', 'ERROR'].includes((await person.cp.client.runs.get(runId)).state))
  await person.cp.client.runs.followUp(runId, { message: 'Again.' })
  expect((await run.ended).exitCode).toBe(0)
  expect((await person.cp.client.runs.get(runId)).state).toBe('SUCCEEDED')
})

test('what could not be delivered is delivered by the next run of the machine', async () => {
  await using person = await startPersonAtWork({
    handler: ({ body }) => (JSON.stringify(body).includes('Next.') ? { text: 'Next done.' } : waiting()),
  })
  const { cp } = person
  const run = person.oz(['agent', 'run', '-p', 'Wait.'])
  const runId = await run.says(runIdLine)
  await until(() => existsSync(join(person.workspace, 'waiting')))
  await until(async () => (await cp.eventsOf(runId)).some(({ type }) => type === 'tool_call'))
  const port = Number(new URL(cp.url).port)
  await cp.stop()
  run.child.kill('SIGINT')
  const { exitCode, stderr } = await run.ended
  expect({ exitCode, stderr }).toEqual({
    exitCode: 130,
    stderr: expect.stringContaining('Not everything could be delivered'),
  })
  await cp.addServer({ port })
  expect((await cp.client.runs.get(runId)).state).toBe('INPROGRESS')
  expect((await person.oz(['agent', 'run', '-p', 'Next.']).ended).exitCode).toBe(0)
  expect((await cp.client.runs.get(runId)).state).toBe('CANCELLED')
})

test('a reader that has seen enough does not end the run', async () => {
  await using person = await startPersonAtWork({ steps: [waiting(), { text: 'Done.' }] })
  const run = person.oz(['agent', 'run', '-p', 'Wait.'])
  const runId = await run.says(runIdLine)
  run.child.stdout?.destroy()
  await until(() => existsSync(join(person.workspace, 'waiting')))
  writeFileSync(join(person.workspace, 'go'), '')
  expect((await run.ended).exitCode).toBe(0)
  expect((await person.cp.client.runs.get(runId)).state).toBe('SUCCEEDED')
})
