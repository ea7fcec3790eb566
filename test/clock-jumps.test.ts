import { expect, test } from 'vitest'
import { type ControlPlane, startControlPlane } from './support/control-plane.ts'
import { until } from './support/poll.ts'

const day = 24 * 3600
const minutes = (count: number) => ({ seconds: count * 60 })

const executionsOf = async (cp: ControlPlane, runId: string) => (await cp.client.runs.executions(runId)).executions

/** Sets the database's clock without anything else, and waits until the control plane has seen it. */
async function jump(cp: ControlPlane, seconds: number): Promise<void> {
  await cp.advanceDatabaseClock({ seconds, whileAway: true })
  await until(async () => {
    const [row] = await cp.db.query<{ fresh: boolean }>(
      `select abs(extract(epoch from beat_at - db_now())) < 5 as fresh from control_plane_heartbeat`,
    )
    return row?.fresh === true
  })
}

test('a clock that goes back a day keeps nothing alive that is dead', async () => {
  await using cp = await startControlPlane()
  const { runId, worker } = await cp.startAgent()
  await worker.disconnect()
  await jump(cp, -day)
  await cp.advanceDatabaseClock(minutes(12))
  expect(await executionsOf(cp, runId)).toMatchObject([{ state: 'running' }])
  await cp.advanceDatabaseClock(minutes(1.5))
  await cp.waitFor(runId, 'QUEUED')
})

test('a clock that goes back a day delays no retry, no cancel and no end of late evidence by it', async () => {
  await using cp = await startControlPlane()
  const { runId, worker, assignment, agent } = await cp.startAgent()
  worker.fail(assignment, { failure_reason: 'container_start' })
  await cp.waitFor(runId, 'QUEUED')
  const stubborn = await cp.startAgent({ config: { worker_host: 'w2' } }, { workerId: 'w2' })
  await cp.client.runs.cancel(stubborn.runId)
  await jump(cp, -day)
  await cp.advanceDatabaseClock(minutes(5.1))
  expect((await worker.nextAssignment()).task_id).toBe(runId)
  expect(await stubborn.worker.cancellations.next()).toMatchObject({ task_id: stubborn.runId })
  await agent.say('late')
  await cp.advanceDatabaseClock(minutes(10.1))
  await expect(agent.say('too late')).rejects.toMatchObject({ problem: { code: 'execution_token_ended' } })
})

test('a clock that goes forward a day loses no execution', async () => {
  await using cp = await startControlPlane()
  const { runId, agent } = await cp.startAgent()
  const claimed = await cp.connectWorker({ workerId: 'w2' })
  const starting = await cp.createRun()
  await claimed.claimNext()
  await cp.waitFor(starting, 'CLAIMED')
  await jump(cp, day)
  await agent.renew()
  await cp.advanceDatabaseClock(minutes(1))
  expect((await cp.client.runs.get(runId)).state).toBe('INPROGRESS')
  expect((await cp.client.runs.get(starting)).state).toBe('CLAIMED')
  expect(await executionsOf(cp, runId)).toHaveLength(1)
})

test('a clock that goes back a day lets no new run overtake those that wait', async () => {
  await using cp = await startControlPlane()
  const waiting = [await cp.createRun(), await cp.createRun()]
  await jump(cp, -day)
  waiting.push(await cp.createRun())
  const worker = await cp.connectWorker({ maxConcurrentTasks: 3 })
  const order = []
  for (const _ of waiting) order.push((await worker.claimNext()).task_id)
  expect(order).toEqual(waiting)
})
