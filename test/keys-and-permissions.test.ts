import { expect, test } from 'vitest'
import { type Action, permissions } from '../packages/server/src/domain/permissions.ts'
import { type ControlPlane, startControlPlane } from './support/control-plane.ts'
import { addMember, addTeam } from './support/people.ts'
import { until } from './support/poll.ts'
import { WorkerRefused } from './support/test-worker.ts'

const whoami = (cp: ControlPlane, key: string | null) =>
  cp.request<{ code: string; uid: string; detail: string }>('GET', '/api/v1/whoami', { key })

test('a request without a key, with an unknown, an expired or a revoked one is told which', async () => {
  await using cp = await startControlPlane()
  expect(await whoami(cp, null)).toMatchObject({ status: 401, body: { code: 'api_key_missing' } })
  const unknown = await whoami(cp, 'wk-this-is-unknown-1234')
  expect(unknown).toMatchObject({ status: 401, body: { code: 'api_key_unknown' } })
  expect(unknown.body.detail).toContain('ends in 1234')
  expect(JSON.stringify(unknown.body)).not.toContain('wk-this')

  const inAnHour = new Date(Date.now() + 3600_000).toISOString()
  const expiring = await cp.client.apiKeys.create({ name: 'short', expires_at: inAnHour })
  const known = await cp.clientFor(expiring.raw_api_key).whoami()
  expect([[known.workspace_uid], [known.workspace_name]]).toEqual([known.team_uids, known.team_names])
  await cp.advanceDatabaseClock({ seconds: 3601 })
  expect(await whoami(cp, expiring.raw_api_key)).toMatchObject({ status: 401, body: { code: 'api_key_expired' } })

  const revoked = await cp.client.apiKeys.create({ name: 'gone' })
  expect(await cp.client.apiKeys.expire('gone')).toEqual({ uid: revoked.api_key.uid })
  expect(await whoami(cp, revoked.raw_api_key)).toMatchObject({ status: 401, body: { code: 'api_key_revoked' } })
  await expect(cp.client.apiKeys.expire('gone')).rejects.toMatchObject({ problem: { code: 'api_key_not_found' } })
  await expect(cp.client.apiKeys.expire('\0')).rejects.toMatchObject({ problem: { status: 400 } })
})

test('a key is shown once and stored as a hash', async () => {
  await using cp = await startControlPlane()
  const { raw_api_key, api_key } = await cp.client.apiKeys.create({ name: 'mine' })
  expect(api_key).toMatchObject({ name: 'mine', scope: 'user', key_suffix: raw_api_key.slice(-4) })
  const { api_keys } = await cp.client.apiKeys.list()
  expect(api_keys.map(({ name }) => name)).toEqual(['admin', 'mine'])
  expect(JSON.stringify(api_keys)).not.toContain(raw_api_key)
  const dump = await cp.db.query(
    'select api_keys::text as row from api_keys union all select audit_events::text from audit_events',
  )
  expect(JSON.stringify(dump)).not.toContain(raw_api_key)
})

test('a worker’s key connects as its worker and can do nothing else', async () => {
  await using cp = await startControlPlane()
  const { raw_api_key: key } = await cp.client.apiKeys.create({ name: 'w', scope: 'worker', worker_id: 'w1' })
  await cp.connectWorker({ key, workerId: 'w1' })
  await expect(cp.connectWorker({ key, workerId: 'w2' })).rejects.toBeInstanceOf(WorkerRefused)
  await expect(cp.connectWorker({ key, workerId: 'w2' })).rejects.toMatchObject({
    problem: { code: 'worker_key_other_worker', status: 403 },
  })
  expect(await cp.request('GET', '/api/v1/agent/runs', { key })).toMatchObject({
    status: 403,
    body: { code: 'not_authorized', detail: expect.stringContaining('The worker key w may not read runs') },
  })
})

test('a worker’s key names its worker', async () => {
  await using cp = await startControlPlane()
  await expect(cp.client.apiKeys.create({ name: 'w', scope: 'worker' })).rejects.toMatchObject({
    problem: { code: 'invalid_request', status: 400, detail: expect.stringContaining('needs worker_id') },
  })
})

test('a key that is revoked loses its worker’s connection too', async () => {
  await using cp = await startControlPlane()
  const { raw_api_key: key } = await cp.client.apiKeys.create({ name: 'w', scope: 'worker', worker_id: 'w1' })
  const worker = await cp.connectWorker({ key })
  const kept = await cp.connectWorker({ workerId: 'kept' })
  await cp.client.apiKeys.expire('w')
  expect(await worker.closed).toEqual({ code: 4401, reason: 'the key is no longer valid' })
  const runId = await cp.createRun()
  expect((await kept.nextAssignment()).task_id).toBe(runId)
})

test('an execution’s token reaches its own channel and nothing else', async () => {
  await using cp = await startControlPlane()
  const { agent, runId } = await cp.startAgent()
  const key = agent.token
  expect(await whoami(cp, key)).toMatchObject({ status: 200, body: { uid: agent.executionId, key_scope: 'execution' } })
  for (const [method, path] of [
    ['GET', '/agent/runs'],
    ['GET', `/agent/runs/${runId}`],
    ['POST', `/agent/runs/${runId}/cancel`],
    ['GET', '/api-keys'],
    ['GET', '/workers'],
  ] as const)
    expect(await cp.request(method, `/api/v1${path}`, { key })).toMatchObject({
      status: 403,
      body: { code: 'not_authorized' },
    })
  expect(await cp.request('GET', '/api/v1/agent-channel/commands', {})).toMatchObject({ status: 403 })
})

test('a personal run is seen by its creator alone, a team’s run by everyone in the team and nobody else', async () => {
  await using cp = await startControlPlane()
  const member = await addMember(cp, 'member')
  const stranger = await addTeam(cp, 'strangers')
  const { raw_api_key: teamKey } = await cp.client.apiKeys.create({ name: 'team', scope: 'team' })
  const personal = await cp.createRun({ team: false })
  const shared = await cp.createRun()
  const child = await cp.createRun({ parent_run_id: shared, team: false })
  const keys = { creator: cp.adminKey, member: member.key, team: teamKey, stranger: stranger.key }
  const visible: Record<string, string[]> = {
    creator: [personal, shared, child],
    member: [shared],
    team: [shared],
    stranger: [],
  }
  for (const [name, key] of Object.entries(keys)) {
    const client = cp.clientFor(key)
    const { runs } = await client.runs.list()
    expect([name, runs.map(({ run_id }) => run_id).sort()]).toEqual([name, visible[name]?.sort()])
    for (const runId of [personal, shared, child]) {
      const isVisible = visible[name]?.includes(runId)
      for (const path of [
        '',
        '/events',
        '/events/stream',
        '/executions',
        '/why',
        '/cancel',
        '/workspace',
        '/workspace/0/diff',
        '/conversation',
        '/transcript',
      ]) {
        const method = path === '/cancel' ? 'POST' : 'GET'
        if (isVisible && (path === '/events/stream' || path === '/cancel')) continue
        const { status, body } = await cp.request(method, `/api/v1/agent/runs/${runId}${path}`, { key })
        if (!isVisible) expect([name, path, status, body.code]).toEqual([name, path, 404, 'run_not_found'])
        else expect([name, path, status]).toEqual([name, path, path.startsWith('/workspace') ? 404 : 200])
      }
    }
  }
  const strangersClient = cp.clientFor(stranger.key)
  await expect(strangersClient.runs.create({ prompt: 'x', parent_run_id: shared })).rejects.toMatchObject({
    problem: { code: 'run_not_found' },
  })
  await expect(strangersClient.runs.list({ ancestor_run_id: shared })).rejects.toMatchObject({
    problem: { code: 'run_not_found' },
  })
  expect((await cp.clientFor(member.key).runs.list({ ancestor_run_id: shared })).runs).toEqual([])
  // A team's key has no person: what it starts is the team's, whatever it asks for.
  const { run_id } = await cp.clientFor(teamKey).runs.create({ prompt: 'x', team: false })
  expect((await cp.clientFor(member.key).runs.get(run_id)).scope.type).toBe('Team')
})

test('members make keys for themselves; only admins make team and worker keys and end those of others', async () => {
  await using cp = await startControlPlane()
  const member = cp.clientFor((await addMember(cp, 'member')).key)
  const admin = cp.clientFor((await addMember(cp, 'admin')).key)
  const own = await member.apiKeys.create({ name: 'own' })
  for (const scope of ['team', 'worker'] as const) {
    const request = { name: scope, scope, ...(scope === 'worker' ? { worker_id: 'w1' } : {}) }
    await expect(member.apiKeys.create(request)).rejects.toMatchObject({
      problem: { code: 'not_authorized' },
    })
    await admin.apiKeys.create(request)
  }
  expect((await member.apiKeys.list()).api_keys.map(({ name }) => name)).toEqual(['key of a member', 'own'])
  await expect(member.apiKeys.expire('admin')).rejects.toMatchObject({ problem: { code: 'api_key_not_found' } })
  expect(await admin.apiKeys.expire(own.api_key.uid)).toEqual({ uid: own.api_key.uid })
  await expect(cp.client.apiKeys.create({ name: 'x', worker_id: 'w' })).rejects.toMatchObject({
    problem: { code: 'invalid_request' },
  })
})

test('the keys of someone who left the team are worth nothing', async () => {
  await using cp = await startControlPlane()
  const { key, userId } = await addMember(cp, 'admin')
  await cp.db.query('delete from members where user_id = $1', [userId])
  expect(await whoami(cp, key)).toMatchObject({ status: 403, body: { code: 'not_authorized' } })
})

test('a client may name its own team, and no other', async () => {
  await using cp = await startControlPlane()
  const id = await cp.createRun()
  const { scope } = await cp.client.runs.get(id)
  const ask = (uid: string) => cp.request('GET', '/api/v1/agent/runs', { headers: { 'x-warp-team-uid': uid } })
  for (const uid of [scope.uid, scope.uid.toUpperCase(), '']) expect(await ask(uid)).toMatchObject({ status: 200 })
  expect(await ask('00000000-0000-4000-8000-000000000000')).toMatchObject({
    status: 403,
    body: { code: 'not_authorized' },
  })
})

/** What the document cannot describe: the agent's own routes, streams aside. Each with the action that guards it. */
const undocumented: Record<string, Action | 'open'> = {
  'GET /api/v1/openapi.json': 'open',
  'GET /api/v1/docs': 'open',
  'POST /api/v1/agent-channel/hello': 'agent.channel',
  'POST /api/v1/agent-channel/events': 'agent.channel',
  'GET /api/v1/agent-channel/commands': 'agent.channel',
  'POST /api/v1/agent-channel/commands/ack': 'agent.channel',
  'POST /api/v1/agent-channel/blobs': 'agent.channel',
  'GET /api/v1/agent-channel/blobs/{blobId}': 'agent.channel',
}

interface Operation {
  /** `link`: the signature in the link is the permission; `join-token`: that token is. */
  'x-action': Action | 'public' | 'link' | 'join-token'
}

async function documentedRoutes(cp: ControlPlane): Promise<Map<string, Operation>> {
  const { body } = await cp.request<{ paths: Record<string, Record<string, Operation>> }>(
    'GET',
    '/api/v1/openapi.json',
    {
      key: null,
    },
  )
  const routes = new Map<string, Operation>()
  for (const [path, operations] of Object.entries(body.paths))
    for (const [method, operation] of Object.entries(operations))
      routes.set(`${method.toUpperCase()} /api/v1${path}`, operation)
  return routes
}

test('every route lets in exactly the kinds of actor that the permission table names', async () => {
  await using cp = await startControlPlane()
  const { agent } = await cp.startAgent()
  const actors = {
    owner: { kind: 'user', rank: 3, key: cp.adminKey },
    admin: { kind: 'user', rank: 2, key: (await addMember(cp, 'admin')).key },
    member: { kind: 'user', rank: 1, key: (await addMember(cp, 'member')).key },
    team: { kind: 'team', rank: 0, key: (await cp.client.apiKeys.create({ name: 't', scope: 'team' })).raw_api_key },
    worker: {
      kind: 'worker',
      rank: 0,
      key: (await cp.client.apiKeys.create({ name: 'w', scope: 'worker', worker_id: 'w1' })).raw_api_key,
    },
    execution: { kind: 'execution', rank: 0, key: agent.token },
    nobody: { kind: 'nobody', rank: 0, key: null },
  } as const
  const ranks = { member: 1, admin: 2, owner: 3 } as const
  const routes = new Map<string, Action | 'open' | 'public'>(Object.entries(undocumented))
  for (const [route, operation] of await documentedRoutes(cp)) {
    const action = operation['x-action']
    if (!action) throw new Error(`${route} names no action`)
    routes.set(route, action === 'link' || action === 'join-token' ? 'open' : action)
  }
  const unknown = '00000000-0000-4000-8000-000000000000'
  for (const [route, action] of routes) {
    if (action === 'open') continue
    const [method = '', template = ''] = route.split(' ')
    const path = template.replace(/\{\w+\}/g, unknown)
    for (const [name, actor] of Object.entries(actors)) {
      // A stream of commands never ends by itself; that it opens is shown elsewhere.
      if (route === 'GET /api/v1/agent-channel/commands' && actor.kind === 'execution') continue
      // Who leaves has no key afterwards.
      const leaving = { name: 'leaving', scope: 'worker', worker_id: 'w1' } as const
      const isLeaving = route === 'DELETE /api/v1/worker-join' && actor.kind === 'worker'
      const { status } = await cp.request(method, path, {
        key: isLeaving ? (await cp.client.apiKeys.create(leaving)).raw_api_key : actor.key,
        ...(method === 'GET' || method === 'DELETE' ? {} : { json: { unknown_key: 1 } }),
      })
      if (action === 'public') {
        expect([route, name, status]).toEqual([route, name, 200])
        continue
      }
      const permission = permissions[action]
      const isAllowed =
        actor.kind === 'user'
          ? permission.user !== null && actor.rank >= ranks[permission.user]
          : actor.kind !== 'nobody' && permission[actor.kind]
      const verdict = status === 401 ? 'unknown' : status === 403 ? 'refused' : 'let in'
      expect([route, name, verdict]).toEqual([
        route,
        name,
        actor.kind === 'nobody' ? 'unknown' : isAllowed ? 'let in' : 'refused',
      ])
    }
  }
})

test('a key’s last use is shown', async () => {
  await using cp = await startControlPlane()
  await cp.client.whoami()
  await until(
    () => cp.client.apiKeys.list(),
    ({ api_keys }) => api_keys[0]?.last_used_at !== null,
  )
})
