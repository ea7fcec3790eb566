import { expect, test } from 'vitest'
import { type ControlPlane, startControlPlane } from './support/control-plane.ts'

const post = (
  cp: ControlPlane,
  headers: Record<string, string>,
  json: unknown = { prompt: 'x' },
  path = '/agent/runs',
) => cp.request<{ run_id: string; code: string }>('POST', `/api/v1${path}`, { json, headers })

const runCount = async (cp: ControlPlane) => (await cp.client.runs.list({ limit: 500 })).runs.length

test('the same Idempotency-Key and body make one run, whichever spelling of the path', async () => {
  await using cp = await startControlPlane()
  const key = { 'idempotency-key': 'k1' }
  const first = await post(cp, key)
  const second = await post(cp, key, { prompt: 'x' }, '/agent/run')
  expect(second).toMatchObject({ status: 200, body: first.body })
  expect(await runCount(cp)).toBe(1)
})

test('another body under the same key is a conflict that no retry cures', async () => {
  await using cp = await startControlPlane()
  await post(cp, { 'idempotency-key': 'k1' })
  const answer = await post(cp, { 'idempotency-key': 'k1' }, { prompt: 'y' })
  expect(answer).toMatchObject({ status: 409, body: { code: 'idempotency_key_reused', error: 'conflict' } })
  expect(answer.headers.get('x-should-retry')).toBe('false')
})

test('20 requests at the same time with one key make one run', async () => {
  await using cp = await startControlPlane()
  const answers = await Promise.all(Array.from({ length: 20 }, () => post(cp, { 'idempotency-key': 'k1' })))
  expect(new Set(answers.map(({ body }) => body.run_id)).size).toBe(1)
  expect(answers.every(({ status }) => status === 200)).toBe(true)
  expect(await runCount(cp)).toBe(1)
})

test('a request that was refused leaves its key free', async () => {
  await using cp = await startControlPlane()
  expect(await post(cp, { 'idempotency-key': 'k1' }, { prompt: '' })).toMatchObject({ status: 400 })
  expect(await post(cp, { 'idempotency-key': 'k1' })).toMatchObject({ status: 200 })
})

test('a key is forgotten after 24 hours', async () => {
  await using cp = await startControlPlane()
  const first = await post(cp, { 'idempotency-key': 'k1' })
  await cp.advanceDatabaseClock({ seconds: 23 * 3600 })
  expect((await post(cp, { 'idempotency-key': 'k1' })).body).toEqual(first.body)
  await cp.advanceDatabaseClock({ seconds: 2 * 3600 })
  expect((await post(cp, { 'idempotency-key': 'k1' }, { prompt: 'y' })).status).toBe(200)
  expect(await runCount(cp)).toBe(2)
})

test('keys belong to their owner', async () => {
  await using cp = await startControlPlane()
  const { raw_api_key } = await cp.client.apiKeys.create({ name: 'team', scope: 'team' })
  const mine = await post(cp, { 'idempotency-key': 'k1' })
  const theirs = await cp.request<{ run_id: string }>('POST', '/api/v1/agent/runs', {
    key: raw_api_key,
    json: { prompt: 'x' },
    headers: { 'idempotency-key': 'k1' },
  })
  expect(theirs.body.run_id).not.toBe(mine.body.run_id)
})

test('an empty Idempotency-Key is none', async () => {
  await using cp = await startControlPlane()
  await post(cp, { 'idempotency-key': '' })
  await post(cp, { 'idempotency-key': '' })
  expect(await runCount(cp)).toBe(2)
})

test('a retry of the published SDKs gets the first answer; a new first try is a new run', async () => {
  await using cp = await startControlPlane()
  const attempt = (count: number) => post(cp, { 'x-stainless-retry-count': String(count) })
  const first = await attempt(0)
  expect((await attempt(1)).body).toEqual(first.body)
  expect((await attempt(2)).body).toEqual(first.body)
  const again = await attempt(0)
  expect(again.body.run_id).not.toBe(first.body.run_id)
  expect((await attempt(1)).body).toEqual(again.body)

  await cp.advanceDatabaseClock({ seconds: 601 })
  expect((await attempt(1)).body.run_id).not.toBe(again.body.run_id)
})

test('a retry whose first try never arrived makes the run', async () => {
  await using cp = await startControlPlane()
  expect((await post(cp, { 'x-stainless-retry-count': '1' })).status).toBe(200)
  expect(await runCount(cp)).toBe(1)
})

test('first tries with the same body at the same time are as many runs', async () => {
  await using cp = await startControlPlane()
  const answers = await Promise.all(Array.from({ length: 5 }, () => post(cp, { 'x-stainless-retry-count': '0' })))
  expect(new Set(answers.map(({ body }) => body.run_id)).size).toBe(5)
})

test('a repeated request is answered although it could not be started any more', async () => {
  await using cp = await startControlPlane()
  const parent = await cp.createRun()
  const ask = () => post(cp, { 'idempotency-key': 'k1' }, { prompt: 'x', parent_run_id: parent })
  const first = await ask()
  await cp.db.query(`update runs set scope = 'user', created_by_user = null where id = $1`, [parent])
  expect(await ask()).toMatchObject({ status: 200, body: first.body })
  expect(await post(cp, {}, { prompt: 'x', parent_run_id: parent })).toMatchObject({ status: 404 })
})

test('an Idempotency-Key of more than 255 characters is refused: cut, it could be another’s', async () => {
  await using cp = await startControlPlane()
  expect((await post(cp, { 'idempotency-key': 'k'.repeat(255) })).status).toBe(200)
  const answer = await cp.request('POST', '/api/v1/agent/runs', {
    json: { prompt: 'x' },
    headers: { 'idempotency-key': 'k'.repeat(256) },
  })
  expect(answer).toMatchObject({ status: 400, body: { code: 'invalid_request' } })
  expect(answer.body.detail).toContain('has 256 characters; at most 255 are taken')
  expect(await runCount(cp)).toBe(1)
})

test('a repeated request for an API key makes no second one, names the first and keeps its secret out of the database', async () => {
  await using cp = await startControlPlane()
  const ask = (key: string, name = 'ci') =>
    cp.request<{ raw_api_key: string; api_key: { uid: string }; code: string; detail: string }>(
      'POST',
      '/api/v1/api-keys',
      { json: { name }, headers: { 'idempotency-key': key } },
    )
  const first = await ask('k1')
  expect(first.status).toBe(201)
  const second = await ask('k1')
  expect(second).toMatchObject({ status: 409, body: { code: 'api_key_created_before' } })
  expect(second.body.detail).toContain(first.body.api_key.uid)
  expect(second.headers.get('x-should-retry')).toBe('false')
  expect(await ask('k1', 'other')).toMatchObject({ status: 409, body: { code: 'idempotency_key_reused' } })
  expect((await cp.client.apiKeys.list()).api_keys.map(({ name }) => name)).toEqual(['admin', 'ci'])
  const kept = await cp.db.query('select body from idempotency_keys')
  expect(kept).toEqual([{ body: { uid: first.body.api_key.uid } }])
  expect((await ask('k2')).status).toBe(201)
})
