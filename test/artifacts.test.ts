import { randomBytes } from 'node:crypto'
import type { ArtifactResponse, Problem, UploadArtifactResponse } from '@openoz/protocol'
import { expect, test, vi } from 'vitest'
import { type ControlPlane, startControlPlane } from './support/control-plane.ts'
import { addMember, addTeam } from './support/people.ts'

const artifactsPath = '/api/v1/agent/artifacts'
const get = <T = ArtifactResponse>(cp: ControlPlane, uid: string, key?: string) =>
  cp.request<T>('GET', `${artifactsPath}/${uid}`, key === undefined ? {} : { key })

async function upload<T = UploadArtifactResponse>(
  cp: ControlPlane,
  query: Record<string, string>,
  bytes: Uint8Array | string,
  headers: Record<string, string> = {},
) {
  const body = typeof bytes === 'string' ? bytes : new Blob([bytes as Uint8Array<ArrayBuffer>])
  const response = await fetch(`${cp.url}${artifactsPath}?${new URLSearchParams(query)}`, {
    method: 'POST',
    headers: { authorization: `Bearer ${cp.adminKey}`, 'content-type': 'application/octet-stream', ...headers },
    body,
  })
  return { status: response.status, body: (await response.json()) as T }
}

test('what an agent reports is listed with its run and answered by its uid', async () => {
  await using cp = await startControlPlane()
  const { agent, runId } = await cp.startAgent()
  const png = randomBytes(700_000)
  const blob_id = await agent.putBlob(png, 'image/png')
  await agent.send(
    {
      type: 'artifact',
      data: { artifact_type: 'PLAN', artifact_uid: 'p', document_uid: 'p', title: 'T', content: '# T' },
    },
    {
      type: 'artifact',
      data: { artifact_type: 'PULL_REQUEST', artifact_uid: 'r', url: 'https://git.test/1', branch: 'b' },
    },
    {
      type: 'artifact',
      data: { artifact_type: 'SCREENSHOT', artifact_uid: 's', mime_type: 'image/png', blob_id, description: 'It.' },
    },
    {
      type: 'artifact',
      data: {
        artifact_type: 'FILE',
        artifact_uid: 'f',
        filepath: 'out/ü "1".png',
        filename: 'ü "1".png',
        mime_type: 'image/png',
        size_bytes: png.length,
        blob_id,
      },
    },
  )
  const { artifacts } = await cp.client.runs.get(runId)
  expect(artifacts.map(({ artifact_type }) => artifact_type)).toEqual(['PLAN', 'PULL_REQUEST', 'SCREENSHOT', 'FILE'])

  expect(await cp.client.artifacts.get('p')).toMatchObject({
    artifact_uid: 'p',
    artifact_type: 'PLAN',
    data: { document_uid: 'p', notebook_uid: 'p', title: 'T', content: '# T', content_type: 'text/markdown' },
  })
  expect(await get<Problem>(cp, 'r')).toMatchObject({ status: 400, body: { code: 'invalid_request' } })
  const screenshot = await cp.client.artifacts.get('s')
  expect(screenshot).toMatchObject({ data: { content_type: 'image/png', description: 'It.' } })
  const file = await cp.client.artifacts.get('f')
  if (file.artifact_type !== 'FILE') throw new Error('not a file')
  expect(file.data).toMatchObject({ filepath: 'out/ü "1".png', filename: 'ü "1".png', size_bytes: png.length })

  // No key: the link is the permission, and no browser makes a page of it.
  const download = await fetch(file.data.download_url)
  expect(download.status).toBe(200)
  expect(Buffer.from(await download.arrayBuffer()).equals(png)).toBe(true)
  expect(Object.fromEntries(download.headers)).toMatchObject({
    'content-type': 'image/png',
    'content-length': String(png.length),
    'content-disposition': `attachment; filename="_ _1_.png"; filename*=UTF-8''%C3%BC%20%221%22.png`,
    'x-content-type-options': 'nosniff',
    'content-security-policy': expect.stringContaining('sandbox'),
  })
})

test('an artifact whose uid is too long for an index is kept with its run', async () => {
  await using cp = await startControlPlane()
  const { agent, runId } = await cp.startAgent()
  const artifact_uid = randomBytes(8192).toString('base64')
  const { acked_n } = await agent.send({
    type: 'artifact',
    data: { artifact_type: 'PLAN', artifact_uid, content: 'x' },
  })
  expect(acked_n).toBe(agent.n)
  expect((await cp.eventsOf(runId)).at(-1)).toMatchObject({ type: 'artifact', data: { artifact_uid } })
  const longest = '\u{1f600}'.repeat(64)
  await agent.send({ type: 'artifact', data: { artifact_type: 'PLAN', artifact_uid: longest, content: 'x' } })
  expect((await get(cp, longest)).status).toBe(200)
})

test('a run is listed with its newest 100 artifacts, without their contents', async () => {
  await using cp = await startControlPlane()
  const { agent, runId } = await cp.startAgent()
  const plans = Array.from({ length: 103 }, (_, i) => ({
    type: 'artifact' as const,
    data: { artifact_type: 'PLAN', artifact_uid: `p${i}`, document_uid: `p${i}`, title: `T${i}`, content: 'secret' },
  }))
  await agent.send(...plans.slice(0, 60))
  await agent.send(...plans.slice(60))
  const { artifacts } = await cp.client.runs.get(runId)
  const uids = artifacts.map(({ data }) => 'artifact_uid' in data && data.artifact_uid)
  expect(uids).toEqual(Array.from({ length: 100 }, (_, i) => `p${i + 3}`))
  expect(JSON.stringify(artifacts)).not.toContain('secret')
  expect((await get(cp, 'p0')).body.data).toMatchObject({ title: 'T0', content: 'secret' })
})

test('a link leads to one file for a quarter of an hour and cannot be bent', async () => {
  await using cp = await startControlPlane()
  const runId = await cp.createRun()
  const { body } = await upload(cp, { run_id: runId, filepath: 'a.txt' }, 'one')
  const other = (await upload(cp, { run_id: runId, filepath: 'b.txt' }, 'two')).body
  const linkOf = async (uid: string) => {
    const artifact = await cp.client.artifacts.get(uid)
    if (artifact.artifact_type !== 'FILE') throw new Error('not a file')
    return new URL(artifact.data.download_url)
  }
  const link = await linkOf(body.artifact_uid)
  const bent = [
    Object.assign(new URL(link), { pathname: (await linkOf(other.artifact_uid)).pathname }),
    ...(['filename', 'expires', 'signature'] as const).flatMap((name) => {
      const [changed, missing] = [new URL(link), new URL(link)]
      changed.searchParams.set(name, '99999999999')
      missing.searchParams.delete(name)
      return [changed, missing]
    }),
  ]
  for (const url of bent) {
    const refused = await fetch(url)
    expect([url.search, refused.status]).toEqual([url.search, 403])
    expect(await refused.json()).toMatchObject({ code: 'link_invalid' })
  }
  // A link to read with does not write.
  expect((await fetch(link, { method: 'PUT', body: 'x' })).status).toBe(404)
  expect(await (await fetch(link)).text()).toBe('one')
  await cp.advanceDatabaseClock({ seconds: 15 * 60 + 1 })
  expect((await fetch(link)).status).toBe(403)
})

test('an artifact is seen by those who see its run, and its blob is one of its run', async () => {
  await using cp = await startControlPlane()
  const member = await addMember(cp, 'member')
  const stranger = await addTeam(cp, 'strangers')
  const personal = await cp.createRun({ team: false })
  const secret = (await upload(cp, { run_id: personal, filepath: 'secret.txt' }, 'secret')).body.artifact_uid
  for (const key of [member.key, stranger.key])
    expect(await get<Problem>(cp, secret, key)).toMatchObject({ status: 404, body: { code: 'artifact_not_found' } })
  expect((await get(cp, secret)).status).toBe(200)

  // An agent that names a blob of another run, or an artifact of one.
  await cp.client.runs.cancel(personal)
  const [row] = await cp.db.query<{ id: string }>('select id from blobs')
  const { agent } = await cp.startAgent({ prompt: 'another' })
  await agent.send(
    { type: 'artifact', data: { artifact_type: 'FILE', artifact_uid: 'stolen', filename: 'x', blob_id: row?.id } },
    { type: 'artifact', data: { artifact_type: 'PLAN', artifact_uid: secret, content: 'a namesake' } },
  )
  expect((await get<Problem>(cp, 'stolen')).status).toBe(404)
  expect(await get(cp, secret, member.key)).toMatchObject({ body: { data: { content: 'a namesake' } } })
  expect((await get(cp, secret, stranger.key)).status).toBe(404)
})

test('a person adds a file to a run or to a conversation, once however often it is sent', async () => {
  await using cp = await startControlPlane()
  const runId = await cp.createRun()
  const { conversation_id } = await cp.client.runs.get(runId)
  const bytes = randomBytes(1_500_000)
  const once = { 'idempotency-key': 'a' }
  const query = { run_id: runId, filepath: 'deep/report.pdf', description: 'All of it' }
  const first = await upload(cp, query, bytes, { ...once, 'content-type': 'application/pdf' })
  expect(first).toMatchObject({
    status: 201,
    body: {
      filepath: 'deep/report.pdf',
      mime_type: 'application/pdf',
      size_bytes: bytes.length,
      description: 'All of it',
    },
  })
  expect(await upload(cp, query, bytes, { ...once, 'content-type': 'application/pdf' })).toEqual(first)
  expect(await upload(cp, query, 'other', once)).toMatchObject({
    status: 409,
    body: { code: 'idempotency_key_reused' },
  })
  const byConversation = { conversation_id: conversation_id ?? '', filepath: 'b' }
  expect((await upload(cp, byConversation, '')).body.size_bytes).toBe(0)
  const { artifacts } = await cp.client.runs.get(runId)
  expect(artifacts.map(({ data }) => 'filename' in data && data.filename)).toEqual(['report.pdf', 'b'])
  // What a repeated or refused request sent is not kept.
  expect(await cp.db.query('select id from blobs')).toHaveLength(2)
  const audit = await cp.db.query(`select actor, target, data from audit_events where action = 'artifact.create'`)
  expect(audit).toHaveLength(2)
  expect(audit).toContainEqual({
    actor: expect.stringMatching(/^user:/),
    target: `run:${runId}`,
    data: { artifact_uid: (first.body as UploadArtifactResponse).artifact_uid },
  })
})

test.each([
  ['neither run nor conversation', {}, 400, 'invalid_request'],
  ['an unknown run', { run_id: '00000000-0000-7000-8000-000000000000' }, 404, 'run_not_found'],
  [
    'an unknown conversation',
    { conversation_id: '00000000-0000-7000-8000-000000000000' },
    404,
    'conversation_not_found',
  ],
  ['a run that is no id', { run_id: 'x' }, 400, 'invalid_request'],
  ['a folder', { run_id: '00000000-0000-7000-8000-000000000000', filepath: 'a/' }, 400, 'invalid_request'],
] as const)('an upload for %s is refused', async (_, query, status, code) => {
  await using cp = await startControlPlane()
  const refused = await upload<Problem>(cp, { filepath: 'a', ...query }, 'x')
  expect(refused).toMatchObject({ status, body: { code } })
})

test('an upload that is announced as too large is refused before it is read', async () => {
  await using cp = await startControlPlane()
  const runId = await cp.createRun()
  const tooMuch = new Blob([Buffer.alloc(100 * 1024 * 1024 + 1)])
  const response = await fetch(`${cp.url}${artifactsPath}?run_id=${runId}&filepath=a`, {
    method: 'POST',
    headers: { authorization: `Bearer ${cp.adminKey}` },
    body: tooMuch,
  }).catch(() => undefined)
  // The server may hang up before all was sent.
  if (response) expect(response.status).toBe(413)
  expect(await cp.db.query('select id from blobs')).toEqual([])
})

/** A link to more bytes than one answer's buffers hold. */
async function storeMuch(cp: ControlPlane) {
  const runId = await cp.createRun()
  const { body } = await upload(cp, { run_id: runId, filepath: 'much' }, randomBytes(30_000_000))
  const artifact = await cp.client.artifacts.get(body.artifact_uid)
  if (artifact.artifact_type !== 'FILE') throw new Error('not a file')
  return artifact.data.download_url
}

test.each([
  ['were removed while they are read', `delete from blob_chunks where number > 5`],
  ['cannot be read any more', `alter table blob_chunks rename to moved_chunks`],
])('a download whose bytes %s is cut, not left open and not printed', async (_, damage) => {
  await using cp = await startControlPlane()
  const url = await storeMuch(cp)
  const printed = vi.spyOn(console, 'error')
  const response = await fetch(url)
  expect(response.headers.get('content-length')).toBe('30000000')
  await cp.db.query(damage)
  await expect(response.arrayBuffer()).rejects.toThrow('terminated')
  expect(printed).not.toHaveBeenCalled()
  printed.mockRestore()
})
