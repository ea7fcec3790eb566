import { createHash, randomBytes } from 'node:crypto'
import { once } from 'node:events'
import { type ClientRequest, type IncomingMessage, request } from 'node:http'
import { text } from 'node:stream/consumers'
import { expect, test } from 'vitest'
import { startControlPlane } from './support/control-plane.ts'
import type { TestAgent } from './support/test-agent.ts'

const sha = (bytes: Uint8Array) => createHash('sha256').update(bytes).digest('hex')

const blobPath = (id: string) => `/api/v1/agent-channel/blobs/${id}`

test('a blob of 30 MB comes back as it went in', async () => {
  await using cp = await startControlPlane()
  const { agent } = await cp.startAgent()
  const bytes = randomBytes(30_000_001)
  const id = await agent.putBlob(bytes, 'application/x-test')
  const answer = await agent.request(blobPath(id))
  expect(answer.headers.get('content-type')).toBe('application/x-test')
  expect(answer.headers.get('content-length')).toBe('30000001')
  expect(sha(await answer.bytes())).toBe(sha(bytes))
  const [row] = await cp.db.query<{ sha256: Buffer }>('select sha256 from blobs where id = $1', [id])
  expect(row?.sha256.toString('hex')).toBe(sha(bytes))
})

test('an empty blob is one too', async () => {
  await using cp = await startControlPlane()
  const { agent } = await cp.startAgent()
  const answer = await agent.request(blobPath(await agent.putBlob('')))
  expect([answer.status, await answer.text()]).toEqual([200, ''])
})

test('a blob of another run is neither read nor taken into a checkpoint', async () => {
  await using cp = await startControlPlane()
  const { agent: theirs } = await cp.startAgent({}, { workerId: 'w1' })
  const { agent: mine, runId } = await cp.startAgent({ config: { worker_host: 'w2' } }, { workerId: 'w2' })
  const blob_id = await theirs.putBlob('secret')
  for (const id of [blob_id, crypto.randomUUID(), 'x', '%00']) {
    const answer = await mine.request(blobPath(id))
    expect([id, answer.status, ((await answer.json()) as { code: string }).code]).toEqual([id, 404, 'blob_not_found'])
  }
  await mine.send({ type: 'checkpoint', data: { harness: 'oz', format: 'f', step: 1, blob_id } })
  await mine.send({ type: 'workspace_saved', data: { repositories: [repository(blob_id, null)], left_out: [] } })
  const types = (await cp.eventsOf(runId)).slice(-2).map(({ type, data }) => [type, 'reason' in data && data.reason])
  expect(types).toEqual([
    ['event_invalid', 'its blob is not of this run'],
    ['event_invalid', 'one of its blobs is not of this run'],
  ])
  await expect(cp.client.runs.workspace(runId)).rejects.toMatchObject({ problem: { code: 'workspace_not_saved' } })
})

test('two checkpoints with the same blob leave it to the later one', async () => {
  await using cp = await startControlPlane()
  const { agent, worker, assignment } = await cp.startAgent()
  const blob_id = await agent.putBlob('what I know')
  for (const step of [1, 2])
    await agent.send({ type: 'checkpoint', data: { harness: 'oz', format: 'f', step, blob_id } })
  worker.fail(assignment, { failure_reason: 'agent_invocation', exit_code: 137 })
  await cp.advanceDatabaseClock({ seconds: 5 })
  const heir = cp.agentFor(await worker.claimNext())
  expect((await heir.hello()).checkpoint).toMatchObject({ step: 2, blob_id })
  expect(await (await heir.request(blobPath(blob_id))).text()).toBe('what I know')
})

test('a blob that says it is too large is refused before it is sent', async () => {
  await using cp = await startControlPlane()
  const { agent } = await cp.startAgent()
  const upload = startUpload(cp.url, agent, { 'content-length': String(300 * 1024 * 1024) })
  upload.flushHeaders()
  const [response] = await once(upload, 'response')
  expect(response.statusCode).toBe(413)
  upload.destroy()
})

test('an agent is told how long an output may be, and no blob may be longer', async () => {
  const limit = 400 * 1024 * 1024
  await using cp = await startControlPlane({ env: { OZ_AGENT_OUTPUT_MAX_BYTES: String(limit) } })
  const { agent } = await cp.startAgent()
  expect((await agent.hello()).limits.output_max_bytes).toBe(limit)
  const upload = startUpload(cp.url, agent, { 'content-length': String(limit + 1) })
  upload.flushHeaders()
  const [response] = (await once(upload, 'response')) as [IncomingMessage]
  expect(await text(response)).toContain(`larger than ${limit} bytes`)
  upload.destroy()
})

test('an upload that breaks off leaves nothing behind', async () => {
  await using cp = await startControlPlane()
  const { agent } = await cp.startAgent()
  const upload = startUpload(cp.url, agent, {})
  upload.write(randomBytes(2_000_000))
  await new Promise((resolve) => setTimeout(resolve, 100))
  upload.destroy()
  await agent.putBlob('next')
  const [row] = await cp.db.query<{ blobs: number; strays: number }>(
    `select (select count(*)::int from blobs) as blobs,
            (select count(*)::int from blob_chunks where blob_id not in (select id from blobs)) as strays`,
  )
  expect(row).toEqual({ blobs: 1, strays: 0 })
})

test('20 slow uploads at the same time leave room for everybody else', async () => {
  await using cp = await startControlPlane()
  const { agent } = await cp.startAgent()
  const uploads = Array.from({ length: 20 }, () => startUpload(cp.url, agent, {}))
  for (const upload of uploads) upload.write(randomBytes(600_000))
  await new Promise((resolve) => setTimeout(resolve, 300))
  const from = performance.now()
  await cp.client.whoami()
  expect(performance.now() - from).toBeLessThan(2_000)
  const answers = await Promise.all(
    uploads.map(async (upload) => {
      upload.end('end')
      const [response] = await once(upload, 'response')
      response.resume()
      return response.statusCode
    }),
  )
  expect(new Set(answers)).toEqual(new Set([201]))
})

function startUpload(url: string, agent: TestAgent, headers: Record<string, string>): ClientRequest {
  const upload = request(`${url}/api/v1/agent-channel/blobs`, {
    method: 'POST',
    agent: false,
    headers: { authorization: `Bearer ${agent.token}`, 'content-type': 'application/octet-stream', ...headers },
  })
  upload.on('error', () => {})
  return upload
}

function repository(bundle_blob_id: string | null, diff_blob_id: string | null) {
  return {
    dir: 'project',
    url: 'https://example.test/project',
    branch: 'main',
    base: 'a'.repeat(40),
    head: 'b'.repeat(40),
    commits: 2,
    files_changed: 3,
    insertions: 4,
    deletions: 5,
    uncommitted: true,
    bundle_blob_id,
    diff_blob_id,
  }
}

test('a saved workspace is told, and its bundle and diff come back byte by byte', async () => {
  await using cp = await startControlPlane()
  const { agent, runId } = await cp.startAgent()
  await expect(cp.client.runs.workspace(runId)).rejects.toMatchObject({ problem: { status: 404 } })
  const bundle = randomBytes(1_500_000)
  const ids = [await agent.putBlob(bundle), await agent.putBlob('diff --git ä')] as const
  await agent.send(
    { type: 'workspace_saved', data: { repositories: [repository(null, null)], left_out: [] } },
    {
      type: 'workspace_saved',
      data: { repositories: [repository(...ids), repository(null, null)], left_out: ['big.bin: 1 GB'] },
    },
  )
  const saved = await cp.client.runs.workspace(runId)
  expect(saved).toMatchObject({
    run_id: runId,
    left_out: ['big.bin: 1 GB'],
    repositories: [
      { dir: 'project', commits: 2, has_bundle: true, has_diff: true },
      { has_bundle: false, has_diff: false },
    ],
  })
  expect(JSON.stringify(saved)).not.toContain(ids[0])
  const get = (rest: string) =>
    fetch(`${cp.url}/api/v1/agent/runs/${runId}/workspace/${rest}`, {
      headers: { authorization: `Bearer ${cp.adminKey}` },
    })
  expect(sha(await (await get('0/bundle')).bytes())).toBe(sha(bundle))
  const diff = await get('0/diff')
  expect(diff.headers.get('content-type')).toBe('text/plain; charset=utf-8')
  expect(await diff.text()).toBe('diff --git ä')
  for (const none of ['1/bundle', '1/diff', '2/bundle', '-1/bundle', 'x/bundle', 'length/diff'])
    expect([none, (await get(none)).status]).toEqual([none, 404])
})
