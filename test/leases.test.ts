import pg from 'pg'
import { expect, test } from 'vitest'
import { type ControlPlane, startControlPlane } from './support/control-plane.ts'
import { until } from './support/poll.ts'

const minutes = (count: number) => ({ seconds: count * 60 })

const executionsOf = async (cp: ControlPlane, runId: string) => (await cp.client.runs.executions(runId)).executions

test('an execution that does not renew is shown as unreachable after 15 s, and nothing is decided', async () => {
  await using cp = await startControlPlane()
  const { agent, runId } = await cp.startAgent()
  expect((await executionsOf(cp, runId))[0]?.unreachable).toBe(false)
  await cp.advanceDatabaseClock({ seconds: 16 })
  expect(await executionsOf(cp, runId)).toMatchObject([{ unreachable: true, state: 'running' }])
  expect((await cp.client.runs.get(runId)).state).toBe('INPROGRESS')
  await agent.renew()
  expect((await executionsOf(cp, runId))[0]?.unreachable).toBe(false)
})

test('a lost execution is tried again from its last checkpoint, and the old agent can change nothing more', async () => {
  await using cp = await startControlPlane()
  const { agent, runId, assignment, worker } = await cp.startAgent()
  await agent.say('working')
  await agent.checkpoint(1, 'first step')
  await agent.checkpoint(2, 'second step')
  await cp.advanceDatabaseClock(minutes(12))
  expect((await cp.client.runs.get(runId)).state).toBe('INPROGRESS')
  await cp.advanceDatabaseClock(minutes(1.1))

  // The worker was there all the time: it is told to end the old one and gets the new one.
  expect(await worker.superseded.next()).toMatchObject({ execution_id: assignment.execution_id })
  const second = await worker.claimNext()
  expect(second.task_id).toBe(runId)
  expect(second.execution_id).not.toBe(assignment.execution_id)
  const successor = cp.agentFor(second)
  const hello = await successor.hello()
  expect(hello).toMatchObject({ attempt: 2, acked_n: 0, checkpoint: { step: 2, harness: 'oz' } })
  const state = await successor.request(`/api/v1/agent-channel/blobs/${hello.checkpoint?.blob_id}`)
  expect(await state.text()).toBe('second step')

  await expect(agent.hello()).rejects.toMatchObject({ problem: { code: 'execution_superseded', status: 410 } })
  expect(await agent.end('SUCCEEDED', 'from the past')).toMatchObject({ superseded: true })
  expect((await cp.client.runs.get(runId)).state).toBe('INPROGRESS')
  await successor.end('SUCCEEDED', 'from the second')
  expect(await cp.client.runs.get(runId)).toMatchObject({
    state: 'SUCCEEDED',
    status_message: { message: 'from the second' },
  })
  expect(await executionsOf(cp, runId)).toMatchObject([
    { state: 'lost', failure_reason: 'lost' },
    { state: 'running', outcome: 'SUCCEEDED' },
  ])
  expect((await executionsOf(cp, runId))[0]?.ended_at).not.toBeNull()
  expect(await cp.statesOf(runId)).toEqual([
    ...['QUEUED', 'PENDING', 'CLAIMED', 'INPROGRESS'],
    ...['QUEUED', 'PENDING', 'CLAIMED', 'INPROGRESS', 'SUCCEEDED'],
  ])
})

test('a run whose worker vanishes before the hello is offered again once the lease ends', async () => {
  await using cp = await startControlPlane()
  const lost = await cp.connectWorker({ workerId: 'lost' })
  const runId = await cp.createRun()
  await lost.claimNext()
  await cp.waitFor(runId, 'CLAIMED')
  await lost.disconnect()
  await until(
    () => cp.client.workers.list(),
    ({ workers }) => workers.length === 0,
  )
  await cp.advanceDatabaseClock(minutes(13.1))
  const other = await cp.connectWorker({ workerId: 'other' })
  expect((await other.nextAssignment()).task_id).toBe(runId)
})

test('a worker that stays connected keeps what it has claimed', async () => {
  await using cp = await startControlPlane()
  const worker = await cp.connectWorker()
  const runId = await cp.createRun()
  await worker.claimNext()
  await cp.waitFor(runId, 'CLAIMED')
  for (let i = 0; i < 3; i++) await cp.advanceDatabaseClock(minutes(10))
  expect((await cp.client.runs.get(runId)).state).toBe('CLAIMED')
})

test('an execution whose turn has its outcome is settled after a minute, when its worker was killed before it could say so', async () => {
  await using cp = await startControlPlane()
  const { agent, runId, worker } = await cp.startAgent()
  await agent.end('SUCCEEDED', 'done')
  await worker.disconnect()
  expect(await executionsOf(cp, runId)).toMatchObject([{ state: 'running' }])
  await cp.advanceDatabaseClock({ seconds: 61 })
  await until(
    () => executionsOf(cp, runId),
    ([execution]) => execution?.state === 'lost',
  )
  expect(await cp.client.runs.get(runId)).toMatchObject({ state: 'SUCCEEDED', is_sandbox_running: false })
  expect((await cp.client.runs.events(runId, { limit: 500 })).is_complete).toBe(true)
})

test('a message to a run whose resting agent is gone goes to another one after a minute', async () => {
  await using cp = await startControlPlane()
  const { agent, runId, worker, assignment } = await cp.startAgent()
  await agent.end('SUCCEEDED', 'done')
  await agent.nextTurn()
  await cp.client.runs.followUp(runId, { message: 'are you there' })
  await cp.advanceDatabaseClock({ seconds: 50 })
  expect(await executionsOf(cp, runId)).toMatchObject([{ state: 'idle' }])
  await cp.advanceDatabaseClock({ seconds: 11 })

  expect(await worker.superseded.next()).toMatchObject({ execution_id: assignment.execution_id })
  const heir = cp.agentFor(await worker.claimNext())
  expect((await heir.hello()).turn).toMatchObject({ number: 2, message: 'are you there' })
  expect(await executionsOf(cp, runId)).toMatchObject([{ state: 'lost' }, { state: 'running' }])
  // It had begun nothing: that counts as no try.
  const messages = (await cp.eventsOf(runId)).flatMap((event) =>
    event.type === 'run_state' ? [event.data.message] : [],
  )
  expect(messages.filter((message) => message?.startsWith('Attempt'))).toEqual([])
})

test('an agent that has begun a later turn keeps the whole lease', async () => {
  await using cp = await startControlPlane()
  const { agent, runId } = await cp.startAgent()
  await agent.end('SUCCEEDED', 'done')
  await agent.nextTurn()
  await cp.client.runs.followUp(runId, { message: 'more' })
  await agent.nextTurn()
  await cp.advanceDatabaseClock(minutes(12))
  expect(await executionsOf(cp, runId)).toMatchObject([{ state: 'running' }])
  expect((await cp.client.runs.get(runId)).state).toBe('INPROGRESS')
})

test('a run is tried three times, then it ends with the reason', async () => {
  await using cp = await startControlPlane()
  const worker = await cp.connectWorker()
  const runId = await cp.createRun()
  for (let attempt = 1; attempt <= 3; attempt++) {
    await cp.agentFor(await worker.claimNext()).hello()
    await cp.advanceDatabaseClock(minutes(14))
  }
  const run = await cp.waitFor(runId, 'ERROR')
  expect(run.status_message).toMatchObject({ error_code: 'resource_unavailable' })
  expect(run.status_message?.message).toMatch(
    /^The execution was lost.* Its agent on worker w1 was last heard of .* It was tried 3 times\.$/,
  )
  expect(await cp.client.runs.why(runId)).toMatchObject({ failure_reason: 'lost', state: 'ERROR' })
  expect((await executionsOf(cp, runId)).map(({ state }) => state)).toEqual(['lost', 'lost', 'lost'])
  const states = await cp.statesOf(runId)
  expect(states.filter((state) => state === 'ERROR')).toHaveLength(1)
})

test('an outage of the whole control plane costs no execution its lease', async () => {
  await using cp = await startControlPlane()
  const { agent, runId } = await cp.startAgent()
  await cp.stop()
  await cp.advanceDatabaseClock({ ...minutes(60), whileAway: true })
  await cp.restart()
  // Two rounds of the sweeper.
  await cp.advanceDatabaseClock({ seconds: 1 })
  await until(async () => {
    const [row] = await cp.db.query<{ fresh: boolean }>(
      `select beat_at > db_now() - interval '2 seconds' as fresh from control_plane_heartbeat`,
    )
    return row?.fresh === true
  })
  expect((await cp.client.runs.get(runId)).state).toBe('INPROGRESS')
  expect(await agent.say('I never noticed')).toEqual({ acked_n: 1 })
  // What was left of the lease before the outage is what is left after it.
  await cp.advanceDatabaseClock(minutes(12.5))
  expect((await cp.client.runs.get(runId)).state).toBe('INPROGRESS')
  await cp.advanceDatabaseClock(minutes(1))
  await cp.waitFor(runId, 'QUEUED')
})

test('a worker that comes back is told what is over, and keeps the rest', async () => {
  await using cp = await startControlPlane()
  const worker = await cp.connectWorker({ maxConcurrentTasks: 2 })
  const [over, live] = [await cp.createRun(), await cp.createRun()]
  const assignments = [await worker.claimNext(), await worker.claimNext()]
  const first = assignments.find(({ task_id }) => task_id === over)
  const second = assignments.find(({ task_id }) => task_id === live)
  await cp.waitFor(live, 'CLAIMED')
  await worker.disconnect()
  await until(
    () => cp.client.workers.list(),
    ({ workers }) => workers.length === 0,
  )
  await cp.db.query(`update executions set lease_renewed_at = db_now() - interval '14 minutes' where run_id = $1`, [
    over,
  ])
  await cp.waitFor(over, 'QUEUED')

  const running = assignments.map(({ task_id, execution_id }) => ({ task_id, execution_id }))
  const back = await cp.connectWorker({ maxConcurrentTasks: 2, running })
  expect(await back.superseded.next()).toEqual({ task_id: over, execution_id: first?.execution_id })
  // The slot of what is over is free again: the run that was lost comes back on it.
  expect((await back.nextAssignment()).task_id).toBe(over)
  await cp.advanceDatabaseClock(minutes(20))
  expect((await cp.client.runs.get(live)).state).toBe('CLAIMED')
  await cp.agentFor(second as never).hello()
  expect((await cp.client.runs.get(live)).state).toBe('INPROGRESS')
})

test('a reference worker that comes back keeps what it had claimed, and hears of its cancel', async () => {
  await using cp = await startControlPlane()
  const worker = await cp.connectWorker({ ours: false })
  const runId = await cp.createRun()
  const assignment = await worker.claimNext()
  await cp.waitFor(runId, 'CLAIMED')
  await worker.disconnect()
  await until(
    () => cp.client.workers.list(),
    ({ workers }) => workers.length === 0,
  )
  const back = await cp.connectWorker({ ours: false })
  await until(async () => {
    const rows = await cp.db.query(
      'select from executions join worker_connections on worker_connections.id = worker_connection_id',
    )
    return rows.length === 1
  })
  for (let i = 0; i < 3; i++) await cp.advanceDatabaseClock(minutes(10))
  expect((await cp.client.runs.get(runId)).state).toBe('CLAIMED')
  await cp.client.runs.cancel(runId)
  expect(await back.cancellations.next()).toEqual({ task_id: runId })
  // It closes before the worker has heard it: the next connection gets it again, although the old socket is not known to be closed.
  const again = await cp.connectWorker({ ours: false })
  await back.disconnect()
  expect(await again.cancellations.next()).toEqual({ task_id: runId })
  again.complete(assignment, { task_state: 'CANCELLED' })
  await cp.waitFor(runId, 'CANCELLED')
})

test('one execution that cannot be ended keeps no other one alive', async () => {
  await using cp = await startControlPlane()
  const stuck = await cp.startAgent()
  await stuck.worker.disconnect()
  const other = await cp.startAgent({}, { workerId: 'w2' })
  await other.worker.disconnect()
  await cp.db.query(`
    create function refuse() returns trigger language plpgsql as $$begin raise exception 'not this one'; end$$;
    create trigger refuse before update on executions for each row
      when (old.id = '${stuck.assignment.execution_id}' and new.state = 'lost') execute function refuse()`)
  await cp.advanceDatabaseClock(minutes(14))
  await cp.waitFor(other.runId, 'QUEUED')
  expect((await cp.client.runs.get(stuck.runId)).state).toBe('INPROGRESS')
  await cp.db.query('drop trigger refuse on executions')
  await cp.waitFor(stuck.runId, 'QUEUED')
})

test('the heartbeat does not wait for a sweep that waits', async () => {
  await using cp = await startControlPlane()
  const { runId, worker } = await cp.startAgent()
  await worker.disconnect()
  const client = new pg.Client({ connectionString: cp.database.url })
  await client.connect()
  try {
    await client.query('begin')
    await client.query('select from runs where id = $1 for update', [runId])
    await cp.advanceDatabaseClock(minutes(14))
    await until(async () => {
      const rows =
        await cp.db.query(`select from pg_stat_activity where wait_event_type = 'Lock' and query like '%runs%'
                                         and datname = current_database()`)
      return rows.length > 0
    })
    const beats = new Set<string>()
    await until(async () => {
      const [row] = await cp.db.query<{ at: string }>('select beat_at::text as at from control_plane_heartbeat')
      return beats.add(row?.at ?? '').size > 3
    })
    await client.query('rollback')
  } finally {
    await client.end()
  }
  await cp.waitFor(runId, 'QUEUED')
})

test('an outage gives no execution more time than a fresh lease has', async () => {
  await using cp = await startControlPlane()
  await cp.startAgent()
  await cp.stop()
  // Renewed in the middle of the outage, by a batch that another server still took.
  await cp.advanceDatabaseClock({ ...minutes(60), whileAway: true })
  await cp.db.query('update executions set lease_renewed_at = db_now()')
  await cp.restart()
  await until(async () => {
    const [row] = await cp.db.query<{ fresh: boolean }>(
      `select beat_at > db_now() - interval '2 seconds' as fresh from control_plane_heartbeat`,
    )
    return row?.fresh === true
  })
  const [row] = await cp.db.query<{ ahead: boolean }>('select lease_renewed_at > db_now() as ahead from executions')
  expect(row?.ahead).toBe(false)
})

test('an agent is lost no earlier than it was told, whatever the server that looks is configured to', async () => {
  await using cp = await startControlPlane()
  const { runId, worker, agent } = await cp.startAgent()
  const resting = await cp.startAgent({ config: { worker_host: 'w2' } }, { workerId: 'w2' })
  await resting.agent.end('SUCCEEDED')
  await resting.agent.nextTurn()
  const silent = await cp.connectWorker({ workerId: 'w3' })
  const unbegun = await cp.createRun({ config: { worker_host: 'w3' } })
  await silent.claimNext()
  await cp.waitFor(unbegun, 'CLAIMED')
  await silent.disconnect()
  await cp.addServer({
    env: { OZ_LEASE_UNREACHABLE: '3s', OZ_LEASE_STOP: '20s', OZ_LEASE_LOST: '25s', OZ_LEASE_SETTLED: '10s' },
  })
  await cp.advanceDatabaseClock({ seconds: 50 })
  // Nobody was told anything about this one: the second server has looked.
  await cp.waitFor(unbegun, 'QUEUED')
  expect((await cp.client.runs.executions(resting.runId)).executions).toMatchObject([{ state: 'idle' }])
  expect((await cp.client.runs.executions(runId)).executions).toMatchObject([{ state: 'running' }])
  await agent.renew()
  await worker.disconnect()
  await cp.advanceDatabaseClock({ seconds: 13.1 * 60 })
  await until(async () => (await cp.client.runs.executions(runId)).executions[0]?.state === 'lost')
})
