import { randomBytes } from 'node:crypto'
import { once } from 'node:events'
import { createServer } from 'node:http'
import type { AddressInfo } from 'node:net'
import { expect, test } from 'vitest'
import { redeemToken } from '../packages/cli/src/join/redeem-token.ts'
import { type ControlPlane, startControlPlane } from './support/control-plane.ts'
import { addMember } from './support/people.ts'
import { until } from './support/poll.ts'

const joining = (changes: { worker_id?: string; nonce?: string } = {}) => ({
  worker_id: 'build-1',
  host: 'build',
  platform: 'linux/x64',
  nonce: randomBytes(16).toString('hex'),
  ...changes,
})

const whoami = async (cp: ControlPlane, key: string) => (await cp.request('GET', '/api/v1/whoami', { key })).body.code

test('a token is checked without being spent, and redeemed for a key that connects as its worker', async () => {
  await using cp = await startControlPlane()
  const { token, expires_at } = await cp.client.workers.createJoinToken({})
  expect(token).toMatch(/^jt-[\w-]{43}$/)
  expect(Date.parse(expires_at) - Date.now()).toBeGreaterThan(59 * 60_000)
  const machine = cp.clientFor(token).workers
  for (let n = 0; n < 2; n++) expect(await machine.checkJoinToken()).toEqual({ worker_id: null, expires_at })

  const joined = await machine.join(joining())
  expect(joined).toEqual({
    api_key: expect.stringMatching(/^wk-/),
    key_id: expect.stringMatching(/^[\w-]{36}$/),
    worker_id: 'build-1',
  })
  await cp.connectWorker({ key: joined.api_key, workerId: 'build-1' })
  await expect(cp.connectWorker({ key: joined.api_key, workerId: 'other' })).rejects.toMatchObject({
    problem: { code: 'worker_key_other_worker' },
  })
  const { api_keys } = await cp.client.apiKeys.list()
  expect(api_keys).toContainEqual(
    expect.objectContaining({
      ...{ uid: joined.key_id, name: 'joined from build: build-1' },
      ...{ scope: 'worker', worker_id: 'build-1' },
    }),
  )
})

test('a token that was used, is over, or is none, is told so and makes nothing', async () => {
  await using cp = await startControlPlane()
  const used = await cp.client.workers.createJoinToken({})
  await cp.clientFor(used.token).workers.join(joining())
  const late = await cp.client.workers.createJoinToken({ expires_in_minutes: 5 })
  const before = (await cp.client.apiKeys.list()).api_keys.length
  await cp.advanceDatabaseClock({ seconds: 301 })
  for (const [key, status, code] of [
    [used.token, 410, 'join_token_used'],
    [late.token, 410, 'join_token_expired'],
    [`jt-${'x'.repeat(43)}`, 401, 'join_token_invalid'],
    [cp.adminKey, 401, 'join_token_invalid'],
    [null, 401, 'join_token_invalid'],
  ] as const) {
    expect(await cp.request('GET', '/api/v1/worker-join', { key })).toMatchObject({ status, body: { code } })
    expect(await cp.request('POST', '/api/v1/worker-join', { key, json: joining() })).toMatchObject({
      status,
      body: { code },
    })
  }
  expect((await cp.client.apiKeys.list()).api_keys.length).toBe(before)
})

test('who lost the answer asks again with the same number and gets a key in place of the lost one, for ten minutes', async () => {
  await using cp = await startControlPlane()
  const { token } = await cp.client.workers.createJoinToken({ expires_in_minutes: 1 })
  const machine = cp.clientFor(token).workers
  const request = joining()
  const lost = await machine.join(request)
  await expect(machine.join(joining())).rejects.toMatchObject({ problem: { code: 'join_token_used' } })

  // Past the token's own end: it was redeemed in time.
  await cp.advanceDatabaseClock({ seconds: 590 })
  const again = await machine.join(request)
  expect(await whoami(cp, lost.api_key)).toBe('api_key_revoked')
  expect(await whoami(cp, again.api_key)).toBeUndefined()
  await cp.advanceDatabaseClock({ seconds: 20 })
  await expect(machine.join(request)).rejects.toMatchObject({ problem: { code: 'join_token_used' } })
  expect(await whoami(cp, again.api_key)).toBeUndefined()
})

test('of many machines with one token one joins', async () => {
  await using cp = await startControlPlane()
  const { token } = await cp.client.workers.createJoinToken({})
  const machines = Array.from({ length: 8 }, (_, n) =>
    cp.clientFor(token).workers.join(joining({ worker_id: `build-${n}` })),
  )
  const outcomes = await Promise.allSettled(machines)
  expect(outcomes.filter(({ status }) => status === 'fulfilled')).toHaveLength(1)
  const { api_keys } = await cp.client.apiKeys.list()
  expect(api_keys.filter(({ scope }) => scope === 'worker')).toHaveLength(1)
})

test('a token for one worker id lets in no other, and stays good', async () => {
  await using cp = await startControlPlane()
  const { token } = await cp.client.workers.createJoinToken({ worker_id: 'build-7' })
  const machine = cp.clientFor(token).workers
  expect(await machine.checkJoinToken()).toMatchObject({ worker_id: 'build-7' })
  await expect(machine.join(joining())).rejects.toMatchObject({
    problem: { code: 'join_token_other_worker', status: 409 },
  })
  expect(await machine.join(joining({ worker_id: 'build-7' }))).toMatchObject({ worker_id: 'build-7' })
  for (const worker_id of ['warp-1', '\0'])
    await expect(cp.client.workers.createJoinToken({ worker_id })).rejects.toMatchObject({ problem: { status: 400 } })
})

test('a token for any worker takes the id of none that is there, but for the machine itself; one for that worker does', async () => {
  await using cp = await startControlPlane()
  const tokenOf = async (worker_id?: string) => (await cp.client.workers.createJoinToken({ worker_id })).token
  const join = (token: string, changes: { worker_id?: string; worker_key?: string } = {}) =>
    cp.clientFor(token).workers.join({ ...joining(), ...changes })
  const taken = { problem: { code: 'worker_id_taken', status: 409 } }
  const machine = await join(await tokenOf())
  const other = await tokenOf()
  await expect(join(other)).rejects.toMatchObject(taken)
  await expect(join(other, { worker_key: cp.adminKey })).rejects.toMatchObject(taken)
  const foreign = await join(other, { worker_id: 'build-2' })
  const again = await tokenOf()
  await expect(join(again, { worker_key: foreign.api_key })).rejects.toMatchObject(taken)
  const second = await join(again, { worker_key: machine.api_key })
  // That one goes when its worker has stopped.
  expect(await whoami(cp, machine.api_key)).toBeUndefined()
  await cp.clientFor(machine.api_key).workers.leave()
  await join(await tokenOf('build-1'))
  expect(await whoami(cp, second.api_key)).toBeUndefined()

  // Of two at once one is first.
  const [one, two] = [await tokenOf(), await tokenOf()]
  const both = await Promise.allSettled([join(one, { worker_id: 'new' }), join(two, { worker_id: 'new' })])
  expect(both.map(({ status }) => status).sort()).toEqual(['fulfilled', 'rejected'])

  const short = await tokenOf()
  const made = await cp.client.apiKeys.create({ name: 'of a person', scope: 'worker', worker_id: 'by-hand' })
  await expect(join(short, { worker_id: 'by-hand' })).rejects.toMatchObject(taken)
  await cp.clientFor(made.raw_api_key).workers.leave()
  await join(short, { worker_id: 'by-hand' })
})

test('a worker’s key ends itself, and loses its connection', async () => {
  await using cp = await startControlPlane()
  const { token } = await cp.client.workers.createJoinToken({})
  const { api_key: key } = await cp.clientFor(token).workers.join(joining())
  const worker = await cp.connectWorker({ key, workerId: 'build-1' })
  await cp.clientFor(key).workers.leave()
  expect(await worker.closed).toMatchObject({ code: 4401 })
  expect(await whoami(cp, key)).toBe('api_key_revoked')
})

test('a token goes with the rights of who made it', async () => {
  await using cp = await startControlPlane()
  const admin = await addMember(cp, 'admin')
  const { token } = await cp.clientFor(admin.key).workers.createJoinToken({})
  const machine = cp.clientFor(token).workers
  await machine.checkJoinToken()
  await cp.db.query(`update members set role = 'member' where user_id = $1`, [admin.userId])
  await expect(machine.checkJoinToken()).rejects.toMatchObject({ problem: { code: 'join_token_invalid' } })
  const member = await addMember(cp, 'member')
  await expect(cp.clientFor(member.key).workers.createJoinToken({})).rejects.toMatchObject({
    problem: { code: 'not_authorized' },
  })
})

test('neither token nor key is in the database, and who joined is on record', async () => {
  await using cp = await startControlPlane()
  const { token } = await cp.client.workers.createJoinToken({})
  const { api_key } = await cp.clientFor(token).workers.join(joining())
  const rows = await cp.db.query<{ row: string }>(
    `select join_tokens::text as row from join_tokens union all select api_keys::text from api_keys
      union all select audit_events::text from audit_events`,
  )
  const text = JSON.stringify(rows)
  expect(text).not.toContain(token)
  expect(text).not.toContain(api_key)
  const actions = await cp.db.query<{ action: string }>(
    `select action from audit_events where action like '%join%' order by id`,
  )
  expect(actions.map(({ action }) => action)).toEqual(['join-token.create', 'worker.join'])
})

test('a machine whose answer is cut off on the way asks again, and has one key', async () => {
  await using cp = await startControlPlane()
  const { token } = await cp.client.workers.createJoinToken({})
  let asked = 0
  // The control plane has answered, and nobody hears it.
  const relay = createServer(async (request, response) => {
    const body = Buffer.concat(await request.toArray())
    const { authorization = '', 'content-type': type = '' } = request.headers
    const answer = await fetch(`${cp.url}${request.url}`, {
      method: request.method ?? 'GET',
      headers: { authorization, ...(type && { 'content-type': type }) },
      ...(body.length > 0 && { body }),
    })
    const text = await answer.text()
    asked++
    if (asked === 1) return request.socket.destroy()
    response.writeHead(answer.status, { 'content-length': text.length })
    if (asked === 2) return response.write(text.slice(0, 20), () => request.socket.destroy())
    response.end(text)
  })
  relay.listen(0, '127.0.0.1')
  await once(relay, 'listening')
  const serverUrl = `http://127.0.0.1:${(relay.address() as AddressInfo).port}`
  try {
    const once = { workerId: 'build-1', nonce: 'a'.repeat(32) }
    const { api_key } = await redeemToken({ serverUrl, token, env: {} }, once)
    expect(asked).toBe(3)
    await cp.connectWorker({ key: api_key, workerId: 'build-1' })
    const { api_keys } = await cp.client.apiKeys.list()
    expect(api_keys.filter(({ scope }) => scope === 'worker')).toHaveLength(1)
    const other = { workerId: 'build-1', nonce: 'b'.repeat(32) }
    await expect(redeemToken({ serverUrl, token, env: {} }, other)).rejects.toMatchObject({
      problem: { code: 'join_token_used' },
    })
  } finally {
    relay.closeAllConnections()
    relay.close()
  }
})

test('expired tokens are kept for a day, and then go', async () => {
  await using cp = await startControlPlane()
  await cp.client.workers.createJoinToken({ expires_in_minutes: 1 })
  const old = await cp.client.workers.createJoinToken({ expires_in_minutes: 1 })
  expect(old.token).toMatch(/^jt-/)
  const count = async () => (await cp.db.query('select id from join_tokens')).length
  await cp.advanceDatabaseClock({ seconds: 60 + 24 * 3600 - 30 })
  await cp.restart()
  await until(() => cp.client.whoami(), Boolean)
  expect(await count()).toBe(2)
  await cp.advanceDatabaseClock({ seconds: 60 })
  await cp.restart()
  await until(count, (rows) => rows === 0, { timeoutMs: 15_000 })
})
