import { expect, test } from 'vitest'
import { type ControlPlane, startControlPlane } from './support/control-plane.ts'
import { until } from './support/poll.ts'

const minutes = (count: number) => ({ seconds: count * 60 })

const executionsOf = async (cp: ControlPlane, runId: string) => (await cp.client.runs.executions(runId)).executions

const freshBeat = (cp: ControlPlane) =>
  until(async () => {
    const [row] = await cp.db.query<{ fresh: boolean }>(
      `select abs(extract(epoch from beat_at - db_now())) < 5 as fresh from control_plane_heartbeat`,
    )
    return row?.fresh === true
  })

/** The whole control plane is away, as agents and the database see it. */
async function awayFor(cp: ControlPlane, count: number): Promise<void> {
  await cp.advanceDatabaseClock({ ...minutes(count), whileAway: true })
}

test('late evidence is taken for its whole time after an outage, and no longer', async () => {
  await using cp = await startControlPlane()
  const { agent, worker, runId, assignment } = await cp.startAgent()
  worker.fail(assignment, { failure_reason: 'container_exit', exit_code: 1 })
  await cp.waitFor(runId, 'ERROR')
  await cp.advanceDatabaseClock(minutes(10))
  await awayFor(cp, 20)
  // Before the first beat, too.
  expect(await agent.say('late')).toMatchObject({ acked_n: 1, superseded: true })
  await freshBeat(cp)
  await cp.advanceDatabaseClock(minutes(4))
  expect(await agent.say('still')).toMatchObject({ acked_n: 2 })
  await cp.advanceDatabaseClock(minutes(2))
  await expect(agent.say('too late')).rejects.toMatchObject({ problem: { code: 'execution_token_ended' } })
})

test('how long late evidence is taken is configured', async () => {
  await using cp = await startControlPlane({ env: { OZ_LEASE_LATE: '1m' } })
  const { agent, worker, runId, assignment } = await cp.startAgent()
  worker.fail(assignment, { failure_reason: 'container_exit', exit_code: 1 })
  await cp.waitFor(runId, 'ERROR')
  await cp.advanceDatabaseClock({ seconds: 50 })
  await agent.say('late')
  await cp.advanceDatabaseClock({ seconds: 20 })
  await expect(agent.say('too late')).rejects.toMatchObject({ problem: { code: 'execution_token_ended' } })
})

test('an outage is no time in which an agent could have said hello, or stopped', async () => {
  await using cp = await startControlPlane()
  const worker = await cp.connectWorker({ maxConcurrentTasks: 2 })
  const starting = await cp.createRun()
  await worker.claimNext()
  await cp.waitFor(starting, 'CLAIMED')
  const cancelled = await cp.createRun()
  const assignment = await worker.claimNext()
  await cp.agentFor(assignment).hello()
  await cp.client.runs.cancel(cancelled)
  await awayFor(cp, 60)
  await freshBeat(cp)
  expect((await cp.client.runs.get(starting)).state).toBe('CLAIMED')
  expect(worker.cancellations.items).toEqual([])
  await cp.advanceDatabaseClock({ seconds: 11 })
  expect(await worker.cancellations.next()).toMatchObject({ task_id: cancelled })
  expect(worker.superseded.items).toEqual([])
})

test('after an outage no connection that lives is taken for stale, and no offer is withdrawn for it', async () => {
  await using cp = await startControlPlane()
  const worker = await cp.connectWorker()
  const runId = await cp.createRun()
  const assignment = await worker.nextAssignment()
  await awayFor(cp, 60)
  await freshBeat(cp)
  const [before] = (await cp.client.workers.list()).workers
  // Two rounds of tidying.
  await cp.advanceDatabaseClock({ seconds: 12 })
  expect((await cp.client.workers.list()).workers).toMatchObject([{ connection_id: before?.connection_id }])
  worker.claim(assignment)
  await cp.waitFor(runId, 'CLAIMED')
  expect(await executionsOf(cp, runId)).toHaveLength(1)
})

test('a lost run’s wait for its worker is not over by an outage', async () => {
  await using cp = await startControlPlane()
  const { runId, worker, assignment } = await cp.startAgent({}, { answersGone: false, maxConcurrentTasks: 2 })
  await cp.advanceDatabaseClock(minutes(13.1))
  await worker.superseded.next()
  await cp.waitFor(runId, 'QUEUED')
  await awayFor(cp, 5)
  // Wakes the dispatcher before the first beat.
  const other = await cp.createRun({ config: { worker_host: 'w1' } })
  expect((await worker.nextAssignment()).task_id).toBe(other)
  await freshBeat(cp)
  const [row] = await cp.db.query<{ left: number }>(
    'select extract(epoch from awaits_gone_until - db_now())::float8 as left from runs where id = $1',
    [runId],
  )
  expect(row?.left).toBeGreaterThan(5)
  // It began after the last beat before the outage: up to one more.
  expect(row?.left).toBeLessThanOrEqual(32.5)
  worker.gone(assignment)
  expect((await worker.nextAssignment()).task_id).toBe(runId)
})
