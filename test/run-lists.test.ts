import { expect, test } from 'vitest'
import { type ControlPlane, startControlPlane } from './support/control-plane.ts'

/** Runs with times a minute apart, oldest first. */
async function createRuns(cp: ControlPlane, requests: Parameters<ControlPlane['createRun']>[0][]): Promise<string[]> {
  const ids: string[] = []
  for (const request of requests) ids.push(await cp.createRun(request))
  for (const [index, id] of ids.entries())
    await cp.db.query(
      `update runs set created_at = timestamptz '2026-01-01 00:00Z' + $2 * interval '1 minute',
                       updated_at = timestamptz '2026-01-01 00:00Z' + $2 * interval '1 minute' where id = $1`,
      [id, index],
    )
  return ids
}

const titles = async (cp: ControlPlane, params: Record<string, string | number | string[]>) =>
  (await cp.client.runs.list(params)).runs.map(({ title }) => title)

test('runs are listed by their last change, newest first, and in pages', async () => {
  await using cp = await startControlPlane()
  const ids = await createRuns(
    cp,
    Array.from({ length: 7 }, (_, i) => ({ title: `t${i}` })),
  )
  const seen: string[] = []
  let cursor: string | undefined
  do {
    const page = await cp.client.runs.list({ limit: 3, cursor })
    seen.push(...page.runs.map(({ run_id }) => run_id))
    expect(page.page_info.has_next_page).toBe(page.page_info.next_cursor !== undefined)
    cursor = page.page_info.next_cursor
  } while (cursor)
  expect(seen).toEqual(ids.toReversed())
})

test.each(['updated_at', 'created_at', 'title', 'agent'])(
  'pages by %s are stable while rows change and come',
  async (sort_by) => {
    await using cp = await startControlPlane()
    const ids = await createRuns(
      cp,
      Array.from({ length: 12 }, (_, i) => ({ title: `same ${i % 3}` })),
    )
    for (const sort_order of ['asc', 'desc']) {
      const seen: string[] = []
      let cursor: string | undefined
      do {
        const page = await cp.client.runs.list({ limit: 5, sort_by, sort_order, cursor })
        seen.push(...page.runs.map(({ run_id }) => run_id))
        cursor = page.page_info.next_cursor
        // A new one while somebody pages: it may be seen or not, but moves none of the others.
        await cp.createRun({ title: 'same 1' })
      } while (cursor)
      expect(new Set(seen).size).toBe(seen.length)
      expect(ids.every((id) => seen.includes(id))).toBe(true)
    }
  },
)

test('filters narrow the list, alone and together', async () => {
  await using cp = await startControlPlane()
  const [a] = await createRuns(cp, [
    { title: 'a', config: { name: 'nightly' } },
    { title: 'b', config: { name: 'nightly', model_id: 'some/model' } },
    { title: 'c' },
  ])
  await cp.request('POST', '/api/v1/agent/runs', {
    json: { prompt: 'x', title: 'd' },
    headers: { 'x-oz-api-source': 'CLI' },
  })
  const cancelled = a ?? ''
  await cp.client.runs.cancel(cancelled)
  const { uid } = await cp.client.whoami()
  expect(await titles(cp, { state: 'CANCELLED' })).toEqual(['a'])
  expect((await titles(cp, { state: ['CANCELLED', 'QUEUED'] })).sort()).toEqual(['a', 'b', 'c', 'd'])
  expect((await titles(cp, { name: 'nightly' })).sort()).toEqual(['a', 'b'])
  expect(await titles(cp, { name: 'nightly', model_id: 'some/model' })).toEqual(['b'])
  expect(await titles(cp, { source: 'CLI' })).toEqual(['d'])
  expect((await titles(cp, { creator: uid })).length).toBe(4)
  expect(await titles(cp, { creator: 'nobody' })).toEqual([])
  expect(await titles(cp, { execution_location: 'LOCAL' })).toEqual([])
  expect(
    await titles(cp, { created_before: '2026-01-01T00:02:00Z', sort_order: 'asc', sort_by: 'created_at' }),
  ).toEqual(['a', 'b'])
  expect((await titles(cp, { created_after: '2026-01-01T00:01:00+00:00' })).sort()).toEqual(['c', 'd'])
  expect((await titles(cp, { updated_after: '2026-01-01T00:01:00Z' })).sort()).toEqual(['a', 'c', 'd'])
  const child = await cp.createRun({ title: 'child', parent_run_id: cancelled })
  await cp.createRun({ title: 'grandchild', parent_run_id: child })
  expect((await titles(cp, { ancestor_run_id: cancelled })).sort()).toEqual(['child', 'grandchild'])
})

test('labels narrow the list, all of them together', async () => {
  await using cp = await startControlPlane()
  await createRuns(cp, [
    { title: 'a', metadata: { ticket_id: 'T-1', team: 'core' } },
    { title: 'b', metadata: { ticket_id: 'T-2', team: 'core', 'odd[key]': 'x y&z' } },
    { title: 'c' },
  ])
  expect((await titles(cp, { 'metadata[team]': 'core' })).sort()).toEqual(['a', 'b'])
  expect(await titles(cp, { 'metadata[team]': 'core', 'metadata[ticket_id]': 'T-2' })).toEqual(['b'])
  expect(await titles(cp, { 'metadata[odd[key]]': 'x y&z' })).toEqual(['b'])
  expect(await titles(cp, { 'metadata[team]': 'CORE' })).toEqual([])
  expect(await titles(cp, { 'metadata[nobody]': '' })).toEqual([])
  expect((await cp.client.runs.list({ q: 'a', 'metadata[team]': 'core', limit: 1 })).runs[0]?.metadata).toEqual({
    ticket_id: 'T-1',
    team: 'core',
  })
  const { body } = await cp.request<{ paths: Record<string, { get: { parameters: Record<string, unknown>[] } }> }>(
    'GET',
    '/api/v1/openapi.json',
  )
  const parameter = body.paths['/agent/runs']?.get.parameters.find(({ name }) => name === 'metadata')
  expect(parameter).toMatchObject({ in: 'query', required: false, style: 'deepObject', explode: true })
})

test('a label that cannot be looked for is refused by its name', async () => {
  await using cp = await startControlPlane()
  const queries: [string, string][] = [
    ['metadata=x', 'metadata'],
    ['metadata=x&metadata[a]=b', 'metadata'],
    ['metadata[]=x', 'metadata[]'],
    ['metadata[a][b]=x', 'metadata[a][b]'],
    ['metadata[a=x', 'metadata[a'],
    ['metadata[__proto__]=x', 'metadata[__proto__]'],
    ['labels[a]=x', 'labels[a]'],
    ['metadata[a]=x&metadata[a]=y', 'metadata.a'],
    [Array.from({ length: 6 }, (_, i) => `metadata[k${i}]=x`).join('&'), 'at most 5'],
    ['metadata[a%00]=x', 'cannot be used'],
    ['metadata[a]=%00', 'cannot be used'],
  ]
  for (const [query, words] of queries) {
    const { status, body } = await cp.request('GET', `/api/v1/agent/runs?${query}`)
    expect([query, status, body.code]).toEqual([query, 400, 'invalid_request'])
    expect(body.detail).toContain(words)
  }
})

test('the older names of the list and of a run answer the same', async () => {
  await using cp = await startControlPlane()
  const [id = ''] = await createRuns(cp, [{ title: 'a', metadata: { k: 'v' } }, { title: 'b' }])
  const older = await cp.request<{ runs: unknown[] }>('GET', '/api/v1/agent/tasks?metadata[k]=v')
  expect(older).toMatchObject({ status: 200, body: await cp.client.runs.list({ 'metadata[k]': 'v' }) })
  expect(older.body.runs).toHaveLength(1)
  expect((await cp.request('GET', `/api/v1/agent/tasks/${id}`)).body).toEqual(await cp.client.runs.get(id))
  expect(await cp.request('GET', '/api/v1/agent/tasks/x')).toMatchObject({
    status: 404,
    body: { code: 'run_not_found' },
  })
})

test('filters of things that runs do not have find nothing', async () => {
  await using cp = await startControlPlane()
  await createRuns(cp, [{ title: 'a' }])
  for (const filter of ['skill', 'skill_spec', 'schedule_id', 'automation_id', 'factory_uid', 'executor'])
    expect([filter, await titles(cp, { [filter]: 'x' })]).toEqual([filter, []])
  for (const source of ['JIRA', 'AUTOFIX', 'ORCHESTRATION']) expect(await titles(cp, { source })).toEqual([])
  expect(await titles(cp, { artifact_type: 'PLAN' })).toEqual([])
  expect(await titles(cp, { environment_id: 'empty-environment' })).toEqual(['a'])
  for (const environment_id of ['x', '', '00000000-0000-4000-8000-000000000000'])
    expect([environment_id, await titles(cp, { environment_id })]).toEqual([environment_id, []])
  expect(await titles(cp, { executor: (await cp.client.whoami()).uid })).toEqual(['a'])
})

test('a time without an offset is UTC, and one at the end of time is refused', async () => {
  await using cp = await startControlPlane()
  await createRuns(cp, [{ title: 'a' }, { title: 'b' }])
  expect(await titles(cp, { created_after: '2026-01-01T00:00:00' })).toEqual(['b'])
  expect(await titles(cp, { created_before: '2026-01-01T00:01:00.000' })).toEqual(['a'])
  expect(await titles(cp, { created_before: '9999-12-31T23:59:59Z' })).toHaveLength(2)
  const { status } = await cp.request('GET', '/api/v1/agent/runs?created_after=9999-12-31T23:59:59-23:59')
  expect([200, 400]).toContain(status)
})

test('a source is what the client says, if a client may say it', async () => {
  await using cp = await startControlPlane()
  const sourceOf = async (said: string, path = 'agent/runs') => {
    const { body } = await cp.request<{ run_id: string }>('POST', `/api/v1/${path}`, {
      json: { prompt: 'x', ...(path === 'agent/runs' ? {} : { host: 'laptop' }) },
      headers: { 'x-oz-api-source': said },
    })
    return (await cp.client.runs.get(body.run_id)).source
  }
  for (const source of ['API', 'CLI', 'GITHUB_ACTION', 'CLOUD_MODE', 'WEB_APP', 'LOCAL'])
    expect(await sourceOf(source)).toBe(source)
  for (const source of ['SLACK', 'SCHEDULED_AGENT', 'JIRA', 'ORCHESTRATION', 'cli', 'x'])
    expect([source, await sourceOf(source)]).toEqual([source, 'API'])
  expect(await sourceOf('GITHUB_ACTION', 'agent/local-runs')).toBe('GITHUB_ACTION')
})

test('q finds every word in title or prompt, in any case, and takes % and _ as they are', async () => {
  await using cp = await startControlPlane()
  await createRuns(cp, [
    { title: 'Raise to 100%', prompt: 'now' },
    { title: 'raise to 100 dollars', prompt: 'snake_case' },
    { title: 'other', prompt: 'snakeXcase back\\slash' },
  ])
  expect((await titles(cp, { q: 'RAISE 100' })).sort()).toEqual(['Raise to 100%', 'raise to 100 dollars'])
  expect(await titles(cp, { q: '100%' })).toEqual(['Raise to 100%'])
  expect(await titles(cp, { q: 'e_c' })).toEqual(['raise to 100 dollars'])
  expect(await titles(cp, { q: 'k\\s' })).toEqual(['other'])
  expect(await titles(cp, { q: '%' })).toEqual(['Raise to 100%'])
  expect(await titles(cp, { q: 'raise nowhere' })).toEqual([])
  expect((await titles(cp, { q: '   ' })).length).toBe(3)
})

test('a cursor that this list did not make is refused', async () => {
  await using cp = await startControlPlane()
  await createRuns(cp, [{}, {}, {}])
  const page = await cp.client.runs.list({ limit: 1 })
  const cursor = page.page_info.next_cursor ?? ''
  const made = (value: unknown) => Buffer.from(JSON.stringify(value)).toString('base64url')
  const id = page.runs[0]?.run_id
  const bad = [
    'x',
    made(null),
    made(['updated_at desc', 'no time', id]),
    made(['updated_at desc', 5, id]),
    made(['updated_at desc', '2026-01-01', "'; drop table runs"]),
    made(['updated_at desc', '2026-01-01T00:00:00Z']),
  ]
  for (const cursor of bad)
    await expect(cp.client.runs.list({ cursor }), cursor).rejects.toMatchObject({
      problem: { code: 'cursor_invalid', status: 400 },
    })
  await expect(cp.client.runs.list({ cursor, sort_by: 'title' })).rejects.toMatchObject({
    problem: { code: 'cursor_invalid' },
  })
  expect((await cp.client.runs.list({ cursor, limit: 5 })).runs).toHaveLength(2)
})

test('filters that mean nothing are refused', async () => {
  await using cp = await startControlPlane()
  const queries = [
    ...[
      'limit=0',
      'limit=501',
      'state=DONE',
      'sort_by=id',
      'created_after=yesterday',
      'ancestor_run_id=x',
      'unknown=1',
    ],
    ...['q=%00', 'name=%00', 'limit=1&limit=2', 'created_after=0000-01-01T00:00:00Z'],
  ]
  for (const query of queries) {
    const { status, body } = await cp.request('GET', `/api/v1/agent/runs?${query}`)
    expect([query, status, body.code]).toEqual([query, 400, 'invalid_request'])
  }
})
