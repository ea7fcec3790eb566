import { randomBytes } from 'node:crypto'
import type { CreateRunRequest, PrepareAttachmentsResponse, Problem, TaskAssignment } from '@openoz/protocol'
import { expect, test } from 'vitest'
import { type ControlPlane, startControlPlane } from './support/control-plane.ts'
import { addTeam } from './support/people.ts'
import { until } from './support/poll.ts'
import { savedRepository } from './support/saved-repository.ts'
import { TestAgent } from './support/test-agent.ts'

const base64 = (bytes: Uint8Array | string) => Buffer.from(bytes).toString('base64')
const text = (file_name: string, data = base64('text')) => ({ file_name, mime_type: 'text/plain', data })
const refusalOf = (cp: ControlPlane, request: Partial<CreateRunRequest>) =>
  cp.request<Problem>('POST', '/api/v1/agent/runs', { json: { prompt: 'x', ...request } })

test('files of the request that starts a run reach its agent, under names of their own', async () => {
  await using cp = await startControlPlane()
  const bytes = randomBytes(1_300_000)
  const { agent, runId } = await cp.startAgent({
    attachments: [
      { file_name: 'design.png', mime_type: 'image/png', data: base64(bytes) },
      text('../../etc/notes.txt'),
      text(
        'C:\\home\\Notes.TXT',
        `${base64('wrapped at 76 columns').slice(0, 10)}\r\n${base64('wrapped at 76 columns').slice(10)}`,
      ),
      text('empty', ''),
    ],
    images: [
      { data: base64('a'), mime_type: 'image/jpeg' },
      { data: base64('b'), mime_type: 'image/webp' },
    ],
  })
  const { attachments } = await agent.hello()
  expect(attachments.map(({ file_name, mime_type, size_bytes }) => [file_name, mime_type, size_bytes])).toEqual([
    ['design.png', 'image/png', bytes.length],
    ['notes.txt', 'text/plain', 4],
    ['Notes-2.TXT', 'text/plain', 21],
    ['empty', 'text/plain', 0],
    ['image-1.jpg', 'image/jpeg', 1],
    ['image-2.webp', 'image/webp', 1],
  ])
  const fetched = await agent.request(`/api/v1/agent-channel/blobs/${attachments[0]?.blob_id}`)
  expect(Buffer.from(await fetched.arrayBuffer()).equals(bytes)).toBe(true)

  // Of nobody else.
  const other = await cp.startAgent({ prompt: 'another' })
  expect((await other.agent.request(`/api/v1/agent-channel/blobs/${attachments[0]?.blob_id}`)).status).toBe(404)
  await other.agent.end('SUCCEEDED')
  const { run_id: fork } = await cp.client.runs.fork(runId, { prompt: 'go on' })
  expect(await cp.db.query('select id from attachments where run_id = $1', [fork])).toEqual([])
})

test('what cannot be attached is refused by its name, and no run is started', async () => {
  await using cp = await startControlPlane()
  const large = base64(Buffer.alloc(10_000_001))
  for (const [request, status, code, words] of [
    [{ attachments: [text('a', '%%%')] }, 400, 'attachment_invalid', 'a: it is not base64'],
    [{ attachments: [text('a', 'YWJjZ')] }, 400, 'attachment_invalid', 'it is not base64'],
    [{ attachments: [text('..')] }, 400, 'attachment_invalid', 'its name is none'],
    [{ attachments: [text('a/')] }, 400, 'attachment_invalid', 'its name is none'],
    [{ attachments: [text('a\0b')] }, 400, 'attachment_invalid', 'control characters'],
    [{ attachments: [text('a\nb')] }, 400, 'attachment_invalid', 'control characters'],
    [{ attachments: [text('ä'.repeat(200))] }, 400, 'attachment_invalid', '240 bytes'],
    [{ attachments: [text('big', large)] }, 413, 'attachment_too_large', 'big has 10000001 bytes'],
    [{ attachments: Array.from({ length: 26 }, () => text('a')) }, 400, 'invalid_request', 'attachments'],
    [
      { attachments: Array.from({ length: 25 }, () => text('a')), images: [{ data: '', mime_type: 'image/png' }] },
      400,
      'invalid_request',
      '26 attachments and images',
    ],
    [{ images: [{ data: '', mime_type: 'image/svg+xml' as 'image/png' }] }, 400, 'invalid_request', 'images.0'],
  ] as const)
    expect(await refusalOf(cp, request as Partial<CreateRunRequest>)).toMatchObject({
      status,
      body: { code, detail: expect.stringContaining(words) },
    })
  expect((await cp.client.runs.list()).runs).toEqual([])
  expect(await cp.db.query('select id from blobs')).toEqual([])
})

test('only requests that start runs may be large, and they have a limit too', async () => {
  await using cp = await startControlPlane()
  const nine = 'x'.repeat(9 * 1024 * 1024)
  const runId = await cp.createRun({
    attachments: Array.from({ length: 3 }, (_, i) => text(`${i}`, base64(Buffer.alloc(9_000_000)))),
  })
  expect(await cp.db.query('select id from attachments where run_id = $1', [runId])).toHaveLength(3)
  const post = (path: string, body: string, headers: Record<string, string> = {}) =>
    cp.request('POST', `/api/v1/agent/${path}`, { body, headers: { 'content-type': 'application/json', ...headers } })
  const refused = { status: 413, body: { code: 'body_too_large' } }
  expect(await post(`runs/${runId}/followups`, JSON.stringify({ message: nine }))).toMatchObject(refused)
  expect(await post('runs', ' '.repeat(90_000_000))).toMatchObject(refused)
  const six = Array.from({ length: 6 }, () => text('a', base64(Buffer.alloc(9_000_000))))
  expect(await refusalOf(cp, { attachments: six })).toMatchObject({
    status: 413,
    body: { code: 'attachment_too_large', detail: expect.stringContaining('together') },
  })
  // Nobody's large body is read.
  const nobody = await cp.request('POST', '/api/v1/agent/runs', { key: null, body: nine })
  expect(nobody).toMatchObject({ status: 401 })
})

test('a run on a machine of its own is given files in the same way', async () => {
  await using cp = await startControlPlane()
  const started = await cp.client.runs.startLocal({ prompt: 'x', host: 'laptop', attachments: [text('a.txt')] })
  const { run_id: task_id, execution_id, execution_token } = started
  const agent = new TestAgent(cp.url, { task_id, execution_id, execution_token } as TaskAssignment)
  expect((await agent.hello()).attachments).toMatchObject([{ file_name: 'a.txt', size_bytes: 4 }])
})

test('a repeated request with attachments starts one run', async () => {
  await using cp = await startControlPlane()
  const request = { prompt: 'x', attachments: [text('a', base64(randomBytes(300_000)))] }
  const first = await cp.client.runs.create(request, { idempotencyKey: 'k' })
  expect(await cp.client.runs.create(request, { idempotencyKey: 'k' })).toEqual(first)
  expect(await cp.db.query('select id from attachments')).toHaveLength(1)
})

test('files are prepared, uploaded by links, given to the agent with its next turn, and downloaded', async () => {
  await using cp = await startControlPlane()
  const { agent, runId } = await cp.startAgent({ attachments: [text('a.txt')] })
  const path = `/api/v1/agent/runs/${runId}/attachments`
  const files = ['a.txt', 'never.txt'].map((filename) => ({ filename, mime_type: 'text/plain' }))
  const prepare = () =>
    cp.request<PrepareAttachmentsResponse>('POST', `${path}/prepare`, {
      json: { files },
      headers: { 'idempotency-key': 'p' },
    })
  const prepared = await prepare()
  expect(prepared.status).toBe(200)
  const idsOf = ({ body }: typeof prepared) => body.attachments.map(({ attachment_id }) => attachment_id)
  expect(idsOf(await prepare())).toEqual(idsOf(prepared))
  const [first, never] = prepared.body.attachments
  expect(first?.upload_target).toEqual({
    url: first?.upload_url,
    method: 'PUT',
    headers: { 'content-type': 'text/plain' },
  })

  const put = async (url = first?.upload_url ?? '', body: string | Uint8Array = 'x') => {
    const response = await fetch(url, { method: 'PUT', body: body as string })
    return { status: response.status, body: (await response.json()) as Record<string, unknown> }
  }
  const bent = new URL(first?.upload_url ?? '')
  bent.pathname = new URL(never?.upload_url ?? '').pathname
  expect(await put(bent.href)).toMatchObject({ status: 403, body: { code: 'link_invalid' } })
  expect(await put(first?.upload_url, 'the bytes')).toMatchObject({ status: 200, body: { size_bytes: 9 } })
  // The answer was lost; and others, of which the agent would have the wrong ones.
  expect(await put(first?.upload_url, 'the bytes')).toMatchObject({ status: 200, body: { size_bytes: 9 } })
  expect(await put(first?.upload_url, 'the second')).toMatchObject({
    status: 409,
    body: { code: 'attachment_uploaded', detail: expect.stringContaining(runId) },
  })
  expect(await put(first?.upload_url, Buffer.alloc(10_000_001))).toMatchObject({
    status: 413,
    body: { code: 'attachment_too_large' },
  })

  await cp.client.runs.followUp(runId, { message: 'look at it' })
  await agent.end('SUCCEEDED')
  const { attachments = [] } = await agent.nextTurn()
  expect(attachments.map(({ file_name, size_bytes }) => [file_name, size_bytes])).toEqual([
    ['a.txt', 4],
    ['a-2.txt', 9],
  ])
  // What was sent once more is gone.
  expect(await cp.db.query('select id from blobs')).toHaveLength(2)
  const [preparing, uploading, ...more] = await cp.db.query(
    `select actor, action, target, data from audit_events where action like 'attachment.%' order by id`,
  )
  expect(preparing).toMatchObject({
    action: 'attachment.prepare',
    target: `run:${runId}`,
    data: { attachment_ids: idsOf(prepared) },
  })
  expect(uploading).toEqual({
    actor: 'link',
    action: 'attachment.upload',
    target: `run:${runId}`,
    data: { attachment_id: first?.attachment_id },
  })
  expect(more).toEqual([])

  const download = (...attachment_ids: string[]) =>
    cp.request<{ attachments: { download_url: string }[] }>('POST', `${path}/download`, { json: { attachment_ids } })
  const { body } = await download(idsOf(prepared)[0] ?? '')
  const answer = await fetch(body.attachments[0]?.download_url ?? '')
  expect(answer.headers.get('content-disposition')).toContain('a-2.txt')
  expect(await answer.text()).toBe('the bytes')
  expect(await download(never?.attachment_id ?? '')).toMatchObject({
    status: 404,
    body: { code: 'attachment_not_found' },
  })
  const stranger = await addTeam(cp, 'strangers')
  expect(
    await cp.request('POST', `${path}/download`, {
      key: stranger.key,
      json: { attachment_ids: idsOf(prepared).slice(0, 1) },
    }),
  ).toMatchObject({ status: 404, body: { code: 'run_not_found' } })
  await cp.advanceDatabaseClock({ seconds: 15 * 60 + 1 })
  expect(await put(never?.upload_url)).toMatchObject({ status: 403, body: { code: 'link_invalid' } })
})

test('tidying leaves attachments and added artifacts alone, however old they are', async () => {
  await using cp = await startControlPlane()
  const { agent, runId, worker, assignment } = await cp.startAgent({ attachments: [text('a')] })
  const url = `${cp.url}/api/v1/agent/artifacts?run_id=${runId}&filepath=b`
  await fetch(url, { method: 'POST', headers: { authorization: `Bearer ${cp.adminKey}` }, body: 'added' })
  const orphan = await agent.putBlob('orphan')
  // An upload whose server failed between the bytes and what names them.
  const [failed] = await cp.db.query<{ id: string }>(
    `insert into blobs (id, run_id, content_type, size_bytes, sha256)
     values (gen_random_uuid(), $1, 'text/plain', 1, '\\x01') returning id`,
    [runId],
  )
  // Of a run whose agent is at work; the run's log does not matter for it.
  const other = await cp.startAgent()
  await cp.db.query(
    `insert into blobs (id, run_id, content_type, size_bytes, sha256) values (gen_random_uuid(), $1, '', 1, '\\x01')`,
    [other.runId],
  )
  await agent.end('SUCCEEDED')
  await agent.nextTurn(true)
  worker.complete(assignment)
  await cp.advanceDatabaseClock({ seconds: 25 * 3600 })
  await cp.restart()
  const blobs = () => cp.db.query<{ id: string }>('select id from blobs')
  await until(async () => (await blobs()).length === 2)
  expect((await blobs()).map(({ id }) => id)).not.toContain(failed?.id)
  expect((await blobs()).map(({ id }) => id)).not.toContain(orphan)
})

test('what a run left behind is handed over as bundles and diffs', async () => {
  await using cp = await startControlPlane()
  const { agent, runId } = await cp.startAgent()
  const list = async () =>
    (
      await cp.request<{ attachments: { filename: string; download_url: string }[] }>(
        'GET',
        `/api/v1/agent/runs/${runId}/handoff/attachments`,
      )
    ).body.attachments
  expect(await list()).toEqual([])
  const saved = savedRepository(await agent.putBlob('bundle'), await agent.putBlob('diff'))
  const second = { ...saved, dir: 'group/b', diff_blob_id: null }
  await agent.send({
    type: 'workspace_saved',
    data: { repositories: [{ ...saved, dir: '.' }, second], left_out: [] },
  })
  const found = await list()
  expect(found.map(({ filename }) => filename)).toEqual(['workspace.bundle', 'workspace.diff', 'group-b.bundle'])
  const bytes = await Promise.all(found.map(async ({ download_url }) => (await fetch(download_url)).text()))
  expect(bytes).toEqual(['bundle', 'diff', 'bundle'])
})

test('orchestrate is performed as a normal run, and the log says so', async () => {
  await using cp = await startControlPlane()
  const runId = await cp.createRun({ mode: 'orchestrate' })
  const notices = (await cp.eventsOf(runId)).flatMap(({ type, data }) => (type === 'notice' ? [data.text] : []))
  expect(notices).toEqual([expect.stringContaining('performed as a normal one')])
  const { agent } = await cp.startAgent({ mode: 'plan' })
  expect(agent.runId).not.toBe('')
})
