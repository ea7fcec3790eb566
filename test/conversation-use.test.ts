import { isApiError } from '@openoz/protocol'
import pg from 'pg'
import { expect, test } from 'vitest'
import { startControlPlane } from './support/control-plane.ts'
import { addMember } from './support/people.ts'
import { until } from './support/poll.ts'
import { savedRepository } from './support/saved-repository.ts'

const isUnknown = (error: unknown) => isApiError(error, 'conversation_not_found')

test('a conversation with a colleague’s personal run in it is neither continued nor copied', async () => {
  await using cp = await startControlPlane()
  const worker = await cp.connectWorker()
  const perform = async (step: number) => {
    const assignment = await worker.claimNext()
    const agent = cp.agentFor(assignment)
    await agent.hello()
    await agent.checkpoint(step, 'secret')
    await agent.end('SUCCEEDED')
    await agent.nextTurn(true)
    worker.complete(assignment)
  }
  const colleague = cp.clientFor((await addMember(cp, 'member')).key)
  const request = { prompt: 'for my eyes only', team: false }
  const { run_id: personalId } = await colleague.runs.create(request)
  await perform(1)
  const { conversation_id } = await colleague.runs.get(personalId)
  const { run_id: runId } = await colleague.runs.create({ prompt: 'for all', conversation_id })

  // At work or not: that it is busy would tell of a run that may not be seen.
  for (const isOver of [false, true]) {
    if (isOver) await perform(2)
    await expect(cp.client.runs.create({ prompt: 'go on', conversation_id })).rejects.toSatisfy(isUnknown)
    await expect(cp.client.runs.fork(runId, { prompt: 'copy' })).rejects.toSatisfy(isUnknown)
  }
  await expect(cp.client.runs.followUp(runId, { message: 'go on' })).rejects.toSatisfy(isUnknown)
  const { run_id: forkId } = await colleague.runs.fork(personalId, { prompt: 'copy' })
  expect((await colleague.runs.get(forkId)).scope?.type).toBe('User')
  expect((await colleague.runs.create({ prompt: 'more', conversation_id })).state).toBe('QUEUED')
})

test('a personal run goes on with runs of the team in a copy alone: in their conversation it would lock out everybody else', async () => {
  await using cp = await startControlPlane()
  const { agent, runId } = await cp.startAgent()
  await agent.checkpoint(1, 'what we know')
  await agent.end('SUCCEEDED')
  await agent.nextTurn(true)
  const { conversation_id } = await cp.client.runs.get(runId)
  const personal = { prompt: 'for my eyes only', team: false }
  const refused = { problem: { code: 'conversation_of_team', status: 409 } }
  await expect(cp.client.runs.create({ ...personal, conversation_id })).rejects.toMatchObject(refused)
  const local = { ...personal, conversation_id, host: 'laptop' }
  await expect(cp.client.runs.startLocal(local)).rejects.toMatchObject(refused)
  const { forked_conversation_id: copyId } = await cp.client.conversations.fork(conversation_id)
  const { run_id } = await cp.client.runs.create({ ...personal, conversation_id: copyId })
  expect((await cp.client.runs.get(run_id)).scope?.type).toBe('User')
  const colleague = cp.clientFor((await addMember(cp, 'member')).key)
  expect(await colleague.runs.followUp(runId, { message: 'go on' })).toMatchObject({ state: 'QUEUED' })
})

test('a fork that waits while the newest checkpoint is replaced copies the one that replaced it', async () => {
  await using cp = await startControlPlane()
  const { agent, runId, worker, assignment } = await cp.startAgent()
  await agent.checkpoint(1, 'memory')
  const bundle = await agent.putBlob('bundle')
  await agent.send({ type: 'workspace_saved', data: { repositories: [savedRepository(bundle)], left_out: [] } })
  await agent.end('SUCCEEDED')
  await agent.nextTurn(true)

  // What a batch of events does, slower: the run's lock, the next rows, without those before them.
  const slow = new pg.Client(cp.database.url)
  await slow.connect()
  try {
    await slow.query('begin')
    await slow.query('select from runs where id = $1 for no key update', [runId])
    await slow.query(
      `insert into checkpoints (id, conversation_id, run_id, execution_id, harness, format, step, blob_id)
       select gen_random_uuid(), conversation_id, run_id, execution_id, harness, format, 2, blob_id from checkpoints`,
    )
    await slow.query('delete from checkpoints where step = 1')
    await slow.query(
      `insert into saved_workspaces (id, run_id, conversation_id, execution_id, repositories, left_out)
       select gen_random_uuid(), run_id, conversation_id, execution_id, repositories, '["newer"]' from saved_workspaces`,
    )
    await slow.query(`delete from saved_workspaces where left_out = '[]'`)
    const forking = cp.client.runs.fork(runId, { prompt: 'the other way' })
    await until(async () => {
      const [row] = await cp.db.query<{ waiting: number }>(
        `select count(*)::int as waiting from pg_stat_activity
          where datname = current_database() and wait_event_type = 'Lock' and query like '%for share%'`,
      )
      return row?.waiting
    })
    await slow.query('commit')
    await forking
  } finally {
    await slow.end()
  }
  worker.complete(assignment)
  const hello = await cp.agentFor(await worker.claimNext()).hello()
  expect(hello).toMatchObject({ checkpoint: { step: 2 }, workspace: { repositories: [{ dir: 'app' }] } })
})

/** The id that a server makes whose clock is far ahead. */
const laterId = 'ffffffff-ffff-7fff-bfff-ffffffffffff'

test('the newest checkpoint and workspace are those that were stored last, whatever the servers’ clocks say', async () => {
  await using cp = await startControlPlane()
  const { agent, runId, worker, assignment } = await cp.startAgent()
  await agent.checkpoint(1, 'older')
  const older = await agent.putBlob('older')
  await agent.send({ type: 'workspace_saved', data: { repositories: [savedRepository(older)], left_out: [] } })
  for (const table of ['checkpoints', 'saved_workspaces']) await cp.db.query(`update ${table} set id = '${laterId}'`)

  await agent.checkpoint(2, 'newer')
  const newer = await agent.putBlob('newer')
  await agent.send({ type: 'workspace_saved', data: { repositories: [savedRepository(newer)], left_out: [] } })
  await agent.end('SUCCEEDED')
  await agent.nextTurn(true)
  worker.complete(assignment)
  const bundle = await cp.request<string>('GET', `/api/v1/agent/runs/${runId}/workspace/0/bundle`)
  expect(bundle.body).toBe('newer')
  const [row] = await cp.db.query<{ blobs: number }>('select count(*)::int as blobs from blobs')
  expect(row?.blobs).toBe(2)

  // Another run of the conversation keeps rows of its own: the newest of all counts.
  await cp.db.query(`update checkpoints set id = '${laterId}'`)
  const { conversation_id } = await cp.client.runs.get(runId)
  await cp.client.runs.create({ prompt: 'go on', conversation_id })
  const next = await worker.claimNext()
  const heir = cp.agentFor(next)
  expect((await heir.hello()).checkpoint?.step).toBe(2)
  await heir.checkpoint(3, 'newest')
  await heir.end('SUCCEEDED')
  await heir.nextTurn(true)
  worker.complete(next)
  await cp.client.runs.create({ prompt: 'and on', conversation_id })
  expect((await cp.agentFor(await worker.claimNext()).hello()).checkpoint?.step).toBe(3)
})

test('commands are given in the order in which they were stored, whatever the servers’ clocks say', async () => {
  await using cp = await startControlPlane()
  const { agent, runId } = await cp.startAgent()
  await cp.client.runs.followUp(runId, { message: 'first', mode: 'steer' })
  await cp.db.query(`update commands set id = '${laterId}'`)
  await cp.client.runs.followUp(runId, { message: 'second', mode: 'steer' })
  const texts = [(await agent.nextCommand()).payload, (await agent.nextCommand()).payload]
  expect(texts).toMatchObject([{ text: 'first' }, { text: 'second' }])
})
