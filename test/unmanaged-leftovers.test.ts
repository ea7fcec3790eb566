import { once } from 'node:events'
import { existsSync, readdirSync, readFileSync, statSync, writeFileSync } from 'node:fs'
import { createServer, request, type Server } from 'node:http'
import type { AddressInfo } from 'node:net'
import { join } from 'node:path'
import { expect, test } from 'vitest'
import { git, makeRepository } from './support/agent-fixture.ts'
import { command, isRunning, type PersonAtWork, runIdLine, startPersonAtWork } from './support/person-at-work.ts'
import { until } from './support/poll.ts'

const spoolsOf = ({ folder }: PersonAtWork) => {
  const spools = join(folder, 'home', '.local', 'state', 'openoz', 'spools')
  return existsSync(spools) ? readdirSync(spools).map((name) => join(spools, name)) : []
}

test('of an agent that was killed, the next run sends the rest and ends what it had started; of one at work, nothing', async () => {
  const staying = (file: string) =>
    command(
      `echo $$ > ${file}; until [ -e ${file}.say ]; do sleep 0.1; done; echo spoken; until [ -e ${file}.go ]; do sleep 0.1; done`,
    )
  await using person = await startPersonAtWork({
    handler: ({ body, number }) => {
      const text = JSON.stringify(body)
      if (text.includes('"role":"tool"')) return { text: 'Done.' }
      for (const name of ['killed', 'living']) if (text.includes(`Be ${name}.`)) return staying(name)
      return { text: `Next done ${number}.` }
    },
  })
  const { cp, workspace, oz } = person
  const pidIn = (name: string) => Number(readFileSync(join(workspace, name), 'utf8'))
  const killed = oz(['agent', 'run', '-p', 'Be killed.'])
  const killedId = await killed.says(runIdLine)
  await until(() => existsSync(join(workspace, 'killed')) && pidIn('killed') > 0)
  await until(async () => (await cp.eventsOf(killedId)).some(({ type }) => type === 'tool_call'))
  const [left] = spoolsOf(person)
  expect(statSync(join(left ?? '', 'undelivered.json')).mode & 0o777).toBe(0o600)
  const port = Number(new URL(cp.url).port)
  await cp.stop()
  writeFileSync(join(workspace, 'killed.say'), '')
  const inSpool = () => readdirSync(left ?? '').filter((name) => name.endsWith('.jsonl'))
  await until(() => inSpool().some((name) => readFileSync(join(left ?? '', name), 'utf8').includes('spoken\\n')))
  killed.child.kill('SIGKILL')
  await killed.ended
  expect(isRunning(pidIn('killed'))).toBe(true)
  await cp.addServer({ port })

  const living = oz(['agent', 'run', '-p', 'Be living.'])
  await living.says(runIdLine)
  await until(() => existsSync(join(workspace, 'living')) && pidIn('living') > 0)
  expect((await oz(['agent', 'run', '-p', 'Next.']).ended).exitCode).toBe(0)
  expect(isRunning(pidIn('killed'))).toBe(false)
  expect(existsSync(left ?? '')).toBe(false)
  const said = (await cp.eventsOf(killedId)).filter(({ type }) => type !== 'tool_call')
  expect(JSON.stringify(said)).toContain('spoken\\n')
  expect(isRunning(pidIn('living'))).toBe(true)
  expect(spoolsOf(person)).toHaveLength(1)
  for (const name of ['say', 'go']) writeFileSync(join(workspace, `living.${name}`), '')
  expect((await living.ended).exitCode).toBe(0)
  expect(spoolsOf(person)).toEqual([])
})

/** In front of the control plane; agents are not let in, unless `onHello` says so. */
async function startDoorkeeper(url: string, onHello: () => Promise<'refuse' | 'let in'>): Promise<Server> {
  const server = createServer(async (incoming, answer) => {
    if (incoming.url?.endsWith('/hello') && (await onHello()) === 'refuse') {
      answer.writeHead(410, { 'content-type': 'application/problem+json' })
      answer.end(JSON.stringify({ type: 'about:blank', status: 410, code: 'gone', title: 'Gone', detail: 'No.' }))
      return
    }
    const { method, headers } = incoming
    const onward = request(new URL(incoming.url ?? '/', url), { method, headers }, (inner) => {
      answer.writeHead(inner.statusCode ?? 502, inner.headers)
      inner.pipe(answer)
    })
    incoming.pipe(onward)
  }).listen(0, '127.0.0.1')
  await once(server, 'listening')
  return server
}

test('a run whose agent is not let in is cancelled, and so is one that has no place on the machine', async () => {
  await using person = await startPersonAtWork({ steps: [] })
  const { cp, oz } = person
  const ids: string[] = []
  const doorkeeper = await startDoorkeeper(cp.url, async () => 'refuse')
  try {
    const env = { WARP_SERVER_ROOT_URL: `http://127.0.0.1:${(doorkeeper.address() as AddressInfo).port}` }
    const refused = oz(['agent', 'run', '-p', 'x'], { env })
    expect((await refused.ended).exitCode).toBe(1)
    const runId = await refused.says(runIdLine)
    ids.push(runId)
  } finally {
    doorkeeper.closeAllConnections()
    doorkeeper.close()
  }
  const file = join(person.folder, 'file')
  writeFileSync(file, '')
  const homeless = oz(['agent', 'run', '-p', 'x'], { env: { XDG_STATE_HOME: file } })
  expect((await homeless.ended).exitCode).toBe(1)
  ids.push(await homeless.says(runIdLine))
  for (const runId of ids) expect((await cp.client.runs.get(runId)).state).toBe('CANCELLED')
})

test('a run that is cancelled before its agent said hello says so, and leaves nothing behind', async () => {
  await using person = await startPersonAtWork({ steps: [] })
  const { cp, oz } = person
  const doorkeeper = await startDoorkeeper(cp.url, async () => {
    for (const { run_id, state } of (await cp.client.runs.list()).runs)
      if (state === 'CLAIMED') await cp.client.runs.cancel(run_id)
    return 'let in'
  })
  try {
    const env = { WARP_SERVER_ROOT_URL: `http://127.0.0.1:${(doorkeeper.address() as AddressInfo).port}` }
    for (const format of ['ndjson', 'text']) {
      const run = oz(['--output-format', format, 'agent', 'run', '-p', 'x'], { env })
      const { exitCode, stdout, stderr } = await run.ended
      expect(exitCode).toBe(1)
      expect(stderr).toContain('was cancelled before its agent had begun')
      if (format === 'text') expect(stdout).toContain('CANCELLED')
      else expect(run.objects().at(-1)).toMatchObject({ event_type: 'run_finished', state: 'CANCELLED' })
    }
  } finally {
    doorkeeper.closeAllConnections()
    doorkeeper.close()
  }
  expect((await cp.client.runs.list()).runs.map(({ state }) => state)).toEqual(['CANCELLED', 'CANCELLED'])
  expect(spoolsOf(person)).toEqual([])
})

test('interrupted before its agent said hello, a run is cancelled at once', async () => {
  await using person = await startPersonAtWork({ steps: [] })
  const { cp, oz } = person
  const asked = Promise.withResolvers<void>()
  const answered = Promise.withResolvers<'refuse'>()
  const doorkeeper = await startDoorkeeper(cp.url, () => {
    asked.resolve()
    return answered.promise
  })
  const env = { WARP_SERVER_ROOT_URL: `http://127.0.0.1:${(doorkeeper.address() as AddressInfo).port}` }
  const run = oz(['agent', 'run', '-p', 'x'], { env })
  try {
    await asked.promise
    run.child.kill('SIGINT')
    expect((await run.ended).exitCode).toBe(130)
    expect((await cp.client.runs.list()).runs).toMatchObject([{ state: 'CANCELLED', is_sandbox_running: false }])
  } finally {
    answered.resolve('refuse')
    doorkeeper.closeAllConnections()
    doorkeeper.close()
  }
})

test('started by a git hook of another repository, it works in its folder, and saves that', async () => {
  await using person = await startPersonAtWork({
    steps: [command('git rev-parse --show-toplevel; echo run > made.txt'), { text: 'Done.' }],
  })
  const { cp, workspace, folder } = person
  makeRepository(workspace, { 'a.txt': 'a\n' })
  const other = makeRepository(join(folder, 'other'), { 'o.txt': 'o\n' })
  const index = join(other, '.git', 'index')
  const env = { GIT_DIR: join(other, '.git'), GIT_WORK_TREE: other, GIT_INDEX_FILE: index, GIT_PREFIX: '' }
  const before = git(other, 'status', '--short')
  const run = person.oz(['agent', 'run', '-p', 'Do it.'], { env })
  expect((await run.ended).exitCode).toBe(0)
  expect(run.stdout).toContain(workspace)
  const { repositories } = await cp.client.runs.workspace(await run.says(runIdLine))
  expect(repositories).toMatchObject([{ dir: '.', files_changed: 1 }])
  expect(git(other, 'status', '--short')).toBe(before)
})

test('in a folder without git, a file that the run overwrites is in its diff', async () => {
  await using person = await startPersonAtWork({ steps: [command('echo run > exist.txt'), { text: 'Done.' }] })
  const { cp, workspace } = person
  writeFileSync(join(workspace, 'exist.txt'), 'own\n')
  writeFileSync(join(workspace, '.env'), 'TOKEN=1\n')
  const run = person.oz(['agent', 'run', '-p', 'Do it.'])
  expect((await run.ended).exitCode).toBe(0)
  const runId = await run.says(runIdLine)
  const diff = (await cp.request<string>('GET', `/api/v1/agent/runs/${runId}/workspace/0/diff`)).body
  expect(diff.split('\n').filter((line) => /^[-+]\w/.test(line))).toEqual(['-own', '+run'])
  expect(spoolsOf(person)).toEqual([])
})
