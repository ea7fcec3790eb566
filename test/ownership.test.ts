import { randomUUID } from 'node:crypto'
import { expect, test } from 'vitest'
import { type ControlPlane, startControlPlane } from './support/control-plane.ts'
import { until } from './support/poll.ts'
import { savedRepository } from './support/saved-repository.ts'

const minutes = (count: number) => ({ seconds: count * 60 })

const executionsOf = async (cp: ControlPlane, runId: string) => (await cp.client.runs.executions(runId)).executions

const allGone = (cp: ControlPlane) =>
  until(
    () => cp.client.workers.list(),
    ({ workers }) => workers.length === 0,
  )

test('what a killed worker’s process held and its successor does not name is tried again at once', async () => {
  await using cp = await startControlPlane()
  const first = randomUUID()
  const { runId, worker, assignment, agent } = await cp.startAgent({}, { instances: [first], maxConcurrentTasks: 3 })
  await agent.checkpoint(1, 'state')
  const kept = await cp.createRun()
  const keptAssignment = await worker.claimNext()
  const offered = await cp.createRun()
  await worker.nextAssignment()
  await cp.waitFor(kept, 'CLAIMED')
  await worker.disconnect()
  await allGone(cp)

  const heir = await cp.connectWorker({
    instances: [randomUUID(), first],
    running: [keptAssignment],
    maxConcurrentTasks: 3,
  })
  expect(await heir.superseded.next()).toEqual({ task_id: runId, execution_id: assignment.execution_id })
  const waiting = await until(
    () => cp.client.runs.get(runId),
    ({ state }) => state !== 'INPROGRESS',
  )
  expect(waiting).toMatchObject({
    state: 'QUEUED',
    status_message: {
      failure_reason: 'worker_died',
      message:
        'Attempt 2 of 4: worker_died, in 2 seconds. The worker was killed, and the task with it. Worker w1 is back and does not have it.',
    },
  })
  // An offer that it never got is no try.
  expect((await heir.claimNext()).task_id).toBe(offered)
  await cp.advanceDatabaseClock({ seconds: 3 })
  const again = await heir.claimNext()
  expect(again.task_id).toBe(runId)
  expect((await cp.agentFor(again).hello()).checkpoint).toMatchObject({ step: 1 })
  expect(await executionsOf(cp, runId)).toMatchObject([
    { state: 'lost', failure_reason: 'worker_died', message: 'Its worker was killed, and it with it.' },
    { state: 'running', retry_of: assignment.execution_id },
  ])
  expect((await cp.client.runs.get(kept)).state).toBe('CLAIMED')
  const retried = (await cp.eventsOf(runId)).flatMap((event) =>
    event.type === 'run_state' && event.data.failure_reason ? [event.data] : [],
  )
  expect(retried).toMatchObject([{ state: 'QUEUED', failure_reason: 'worker_died' }])
})

test('a process whose socket only broke keeps what it names, and what another process has is not its own', async () => {
  await using cp = await startControlPlane()
  const [one, two] = [randomUUID(), randomUUID()]
  const a = await cp.startAgent({}, { instances: [one] })
  const b = await cp.startAgent({}, { instances: [two], workerId: 'w2' })
  await a.worker.disconnect()
  const { task_id, execution_id } = a.assignment
  // An id is only its own: another worker may have had the same.
  const back = await cp.connectWorker({ instances: [one, two], running: [{ task_id, execution_id }] })
  const next = await cp.createRun({ config: { worker_host: 'w1' } })
  back.complete(a.assignment)
  expect((await back.nextAssignment()).task_id).toBe(next)
  expect((await cp.client.runs.get(b.runId)).state).toBe('INPROGRESS')
})

test('a worker that saves what a dead agent left holds its execution until it reports the end', async () => {
  await using cp = await startControlPlane()
  const { runId, worker, assignment, agent } = await cp.startAgent()
  await agent.end('SUCCEEDED', 'done')
  worker.finish(assignment)
  await until(async () => (await cp.db.query('select from executions where finishing_at is not null')).length === 1)
  for (let i = 0; i < 3; i++) await cp.advanceDatabaseClock(minutes(10))
  expect(await executionsOf(cp, runId)).toMatchObject([{ state: 'running' }])

  await worker.disconnect()
  await allGone(cp)
  const back = await cp.connectWorker({ finishing: [assignment], instances: [randomUUID()] })
  for (let i = 0; i < 3; i++) await cp.advanceDatabaseClock(minutes(10))
  expect(await executionsOf(cp, runId)).toMatchObject([{ state: 'running' }])
  back.complete(assignment)
  await until(
    () => executionsOf(cp, runId),
    ([execution]) => execution?.state === 'ended',
  )
})

test('an agent that stopped itself because of its lease is tried again', async () => {
  await using cp = await startControlPlane()
  const { runId, worker, assignment } = await cp.startAgent()
  worker.fail(assignment, { failure_reason: 'lease_lost', exit_code: 75 })
  expect((await worker.nextAssignment()).task_id).toBe(runId)
  expect(await executionsOf(cp, runId)).toMatchObject([{ state: 'ended', failure_reason: 'lease_lost' }, {}])
})

test('an outcome that comes after its execution was given up ends the turn, and the retry is taken back', async () => {
  await using cp = await startControlPlane()
  const { runId, worker, assignment, agent } = await cp.startAgent()
  await agent.say('nearly')
  worker.fail(assignment, { failure_reason: 'agent_invocation', exit_code: 137 })
  await cp.waitFor(runId, 'QUEUED')
  await agent.checkpoint(7, 'the end')
  expect(await agent.end('SUCCEEDED', 'done after all')).toMatchObject({ superseded: true })
  const bundle = await agent.putBlob('bundle')
  await agent.send({ type: 'workspace_saved', data: { repositories: [savedRepository(bundle)], left_out: [] } })

  expect(await cp.client.runs.get(runId)).toMatchObject({
    state: 'SUCCEEDED',
    status_message: { message: 'done after all' },
  })
  expect(await executionsOf(cp, runId)).toMatchObject([{ state: 'ended', outcome: 'SUCCEEDED' }])
  expect((await cp.client.runs.workspace(runId)).repositories).toMatchObject([{ has_bundle: true }])
  expect((await cp.statesOf(runId)).slice(-2)).toEqual(['QUEUED', 'SUCCEEDED'])
  await cp.advanceDatabaseClock({ seconds: 10 })
  const next = await cp.createRun()
  expect((await worker.nextAssignment()).task_id).toBe(next)
  // What is asked next goes on from there.
  await cp.client.runs.followUp(runId, { message: 'more' })
  const other = await cp.connectWorker({ workerId: 'w2' })
  expect((await cp.agentFor(await other.claimNext()).hello()).checkpoint).toMatchObject({ step: 7 })
})

test('the same while the retry is offered already, and its worker is told to leave it', async () => {
  await using cp = await startControlPlane()
  const { runId, agent, worker, assignment } = await cp.startAgent()
  await cp.db.query(`update executions set lease_renewed_at = db_now() - interval '14 minutes'`)
  expect(await worker.superseded.next()).toMatchObject({ execution_id: assignment.execution_id })
  const second = await worker.claimNext()
  await cp.waitFor(runId, 'CLAIMED')
  await agent.end('BLOCKED', 'a question')
  expect((await cp.client.runs.get(runId)).state).toBe('BLOCKED')
  expect(await worker.superseded.next()).toEqual({ task_id: runId, execution_id: second.execution_id })
  await expect(cp.agentFor(second).hello()).rejects.toMatchObject({ problem: { code: 'execution_superseded' } })
  expect(await executionsOf(cp, runId)).toMatchObject([{ state: 'lost' }, { state: 'ended' }])
})

test('once the next agent has begun, what comes late is evidence, and its workspace is kept beside', async () => {
  await using cp = await startControlPlane()
  const { runId, worker, assignment, agent } = await cp.startAgent()
  await agent.checkpoint(1, 'one')
  worker.fail(assignment, { failure_reason: 'graceful_shutdown', exit_code: 143 })
  const heir = cp.agentFor(await worker.claimNext())
  await heir.hello()
  await agent.checkpoint(2, 'two')
  await agent.end('SUCCEEDED', 'from the past')
  const bundle = await agent.putBlob('late work')
  await agent.send({ type: 'workspace_saved', data: { repositories: [savedRepository(bundle)], left_out: [] } })
  expect((await cp.client.runs.get(runId)).state).toBe('INPROGRESS')
  expect((await heir.hello()).checkpoint).toMatchObject({ step: 1 })
  await expect(cp.client.runs.workspace(runId)).rejects.toMatchObject({ problem: { code: 'workspace_not_saved' } })
  expect(await cp.client.runs.workspace(runId, { attempt: 1 })).toMatchObject({ repositories: [{ has_bundle: true }] })
  const work = await cp.request<string>('GET', `/api/v1/agent/runs/${runId}/workspace/0/bundle?attempt=1`)
  expect(work.body).toBe('late work')
  const second = await heir.putBlob('the work of the second')
  await heir.send({ type: 'workspace_saved', data: { repositories: [savedRepository(second)], left_out: [] } })
  for (const attempt of ['', '?attempt=2']) {
    const path = `/api/v1/agent/runs/${runId}/workspace/0/bundle${attempt}`
    expect((await cp.request<string>('GET', path)).body).toBe('the work of the second')
  }
  for (const attempt of [1, 2]) await cp.client.runs.workspace(runId, { attempt })
  await expect(cp.client.runs.workspace(runId, { attempt: 3 })).rejects.toMatchObject({
    problem: { code: 'attempt_workspace_not_saved', detail: expect.stringContaining('attempt 3 of run') },
  })
  const late = (await cp.eventsOf(runId)).filter(({ data }) => 'late' in data)
  expect(late.map(({ type }) => type)).toEqual(['checkpoint', 'turn_outcome', 'workspace_saved'])
})

test('a socket that closes takes no offer back that its worker has named on another one', async () => {
  await using cp = await startControlPlane()
  const old = await cp.connectWorker()
  const runId = await cp.createRun()
  const assignment = await old.nextAssignment()
  const fresh = await cp.connectWorker({ running: [assignment] })
  await until(async () => {
    const [row] = await cp.db.query<{ ready: boolean }>(
      `select worker_connection_id <> (select id from worker_connections order by connected_at limit 1) as ready from executions`,
    )
    return row?.ready === true
  })
  await old.disconnect()
  await until(
    () => cp.client.workers.list(),
    ({ workers }) => workers.length === 1,
  )
  fresh.claim(assignment)
  await cp.waitFor(runId, 'CLAIMED')
  expect(await executionsOf(cp, runId)).toMatchObject([{ state: 'claimed' }])
})

test('a worker is not told to end an agent that said goodbye, and says itself how it ended', async () => {
  await using cp = await startControlPlane()
  const { runId, worker, assignment, agent } = await cp.startAgent({}, { maxConcurrentTasks: 2 })
  await agent.end('SUCCEEDED')
  await agent.nextTurn(true)
  // Lost by now, and told so: the worker was looked after meanwhile.
  const other = await cp.createRun()
  const beside = await worker.claimNext()
  expect(beside.task_id).toBe(other)
  await cp.agentFor(beside).hello()
  await cp.db.query(`update executions set lease_renewed_at = db_now() - interval '14 minutes' where run_id = $1`, [
    other,
  ])
  expect(await worker.superseded.next()).toMatchObject({ task_id: other })
  expect(await executionsOf(cp, runId)).toMatchObject([{ state: 'ended', outcome: 'SUCCEEDED' }])

  await worker.disconnect()
  await allGone(cp)
  const back = await cp.connectWorker({ running: [assignment], maxConcurrentTasks: 1 })
  back.complete(assignment)
  // Its slot is free with that.
  expect((await back.nextAssignment()).task_id).toBe(other)
  expect(back.superseded.items).toEqual([])
})

test('an agent that hangs after its goodbye is ended by its worker', async () => {
  await using cp = await startControlPlane()
  const { worker, assignment, agent } = await cp.startAgent()
  await agent.end('SUCCEEDED')
  await agent.nextTurn(true)
  await cp.advanceDatabaseClock({ seconds: 61 })
  expect(await worker.superseded.next()).toMatchObject({ execution_id: assignment.execution_id })
})
