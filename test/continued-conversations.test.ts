import { isApiError } from '@openoz/protocol'
import { expect, test } from 'vitest'
import { startControlPlane } from './support/control-plane.ts'
import { until } from './support/poll.ts'
import { savedRepository } from './support/saved-repository.ts'

test('of a run’s checkpoints and saved workspaces only the newest are kept', async () => {
  await using cp = await startControlPlane()
  const { agent, runId } = await cp.startAgent()
  for (let step = 1; step <= 3; step++) {
    await agent.checkpoint(step, `state ${step}`)
    const bundle = await agent.putBlob(`bundle ${step}`)
    await agent.send({ type: 'workspace_saved', data: { repositories: [savedRepository(bundle)], left_out: [] } })
  }
  const [row] = await cp.db.query<{ blobs: number }>('select count(*)::int as blobs from blobs where run_id = $1', [
    runId,
  ])
  expect(row?.blobs).toBe(2)
  const diff = await cp.request<string>('GET', `/api/v1/agent/runs/${runId}/workspace/0/bundle`)
  expect(diff.body).toBe('bundle 3')
})

test('a conversation is continued by another run, with its workspace and its environment', async () => {
  await using cp = await startControlPlane()
  const environment = { source_repos: [{ url: 'file:///srv/app.git' }] }
  const first = await cp.startAgent({ config: { environment, base_prompt: 'Be brief.' } })
  await first.agent.checkpoint(1, 'memory')
  const bundle = await first.agent.putBlob('bundle')
  await first.agent.send({ type: 'workspace_saved', data: { repositories: [savedRepository(bundle)], left_out: [] } })
  const { conversation_id } = await cp.client.runs.get(first.runId)

  const request = { prompt: 'go on', conversation_id }
  await expect(cp.client.runs.create(request)).rejects.toSatisfy((error) => isApiError(error, 'conversation_busy'))
  await first.agent.end('SUCCEEDED')
  await first.agent.nextTurn()
  const second = await cp.client.runs.create(request)
  // The first agent remembers the conversation as it was: it may not wait for follow-ups any longer.
  await until(
    () => cp.client.runs.executions(first.runId),
    ({ executions }) => executions[0]?.state === 'ended',
  )
  first.worker.complete(first.assignment)
  const agent = cp.agentFor(await first.worker.claimNext())
  const hello = await agent.hello()
  expect(hello).toMatchObject({
    run_id: second.run_id,
    conversation_id,
    continues: { reason: 'conversation', is_workspace_stale: false },
    checkpoint: { step: 1 },
    workspace: { repositories: [{ dir: 'app' }] },
    config: { environment, base_prompt: 'Be brief.' },
  })
  expect(await (await agent.request(`/api/v1/agent-channel/blobs/${bundle}`)).text()).toBe('bundle')
  await expect(cp.client.runs.followUp(first.runId, { message: 'me too' })).rejects.toSatisfy((error) =>
    isApiError(error, 'conversation_busy'),
  )
  await expect(cp.client.runs.create({ prompt: 'x', conversation_id: crypto.randomUUID() })).rejects.toSatisfy(
    (error) => isApiError(error, 'conversation_not_found'),
  )
})

test('a fork has its own copy of conversation and workspace', async () => {
  await using cp = await startControlPlane()
  const { agent, runId, worker, assignment } = await cp.startAgent({ title: 'Original', config: { name: 'n1' } })
  await agent.checkpoint(2, 'memory')
  const bundle = await agent.putBlob('bundle')
  await agent.send({
    type: 'workspace_saved',
    data: { repositories: [savedRepository(bundle)], left_out: ['big.bin'] },
  })
  const { run_id: forkId } = await cp.client.runs.fork(runId, { prompt: 'try it the other way' })
  await agent.checkpoint(3, 'later memory')
  await agent.end('SUCCEEDED')
  await agent.nextTurn(true)
  worker.complete(assignment)

  const [original, fork] = await Promise.all([cp.client.runs.get(runId), cp.client.runs.get(forkId)])
  expect(fork).toMatchObject({
    title: 'Fork of Original',
    prompt: 'try it the other way',
    agent_config: { name: 'n1' },
  })
  expect(fork.conversation_id).not.toBe(original.conversation_id)
  expect(fork.forked_from_conversation_id).toBe(original.conversation_id)
  expect(original.forked_from_conversation_id).toBeUndefined()
  const copy = cp.agentFor(await worker.claimNext())
  const hello = await copy.hello()
  expect(hello).toMatchObject({
    continues: { reason: 'conversation', is_workspace_stale: false },
    checkpoint: { step: 2 },
    workspace: { repositories: [{ dir: 'app' }] },
  })
  expect(hello.workspace?.repositories[0]?.bundle_blob_id).not.toBe(bundle)
  const memory = await copy.request(`/api/v1/agent-channel/blobs/${hello.checkpoint?.blob_id}`)
  expect(await memory.text()).toBe('memory')
  // Another run's blobs are not for it.
  expect((await copy.request(`/api/v1/agent-channel/blobs/${bundle}`)).status).toBe(404)
})
