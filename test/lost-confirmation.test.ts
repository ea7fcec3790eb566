import { expect, test } from 'vitest'
import { type ControlPlane, startControlPlane } from './support/control-plane.ts'
import { until } from './support/poll.ts'

const minutes = (count: number) => ({ seconds: count * 60 })

const executionsOf = async (cp: ControlPlane, runId: string) => (await cp.client.runs.executions(runId)).executions

test('a lost run waits until its connected worker says that nothing of it runs any more', async () => {
  await using cp = await startControlPlane()
  const { runId, worker, assignment } = await cp.startAgent({}, { answersGone: false })
  const other = await cp.connectWorker({ workerId: 'w2' })
  await cp.advanceDatabaseClock(minutes(13.1))
  expect(await worker.superseded.next()).toEqual({ task_id: runId, execution_id: assignment.execution_id })
  await cp.waitFor(runId, 'QUEUED')

  const why = await cp.client.runs.why(runId)
  expect(why.next_step).toMatch(
    /^Nothing: worker w1 is told to end what is left of attempt 1\. The next one begins once it has, or in \d\d s\.$/,
  )
  expect(why.workers.map(({ reason }) => reason)).toEqual([
    'the run waits until nothing of attempt 1 runs any more',
    'the run waits until nothing of attempt 1 runs any more',
  ])
  // Two looks of the dispatcher.
  const second = await cp.createRun({ config: { worker_host: 'w2' } })
  expect((await other.claimNext()).task_id).toBe(second)
  await cp.advanceDatabaseClock({ seconds: 20 })
  expect((await cp.client.runs.get(runId)).state).toBe('QUEUED')

  worker.gone(assignment)
  expect((await worker.claimNext()).task_id).toBe(runId)
  expect(await executionsOf(cp, runId)).toMatchObject([
    { state: 'lost', retry_of: null },
    { retry_of: assignment.execution_id },
  ])
})

test('a worker that does not answer is waited for no longer than OZ_LEASE_CONFIRM', async () => {
  await using cp = await startControlPlane()
  const { runId, worker } = await cp.startAgent({}, { answersGone: false })
  const other = await cp.connectWorker({ workerId: 'w2' })
  await cp.advanceDatabaseClock(minutes(13.1))
  await worker.superseded.next()
  await cp.waitFor(runId, 'QUEUED')
  await cp.advanceDatabaseClock({ seconds: 31 })
  // Either of the two may get it.
  await until(() => worker.assignments.items.length + other.assignments.items.length === 2)
})

test('nobody is waited for where the worker is not connected', async () => {
  await using cp = await startControlPlane()
  const { runId, worker } = await cp.startAgent({}, { answersGone: false })
  await worker.disconnect()
  await until(
    () => cp.client.workers.list(),
    ({ workers }) => workers.length === 0,
  )
  const other = await cp.connectWorker({ workerId: 'w2' })
  await cp.advanceDatabaseClock(minutes(13.1))
  expect((await other.nextAssignment()).task_id).toBe(runId)
})

test('the worker hears at once that an execution is lost', async () => {
  // Looks are two seconds apart; a hint is not waited for.
  await using cp = await startControlPlane()
  const { worker } = await cp.startAgent()
  await cp.advanceDatabaseClock(minutes(13.1))
  await until(async () => (await cp.db.query(`select from executions where state = 'lost'`)).length === 1, Boolean, {
    everyMs: 2,
  })
  const lostAt = performance.now()
  await worker.superseded.next()
  expect(performance.now() - lostAt).toBeLessThan(1_000)
})

test('the end that a worker reports of a lost execution says too that nothing of it runs', async () => {
  await using cp = await startControlPlane()
  const { runId, worker, assignment } = await cp.startAgent({}, { answersGone: false })
  await cp.advanceDatabaseClock(minutes(13.1))
  await worker.superseded.next()
  await cp.waitFor(runId, 'QUEUED')
  worker.fail(assignment, { failure_reason: 'agent_invocation', exit_code: 137 })
  expect((await worker.nextAssignment()).task_id).toBe(runId)
  expect(await executionsOf(cp, runId)).toMatchObject([{ state: 'lost', failure_reason: 'lost' }, { state: 'offered' }])
})

test('a follow-up to a run whose resting agent was lost waits for that one’s processes as well', async () => {
  await using cp = await startControlPlane()
  const { agent, runId, worker, assignment } = await cp.startAgent({}, { answersGone: false })
  await agent.end('SUCCEEDED')
  await agent.nextTurn()
  await cp.advanceDatabaseClock({ seconds: 61 })
  await worker.superseded.next()
  await cp.client.runs.followUp(runId, { message: 'go on' })
  const other = await cp.createRun()
  expect((await worker.claimNext()).task_id).toBe(other)
  expect((await cp.client.runs.get(runId)).state).toBe('QUEUED')
  const idle = await cp.connectWorker({ workerId: 'w2' })
  worker.gone(assignment)
  const heir = await idle.claimNext()
  expect(heir.task_id).toBe(runId)
  expect((await cp.agentFor(heir).hello()).turn).toMatchObject({ number: 2, message: 'go on' })
})

test('an agent that does not begin in time is ended, and the run is tried once more', async () => {
  await using cp = await startControlPlane({ env: { OZ_START_TIMEOUT: '20m' } })
  const worker = await cp.connectWorker()
  const runId = await cp.createRun()
  const first = await worker.claimNext()
  await cp.waitFor(runId, 'CLAIMED')
  await cp.advanceDatabaseClock(minutes(19))
  expect((await cp.client.runs.get(runId)).state).toBe('CLAIMED')
  await cp.advanceDatabaseClock(minutes(2))
  expect(await worker.superseded.next()).toMatchObject({ execution_id: first.execution_id })
  const waiting = await cp.waitFor(runId, 'QUEUED')
  expect(waiting.status_message).toMatchObject({
    failure_reason: 'start_timeout',
    message: expect.stringMatching(
      /^Attempt 2 of 2: start_timeout, in 10 seconds\. The agent never said hello\. Worker w1 claimed it at /,
    ),
  })
  await cp.advanceDatabaseClock({ seconds: 11 })
  await worker.claimNext()
  await cp.waitFor(runId, 'CLAIMED')
  await cp.advanceDatabaseClock(minutes(21))
  expect((await cp.waitFor(runId, 'ERROR')).status_message).toMatchObject({ failure_reason: 'start_timeout' })
})

test('a step that takes longer than an agent may take to begin counts as no delay while its worker tells of it', async () => {
  await using cp = await startControlPlane({ env: { OZ_START_TIMEOUT: '20m' } })
  const worker = await cp.connectWorker({ maxConcurrentTasks: 2 })
  const runId = await cp.createRun()
  const { task_id, execution_id } = await worker.claimNext()
  await cp.createRun()
  const silent = await worker.claimNext()
  const tell = async (current: number) => {
    const progress = { current, total: 3, unit: 'bytes' }
    worker.send({
      type: 'task_step',
      data: { task_id, execution_id, step: 'image_pull', status: 'progress', progress },
    })
    const told = async () => (await cp.client.runs.events(runId)).events.filter(({ type }) => type === 'setup_step')
    await until(told, ({ length }) => length === current)
  }
  await tell(1)
  await cp.advanceDatabaseClock(minutes(15))
  await tell(2)
  await cp.advanceDatabaseClock(minutes(15))
  // The sweep that ends this one would have ended the older one before.
  expect(await worker.superseded.next()).toMatchObject({ execution_id: silent.execution_id })
  await tell(3)
  await cp.advanceDatabaseClock(minutes(21))
  expect(await worker.superseded.next()).toMatchObject({ execution_id })
})

test('a worker’s word that nothing of a live execution runs is told as what it is', async () => {
  await using cp = await startControlPlane()
  const { runId, worker, assignment } = await cp.startAgent()
  worker.gone(assignment)
  await until(async () => (await executionsOf(cp, runId)).length === 2)
  expect(await executionsOf(cp, runId)).toMatchObject([
    { state: 'lost', message: 'Nobody said how the execution ended.' },
    {},
  ])
  const texts = (await cp.eventsOf(runId)).map(({ data }) => (data as { message?: string }).message)
  expect(texts).toContain(
    'Attempt 2 of 3: lost, at once. Nobody said how the execution ended. Worker w1 says that nothing of it runs any more.',
  )
})

test('a retry that waits for its worker’s word does not say that it comes at once', async () => {
  await using cp = await startControlPlane()
  const { runId, worker } = await cp.startAgent({}, { answersGone: false })
  await cp.advanceDatabaseClock(minutes(13.1))
  await worker.superseded.next()
  expect((await cp.waitFor(runId, 'QUEUED')).status_message?.message).toMatch(
    /^Attempt 2 of 3: lost, once nothing of it runs any more\. .* Its agent on worker w1 was last heard of at /,
  )
})
