import { mkdirSync, mkdtempSync, rmSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { runAgent } from '@openoz/agent'
import type { CloudEnvironment, CloudEnvironmentConfig, Run } from '@openoz/protocol'
import { pino } from 'pino'
import { expect, test } from 'vitest'
import { makeRepository } from './support/agent-fixture.ts'
import { type ControlPlane, startControlPlane } from './support/control-plane.ts'
import { addMember, addTeam } from './support/people.ts'
import { startScriptedModel } from './support/scripted-model.ts'

const shop = {
  name: 'shop',
  description: 'The shop and what it is tested with.',
  docker_image: 'node:24',
  github_repos: [{ owner: 'acme', repo: 'shop' }],
  source_repos: [{ url: 'https://git.example.com/tools.git', ref: 'v2', dir: 'tools' }],
  setup_commands: ['npm ci'],
  variables: { NODE_ENV: 'test' },
}

const path = '/api/v1/agent/environments'

test('what no run could work in is refused with its reason, and stored neither as new nor in place of another', async () => {
  await using cp = await startControlPlane()
  const { uid } = await cp.client.environments.create(shop)
  const cases = [
    [{ name: ' ' }, 'name is empty'],
    [{ source_repos: [{ url: 'not a repo' }] }, '"not a repo" is no address'],
    [{ source_repos: [{ url: 'ext::sh -c true' }] }, 'is no address'],
    [{ github_repos: [{ owner: 'acme', repo: '..' }] }, '"acme/.." is no address'],
    [{ variables: { A: '1', OZ_X: '1' } }, 'cannot set OZ_X'],
    [{ variables: { GIT_CONFIG_GLOBAL: '/x' } }, 'cannot set GIT_CONFIG_GLOBAL'],
  ] as const
  for (const [config, words] of cases) {
    const refused = { problem: { status: 400, code: 'environment_invalid', detail: expect.stringContaining(words) } }
    const asked = structuredClone(config) as CloudEnvironmentConfig
    await expect(cp.client.environments.create(asked)).rejects.toMatchObject(refused)
    await expect(cp.client.environments.update(uid, asked)).rejects.toMatchObject(refused)
    // Nor is one that a run brings itself.
    const inline = { prompt: 'x', config: { environment: asked } }
    await expect(cp.client.runs.create(inline)).rejects.toMatchObject(refused)
    await expect(cp.client.runs.startLocal({ ...inline, host: 'laptop' })).rejects.toMatchObject(refused)
  }
  expect((await cp.client.environments.list()).environments.map(({ config }) => config)).toEqual([shop])
  expect((await cp.client.runs.list()).runs).toEqual([])
})
const setupDone = { type: 'setup_step', data: { step: 'harness', status: 'completed' } } as const

test('an environment is stored, shown, listed, replaced and deleted', async () => {
  await using cp = await startControlPlane()
  const { uid: me } = await cp.client.whoami()
  const created = await cp.request<CloudEnvironment>('POST', path, { json: shop })
  expect(created).toMatchObject({
    status: 201,
    body: {
      config: shop,
      setup_failed: false,
      last_task_run_timestamp: null,
      scope: { type: 'Team' },
      creator: { type: 'user', uid: me },
      last_editor: { type: 'user', uid: me },
    },
  })
  expect(created.body).not.toHaveProperty('last_task_created')
  const { uid } = created.body
  expect(await cp.client.environments.get(uid)).toEqual(created.body)
  expect(await cp.client.environments.list()).toEqual({ environments: [created.body] })

  await cp.advanceDatabaseClock({ seconds: 60 })
  const replaced = await cp.client.environments.update(uid, { name: 'shop', setup_commands: ['make'] })
  // The whole config: what the request leaves out is gone.
  expect(replaced.config).toEqual({ name: 'shop', setup_commands: ['make'] })
  expect(Date.parse(replaced.last_updated) - Date.parse(created.body.last_updated)).toBeGreaterThanOrEqual(60_000)

  expect(await cp.client.environments.delete(uid)).toEqual({ uid, deleted: true })
  expect(await cp.client.environments.list()).toEqual({ environments: [] })
  const gone = { problem: { status: 404, code: 'environment_not_found' } }
  await expect(cp.client.environments.get(uid)).rejects.toMatchObject(gone)
  await expect(cp.client.environments.update(uid, {})).rejects.toMatchObject(gone)
  await expect(cp.client.environments.delete(uid)).rejects.toMatchObject(gone)
  await expect(cp.client.environments.get('no-uuid')).rejects.toMatchObject(gone)
  await expect(cp.client.environments.get('\0')).rejects.toMatchObject(gone)

  const audit = await cp.db.query<{ action: string }>('select action from audit_events where target = $1 order by id', [
    `environment:${uid}`,
  ])
  expect(audit.map(({ action }) => action)).toEqual(['environment.create', 'environment.update', 'environment.delete'])
})

test('a list is sorted by the last change, or by name with the nameless last', async () => {
  await using cp = await startControlPlane()
  const uids: Record<string, string> = {}
  for (const name of ['beta', 'Alpha', '']) {
    uids[name] = (await cp.client.environments.create(name === '' ? {} : { name })).uid
    await cp.advanceDatabaseClock({ seconds: 1 })
  }
  await cp.client.environments.update(uids.beta ?? '', { name: 'beta', docker_image: 'x' })
  const names = async (sort_by?: 'name' | 'last_updated') =>
    (await cp.client.environments.list(sort_by ? { sort_by } : {})).environments.map(({ config }) => config.name ?? '')
  expect(await names('name')).toEqual(['Alpha', 'beta', ''])
  expect(await names()).toEqual(['beta', '', 'Alpha'])
  expect(await cp.request('GET', `${path}?sort_by=size`)).toMatchObject({ status: 400 })
})

test('a repeated creation with the same Idempotency-Key makes one environment', async () => {
  await using cp = await startControlPlane()
  const create = () => cp.client.environments.create(shop, { idempotencyKey: 'k1' })
  const [first, second] = [await create(), await create()]
  expect(second).toEqual(first)
  expect((await cp.client.environments.list()).environments).toHaveLength(1)
})

test.each([
  ['a description of 241 characters', { description: 'x'.repeat(241) }, /description.*at most 240 characters/],
  ['an unknown key', { colour: 'red' }, /colour/],
  ['a variable that is no name', { variables: { '1X': 'y' } }, /variables/],
  ['a folder outside of the workspace', { source_repos: [{ url: 'acme/shop', dir: '../x' }] }, /dir/],
])('%s is refused in words', async (_, json, words) => {
  await using cp = await startControlPlane()
  const answers = [
    await cp.request('POST', path, { json }),
    await cp.request('PUT', `${path}/${crypto.randomUUID()}`, { json }),
    await cp.request('POST', '/api/v1/agent/runs', { json: { prompt: 'x', config: { environment: json } } }),
  ]
  for (const { status, body } of answers) {
    expect(status).toBe(400)
    expect(JSON.stringify(body)).toMatch(words)
  }
})

test('what PostgreSQL cannot store is replaced, not a failure', async () => {
  await using cp = await startControlPlane()
  const { config } = await cp.client.environments.create({ name: 'a\0b', setup_commands: ['echo \ud800'] })
  expect(config).toEqual({ name: 'a\ufffdb', setup_commands: ['echo \ufffd'] })
})

test('a team’s environment is everyone’s in the team, a personal one is there for its creator alone', async () => {
  await using cp = await startControlPlane()
  const member = await addMember(cp, 'member')
  const stranger = await addTeam(cp, 'strangers')
  const { raw_api_key: teamKey } = await cp.client.apiKeys.create({ name: 'team', scope: 'team' })
  const shared = await cp.client.environments.create({ name: 'shared' })
  const personal = await cp.client.environments.create({ name: 'personal', team: false })
  expect(personal.scope).toEqual({ type: 'User', uid: personal.creator?.uid })
  // A team's key has no person: what it makes is the team's, whatever it asks for.
  const teams = await cp.clientFor(teamKey).environments.create({ name: 'of the key', team: false })
  expect(teams).toMatchObject({ scope: { type: 'Team' }, creator: { type: 'service_account', display_name: 'team' } })

  const seen = {
    [cp.adminKey]: ['of the key', 'personal', 'shared'],
    [member.key]: ['of the key', 'shared'],
    [teamKey]: ['of the key', 'shared'],
    [stranger.key]: [],
  }
  for (const [key, names] of Object.entries(seen)) {
    const client = cp.clientFor(key)
    const { environments } = await client.environments.list({ sort_by: 'name' })
    expect(environments.map(({ config }) => config.name)).toEqual(names)
    for (const { uid, config } of [shared, personal]) {
      const isSeen = names.includes(config.name ?? '')
      const expected = isSeen ? 200 : 404
      const run = { prompt: 'x', config: { environment_id: uid } }
      const answers = [
        await cp.request('GET', `${path}/${uid}`, { key }),
        await cp.request('PUT', `${path}/${uid}`, { key, json: config }),
        await cp.request('POST', '/api/v1/agent/runs', { key, json: run }),
        ...(isSeen ? [] : [await cp.request('DELETE', `${path}/${uid}`, { key })]),
      ]
      expect(answers.map(({ status }) => status)).toEqual(answers.map(() => expected))
    }
  }
  const edited = await cp.clientFor(member.key).environments.update(shared.uid, { name: 'shared' })
  expect(edited).toMatchObject({ creator: { uid: shared.creator?.uid }, last_editor: { uid: member.userId } })
})

test('a run takes a copy: neither a change nor the end of its environment reaches it', async () => {
  await using cp = await startControlPlane()
  const { uid } = await cp.client.environments.create(shop)
  const runId = await cp.createRun({ config: { environment_id: uid.toUpperCase() } })
  await cp.client.environments.update(uid, { name: 'other' })
  const { run_id: later } = await cp.client.runs.create({ prompt: 'x', config: { environment_id: uid } })
  await cp.client.environments.delete(uid)

  const worker = await cp.connectWorker()
  const { hello } = await (async () => {
    const agent = cp.agentFor(await worker.claimNext())
    return { hello: await agent.hello() }
  })()
  expect(hello.run_id).toBe(runId)
  expect(hello.config).toMatchObject({ environment_id: uid, environment: shop })
  const configOf = async (id: string) => (await cp.client.runs.get(id)).agent_config
  expect(await configOf(runId)).toMatchObject({ environment_id: uid, environment: shop })
  expect((await configOf(later)).environment).toEqual({ name: 'other' })

  const listed = async (environment_id: string) =>
    (await cp.client.runs.list({ environment_id })).runs.map(({ run_id }) => run_id).sort()
  expect(await listed(uid)).toEqual([runId, later].sort())
  expect(await listed('empty-environment')).toEqual([])
  await expect(cp.client.runs.create({ prompt: 'x', config: { environment_id: uid } })).rejects.toMatchObject({
    problem: { status: 404, code: 'environment_not_found' },
  })
})

test('a run takes an environment by id or in full, not both', async () => {
  await using cp = await startControlPlane()
  const { uid } = await cp.client.environments.create(shop)
  const both = { environment_id: uid, environment: { setup_commands: ['true'] } }
  expect(await cp.request('POST', '/api/v1/agent/runs', { json: { prompt: 'x', config: both } })).toMatchObject({
    status: 400,
    body: { code: 'environment_given_twice', detail: expect.stringContaining('config.environment_id') },
  })
})

async function endedRun(cp: ControlPlane, config: Run['agent_config']): Promise<Run> {
  const { agent, runId, worker } = await cp.startAgent({ config: { idle_timeout_minutes: 0, ...config } })
  await agent.send(setupDone)
  await agent.end('SUCCEEDED')
  await agent.nextTurn(true)
  await worker.disconnect()
  return cp.waitFor(runId, 'SUCCEEDED')
}

test('forks and continued conversations work in the copy that there is, unless they name another environment', async () => {
  await using cp = await startControlPlane()
  const { uid } = await cp.client.environments.create(shop)
  const other = await cp.client.environments.create({ name: 'other' })
  const first = await endedRun(cp, { environment_id: uid })
  await cp.client.environments.update(uid, { name: 'changed' })

  const forked = await cp.client.runs.fork(first.run_id, { prompt: 'again' })
  expect((await cp.client.runs.get(forked.run_id)).agent_config).toMatchObject({
    environment_id: uid,
    environment: shop,
  })

  const environmentOf = async (config?: Run['agent_config']) => {
    const request = { prompt: 'go on', conversation_id: first.conversation_id, ...(config ? { config } : {}) }
    const { run_id } = await cp.client.runs.create(request)
    const { agent_config } = await cp.client.runs.get(run_id)
    await cp.client.runs.cancel(run_id)
    return { environment_id: agent_config.environment_id, environment: agent_config.environment }
  }
  expect(await environmentOf()).toEqual({ environment_id: uid, environment: shop })
  expect(await environmentOf({ environment_id: other.uid })).toEqual({
    environment_id: other.uid,
    environment: { name: 'other' },
  })
  expect(await environmentOf({ environment: {} })).toEqual({ environment_id: undefined, environment: {} })
})

test('an environment shows its last run, to those who may see that run', async () => {
  await using cp = await startControlPlane()
  const member = await addMember(cp, 'member')
  const { uid } = await cp.client.environments.create(shop)
  const theirs = await endedRun(cp, { environment_id: uid })
  const waiting = await cp.createRun({ title: 'for me', team: false, config: { environment_id: uid } })

  expect(await cp.client.environments.get(uid)).toMatchObject({
    last_task_created: { id: waiting, title: 'for me', state: 'QUEUED', started_at: null },
    // The one that waits has not been started.
    last_task_run_timestamp: theirs.started_at,
  })
  const { environments } = await cp.clientFor(member.key).environments.list()
  expect(environments).toMatchObject([
    {
      last_task_created: { id: theirs.run_id, state: 'SUCCEEDED', started_at: theirs.started_at },
      last_task_run_timestamp: theirs.started_at,
    },
  ])
})

test('a preparation that fails is remembered until one is completed', async () => {
  await using cp = await startControlPlane()
  const { uid, last_updated } = await cp.client.environments.create(shop)
  const other = await cp.client.environments.create({ name: 'other' })
  const isFailed = async () => (await cp.client.environments.get(uid)).setup_failed
  const config = { environment_id: uid, idle_timeout_minutes: 0 }

  const failing = await cp.startAgent({ config }, { workerId: 'w1' })
  await failing.agent.end('FAILED', 'Environment setup failed: …', 'setup_command_failed')
  expect(await isFailed()).toBe(true)
  // Also one that fails for another reason before it has come so far says nothing about it.
  const unprepared = await cp.startAgent({ config }, { workerId: 'w2' })
  await unprepared.agent.end('FAILED', 'no model', 'model_provider_missing')
  expect(await isFailed()).toBe(true)
  const elsewhere = await cp.startAgent({ config: { environment_id: other.uid } }, { workerId: 'w3' })
  await elsewhere.agent.send(setupDone)
  expect(await isFailed()).toBe(true)

  const prepared = await cp.startAgent({ config }, { workerId: 'w4' })
  await prepared.agent.send({ type: 'setup_step', data: { step: 'setup_command', status: 'completed' } })
  expect(await isFailed()).toBe(true)
  await prepared.agent.send(setupDone)
  expect(await isFailed()).toBe(false)
  await prepared.agent.end('FAILED', 'the model gave up', 'internal_error')
  expect(await cp.client.environments.get(uid)).toMatchObject({ setup_failed: false, last_updated })
})

test('a real agent works in a stored environment, and says how its preparation went', async () => {
  await using model = await startScriptedModel({
    apiKey: 'sk-test',
    steps: [{ toolCalls: [{ name: 'run_command', arguments: { command: 'cat made' } }] }, { text: 'Done.' }],
  })
  await using cp = await startControlPlane({ env: { OPENAI_API_KEY: 'sk-test', OPENAI_BASE_URL: `${model.url}/v1` } })
  const folder = mkdtempSync(join(tmpdir(), 'oz-environment-'))
  try {
    const url = `file://${makeRepository(join(folder, 'origin'), { 'a.txt': 'a' })}`
    const { uid } = await cp.client.environments.create({ source_repos: [{ url }], setup_commands: ['exit 3'] })
    const worker = await cp.connectWorker()
    const perform = async (state: 'FAILED' | 'SUCCEEDED') => {
      const runId = await cp.createRun({ config: { environment_id: uid, idle_timeout_minutes: 0 } })
      const assignment = await worker.claimNext()
      const workspace = join(folder, runId)
      mkdirSync(workspace)
      await runAgent({
        serverUrl: cp.url,
        executionToken: assignment.execution_token ?? '',
        spoolDir: join(folder, `spool-${runId}`),
        workingDirectory: workspace,
        log: pino({ level: process.env.OZ_TEST_LOG ?? 'silent' }),
        signal: new AbortController().signal,
        env: { PATH: process.env.PATH, HOME: folder, OZ_EXECUTION_ID: assignment.execution_id },
      })
      await cp.waitFor(runId, state)
      // The process is gone: its slot is free.
      worker.complete(assignment)
      return runId
    }
    const failed = await perform('FAILED')
    expect(await cp.client.environments.get(uid)).toMatchObject({
      setup_failed: true,
      last_task_created: { id: failed, state: 'FAILED' },
    })
    await cp.client.environments.update(uid, {
      source_repos: [{ url }],
      setup_commands: ['echo "$WHAT" > origin/made'],
      variables: { WHAT: 'made by the setup' },
    })
    const events = await cp.eventsOf(await perform('SUCCEEDED'))
    expect(JSON.stringify(events)).toContain('made by the setup')
    expect((await cp.client.environments.get(uid)).setup_failed).toBe(false)
  } finally {
    rmSync(folder, { recursive: true, force: true })
  }
})
