import { isApiError } from '@openoz/protocol'
import { expect, test } from 'vitest'
import { startControlPlane } from './support/control-plane.ts'

test('a hello that is asked again is answered the same, for a turn that is tried again too', async () => {
  await using cp = await startControlPlane()
  const { agent, worker, assignment } = await cp.startAgent()
  expect((await agent.hello()).continues).toBeNull()
  worker.fail(assignment, { failure_reason: 'agent_invocation', exit_code: 137 })
  await cp.advanceDatabaseClock({ seconds: 5 })

  const heir = cp.agentFor(await worker.claimNext())
  const first = await heir.hello()
  expect(first.continues).toEqual({ reason: 'retry', is_workspace_stale: false })
  // Its answer was lost on its way.
  expect(await heir.hello()).toEqual(first)
})

test('a follow-up in a new execution is none that is tried again, however often its agent says hello', async () => {
  await using cp = await startControlPlane()
  const { agent, runId, worker, assignment } = await cp.startAgent()
  await agent.checkpoint(1, 'state')
  await agent.end('SUCCEEDED')
  await agent.nextTurn(true)
  worker.complete(assignment)
  await cp.client.runs.followUp(runId, { message: 'more' })
  const heir = cp.agentFor(await worker.claimNext())
  const reasons = [(await heir.hello()).continues?.reason, (await heir.hello()).continues?.reason]
  expect(reasons).toEqual(['follow_up', 'follow_up'])
})

test('nobody is given a turn before its hello', async () => {
  await using cp = await startControlPlane()
  const worker = await cp.connectWorker()
  await cp.createRun()
  const agent = cp.agentFor(await worker.claimNext())
  for (const isLast of [false, true])
    await expect(agent.nextTurn(isLast)).rejects.toSatisfy((error) => isApiError(error, 'execution_superseded'))
  expect((await agent.hello()).turn.message).toBe('do it')
})

test('what would change a run is not acted on before the hello, and the log says so', async () => {
  await using cp = await startControlPlane()
  const runId = await cp.createRun()
  const [turn] = await cp.db.query<{ id: string }>('select id from turns where run_id = $1', [runId])
  const worker = await cp.connectWorker()
  const agent = cp.agentFor(await worker.claimNext())
  await cp.waitFor(runId, 'CLAIMED')
  agent.turnId = turn?.id ?? ''
  await agent.say('not yet')
  await agent.checkpoint(1, 'state')
  await agent.send({ type: 'workspace_saved', data: { repositories: [], left_out: [] } })
  await agent.send({ type: 'model_wait', data: { reason: 'busy', until: new Date().toISOString(), attempt: 1 } })
  expect(await agent.end('SUCCEEDED')).toEqual({ acked_n: 5 })

  expect(await cp.client.runs.get(runId)).toMatchObject({
    state: 'CLAIMED',
    status_message: { message: 'Worker w1 is starting the agent.' },
  })
  const events = (await cp.eventsOf(runId))
    .slice(-5)
    .map(({ type, data }) => [type, (data as { reason?: string }).reason])
  const refused = ['event_invalid', 'its agent has not said hello']
  expect(events).toEqual([['agent_message_chunk', undefined], refused, refused, refused, refused])

  expect(await agent.hello()).toMatchObject({ checkpoint: null, workspace: null, continues: null })
  await agent.end('SUCCEEDED')
  expect((await cp.client.runs.get(runId)).state).toBe('SUCCEEDED')
})

test('a message to a run whose live execution never said hello goes to a new one', async () => {
  await using cp = await startControlPlane()
  const { agent, runId, worker } = await cp.startAgent({}, { maxConcurrentTasks: 2 })
  await agent.end('SUCCEEDED')
  // No door leads here; a row that is as wrong as this must not keep its run from going on.
  await cp.db.query(`update executions set hello_at = null, state = 'claimed' where run_id = $1`, [runId])
  expect((await cp.client.runs.followUp(runId, { message: 'again' })).state).toBe('QUEUED')
  expect((await cp.agentFor(await worker.claimNext()).hello()).turn.message).toBe('again')
  expect((await cp.client.runs.executions(runId)).executions.map(({ state }) => state)).toEqual(['ended', 'running'])
})
