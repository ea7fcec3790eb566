import { randomBytes } from 'node:crypto'
import { expect, test } from 'vitest'
import { type ControlPlane, startControlPlane } from './support/control-plane.ts'
import { addMember, addTeam } from './support/people.ts'
import { until } from './support/poll.ts'
import { savedRepository } from './support/saved-repository.ts'

const unknownId = '00000000-0000-4000-8000-000000000000'

/** A run with memory and a workspace. */
async function startedRun(cp: ControlPlane, request: Parameters<ControlPlane['startAgent']>[0] = {}) {
  const started = await cp.startAgent(request)
  const save = async (step: number) => {
    await started.agent.checkpoint(step, `memory ${step}`)
    const bundle = await started.agent.putBlob(`bundle ${step}`)
    const data = { repositories: [savedRepository(bundle)], left_out: [] }
    await started.agent.send({ type: 'workspace_saved', data })
  }
  await save(1)
  const { conversation_id: conversationId } = await cp.client.runs.get(started.runId)
  return { ...started, conversationId, save }
}

type Started = Awaited<ReturnType<typeof startedRun>>

async function finish(cp: ControlPlane, { agent, worker, assignment, runId }: Started): Promise<void> {
  await agent.end('SUCCEEDED')
  await agent.nextTurn(true)
  worker.complete(assignment)
  await until(
    () => cp.client.runs.get(runId),
    (run) => !run.is_sandbox_running,
  )
}

const bundleOf = async (cp: ControlPlane, runId: string) =>
  (await cp.request<string>('GET', `/api/v1/agent/runs/${runId}/workspace/0/bundle`)).body

test('a copy of a conversation is what it was then, whatever either does later', async () => {
  await using cp = await startControlPlane()
  const original = await startedRun(cp, { config: { base_prompt: 'Be brief.' } })
  const { conversationId, runId } = original
  const { forked_conversation_id: copyId } = await cp.client.conversations.fork(conversationId, { title: 'Try B' })
  expect(await cp.client.conversations.get(copyId)).toEqual({ conversation_id: copyId, title: 'Try B', steps: [] })
  expect(await bundleOf(cp, runId)).toBe('bundle 1')
  await original.save(2)
  expect(await bundleOf(cp, runId)).toBe('bundle 2')
  // A copy of the copy, which has no runs either.
  const { forked_conversation_id: second } = await cp.client.conversations.fork(copyId)
  await finish(cp, original)

  for (const conversation_id of [copyId, second]) {
    const created = await cp.client.runs.create({ prompt: 'go on', conversation_id })
    const assignment = await original.worker.claimNext()
    const agent = cp.agentFor(assignment)
    const hello = await agent.hello()
    expect(hello).toMatchObject({
      run_id: created.run_id,
      conversation_id,
      continues: { reason: 'conversation', is_workspace_stale: false },
      checkpoint: { step: 1 },
      config: { base_prompt: 'Be brief.' },
    })
    const text = async (blobId: string | null | undefined) =>
      (await agent.request(`/api/v1/agent-channel/blobs/${blobId}`)).text()
    expect(await text(hello.checkpoint?.blob_id)).toBe('memory 1')
    expect(await text(hello.workspace?.repositories[0]?.bundle_blob_id)).toBe('bundle 1')
    const kept = (table: string) =>
      cp.db.query(`select execution_id from ${table} where conversation_id = $1`, [conversation_id])
    expect(await kept('checkpoints')).toEqual([{ execution_id: null }])
    await agent.checkpoint(5, 'memory 5')
    const repositories = [savedRepository(await agent.putBlob('bundle 5'))]
    await agent.send({ type: 'workspace_saved', data: { repositories, left_out: [] } })
    // What it began with is not needed any more.
    for (const table of ['checkpoints', 'saved_workspaces'])
      expect(await kept(table)).toEqual([{ execution_id: agent.executionId }])
    expect((await cp.client.runs.get(created.run_id)).forked_from_conversation_id).toBeTypeOf('string')
    await finish(cp, { ...original, agent, assignment, runId: created.run_id })
  }
  expect(await bundleOf(cp, runId)).toBe('bundle 2')
  const again = await cp.client.runs.create({ prompt: 'and on', conversation_id: conversationId })
  const agent = cp.agentFor(await original.worker.claimNext())
  expect(await agent.hello()).toMatchObject({ run_id: again.run_id, checkpoint: { step: 2 } })
})

test('what happens in the original after the copy was made decides nothing about the copy', async () => {
  await using cp = await startControlPlane()
  const original = await startedRun(cp, { config: { base_prompt: 'Be brief.' } })
  const { conversationId } = original
  const { forked_conversation_id: copyId } = await cp.client.conversations.fork(conversationId)
  const { forked_conversation_id: copyOfCopyId } = await cp.client.conversations.fork(copyId)
  await finish(cp, original)
  const config = { base_prompt: 'Be long.' }
  const later = await cp.createRun({ conversation_id: conversationId, config })
  await cp.createRun({ conversation_id: copyId })
  await cp.db.query(`update runs set scope = 'user' where id = $1`, [later])
  const colleague = cp.clientFor((await addMember(cp, 'member')).key)
  await expect(colleague.conversations.fork(conversationId)).rejects.toMatchObject({
    problem: { code: 'conversation_not_found' },
  })
  const runId = (await colleague.runs.create({ prompt: 'go on', conversation_id: copyOfCopyId })).run_id
  expect((await colleague.runs.get(runId)).agent_config).toMatchObject({ base_prompt: 'Be brief.' })
})

test('a conversation without a finished step is not copied', async () => {
  await using cp = await startControlPlane()
  const { conversation_id } = await cp.client.runs.get(await cp.createRun())
  await expect(cp.client.conversations.fork(conversation_id)).rejects.toMatchObject({
    problem: { code: 'conversation_not_forkable', status: 409 },
  })
  const [row] = await cp.db.query<{ count: number }>('select count(*)::int as count from conversations')
  expect(row?.count).toBe(1)
})

test('a copy is made once per request, and is seen by those who see what it was made from', async () => {
  await using cp = await startControlPlane()
  const { conversationId } = await startedRun(cp, { team: false })
  const once = { idempotencyKey: 'k' }
  const { forked_conversation_id: copyId } = await cp.client.conversations.fork(conversationId, {}, once)
  for (const id of [conversationId, conversationId.toUpperCase()])
    expect(await cp.client.conversations.fork(id, {}, once)).toEqual({ forked_conversation_id: copyId })
  // The key of the request is made of no more than an id.
  for (const id of [randomBytes(6000).toString('base64url'), 'a%00b']) {
    const path = `/api/v1/agent/conversations/${id}/fork`
    const headers = { 'idempotency-key': 'k' }
    expect(await cp.request('POST', path, { json: {}, headers })).toMatchObject({ status: 404 })
  }
  for (const { key } of [await addMember(cp, 'admin'), await addTeam(cp, 'strangers')]) {
    const client = cp.clientFor(key)
    for (const id of [conversationId, copyId]) {
      const refused = { problem: { code: 'conversation_not_found', status: 404 } }
      await expect(client.conversations.get(id)).rejects.toMatchObject(refused)
      await expect(client.conversations.fork(id)).rejects.toMatchObject(refused)
      await expect(client.conversations.rename(id, 'Mine')).rejects.toMatchObject(refused)
      await expect(client.runs.create({ prompt: 'x', conversation_id: id })).rejects.toMatchObject(refused)
    }
  }
  expect((await cp.client.runs.create({ prompt: 'x', team: false, conversation_id: copyId })).state).toBe('QUEUED')
})

test('a conversation is given a title', async () => {
  await using cp = await startControlPlane()
  const runId = await cp.createRun()
  const { conversation_id } = await cp.client.runs.get(runId)
  expect(await cp.client.conversations.get(conversation_id)).not.toHaveProperty('title')
  const title = 'The "search" one'
  expect(await cp.client.conversations.rename(conversation_id, `  ${title} `)).toEqual({ conversation_id, title })
  expect(await cp.client.conversations.get(conversation_id)).toMatchObject({ title, steps: [{}] })
  expect(await cp.client.runs.conversation(runId)).toMatchObject({ title })
  for (const wrong of ['', '   ', 'x'.repeat(256)])
    await expect(cp.client.conversations.rename(conversation_id, wrong)).rejects.toMatchObject({
      problem: { code: 'invalid_request' },
    })
  for (const id of ['x', unknownId])
    await expect(cp.client.conversations.rename(id, 'x')).rejects.toMatchObject({
      problem: { code: 'conversation_not_found' },
    })
})

test('a live conversation leads to its session, and a session that is over to its conversation, without a key', async () => {
  await using cp = await startControlPlane()
  const ask = async (path: string) => {
    const answer = await cp.request('GET', `/api/v1/agent/${path}/redirect`, { key: null })
    return [answer.status, answer.body]
  }
  const queued = await cp.client.runs.get(await cp.createRun({ config: { worker_host: 'nobody' } }))
  expect(await ask(`conversations/${queued.conversation_id}`)).toEqual([200, {}])
  const started = await startedRun(cp, { team: false })
  const { conversationId, agent, runId } = started
  expect(await ask(`conversations/${conversationId}`)).toEqual([200, { session_id: agent.executionId }])
  expect(await ask(`sessions/${agent.executionId}`)).toEqual([200, {}])
  expect((await cp.client.runs.get(runId)).session_id).toBe(agent.executionId)
  await finish(cp, started)
  expect(await ask(`conversations/${conversationId}`)).toEqual([200, {}])
  expect(await ask(`sessions/${agent.executionId}`)).toEqual([200, { conversation_id: conversationId }])
  // A run is no session and no conversation, and what there is not looks the same.
  for (const path of [`sessions/${runId}`, `conversations/${runId}`, `sessions/${unknownId}`, 'sessions/x'])
    expect([path, ...(await ask(path))]).toEqual([path, 200, {}])
  const [status] = await ask('conversations/..%2f..')
  expect(status).toBeLessThan(500)
})
