import { randomUUID } from 'node:crypto'
import { expect, test } from 'vitest'
import { type ControlPlane, startControlPlane } from './support/control-plane.ts'
import { until } from './support/poll.ts'

/** Its worker's process dies with the agent, and comes back without it. */
async function dieTogether(cp: ControlPlane, runId: string, workerId: string): Promise<void> {
  const instance = randomUUID()
  const worker = await cp.connectWorker({ workerId, instances: [instance] })
  const assignment = await worker.claimNext()
  expect(assignment.task_id).toBe(runId)
  await cp.agentFor(assignment).hello()
  await worker.disconnect()
  const heir = await cp.connectWorker({ workerId, instances: [randomUUID(), instance] })
  await heir.superseded.next()
  await heir.disconnect()
  await until(
    () => cp.client.workers.list(),
    ({ workers }) => workers.length === 0,
  )
  await cp.advanceDatabaseClock({ seconds: 60 })
}

test('a run whose agent dies with its worker three times is not offered again, and names the workers', async () => {
  await using cp = await startControlPlane()
  const runId = await cp.createRun()
  for (const workerId of ['a', 'b', 'a']) await dieTogether(cp, runId, workerId)
  const run = await cp.waitFor(runId, 'ERROR')
  expect(run.status_message).toEqual({
    error_code: 'internal_error',
    failure_reason: 'run_poison',
    message:
      'The run’s agent died together with its worker again and again. 3 times, on workers a and b. It is not offered again. ' +
      'Worker a is back and does not have it.',
  })
  const survivor = await cp.connectWorker({ workerId: 'c' })
  const next = await cp.createRun()
  expect((await survivor.claimNext()).task_id).toBe(next)
  await survivor.disconnect()

  // A person may try it once more; one more death is enough then.
  await cp.client.runs.followUp(runId, { message: 'once more' })
  await dieTogether(cp, runId, 'd')
  expect((await cp.waitFor(runId, 'ERROR')).status_message).toMatchObject({
    failure_reason: 'run_poison',
    message: expect.stringContaining('4 times, on workers a, b and d.'),
  })
})

test('an execution that ends well clears the run', async () => {
  await using cp = await startControlPlane()
  const runId = await cp.createRun({ retry: { max_attempts: 10 } })
  for (const workerId of ['a', 'b']) await dieTogether(cp, runId, workerId)
  const worker = await cp.connectWorker()
  const assignment = await worker.claimNext()
  const agent = cp.agentFor(assignment)
  await agent.hello()
  await agent.end('SUCCEEDED')
  worker.complete(assignment)
  await until(
    () => cp.client.runs.get(runId),
    (run) => !run.is_sandbox_running,
  )
  await worker.disconnect()
  await cp.client.runs.followUp(runId, { message: 'more' })
  await dieTogether(cp, runId, 'a')
  expect((await cp.client.runs.get(runId)).status_message).toMatchObject({ failure_reason: 'worker_died' })
})

test('a lease that ends while the worker is gone counts, one that ends beside its worker does not', async () => {
  await using cp = await startControlPlane({ env: { OZ_POISON_DEATHS: '1' } })
  const beside = await cp.startAgent()
  await cp.advanceDatabaseClock({ seconds: 14 * 60 })
  expect((await beside.worker.nextAssignment()).task_id).toBe(beside.runId)
  const { runId, worker } = await cp.startAgent({ config: { worker_host: 'w2' } }, { workerId: 'w2' })
  await worker.disconnect()
  await until(
    () => cp.client.workers.list(),
    ({ workers }) => workers.length === 1,
  )
  await cp.advanceDatabaseClock({ seconds: 14 * 60 })
  expect((await cp.waitFor(runId, 'ERROR')).status_message).toMatchObject({ failure_reason: 'run_poison' })
})

test('a worker that dies before the agent has begun says nothing about the run', async () => {
  await using cp = await startControlPlane({ env: { OZ_POISON_DEATHS: '1' } })
  const runId = await cp.createRun()
  const instance = randomUUID()
  const worker = await cp.connectWorker({ instances: [instance] })
  await worker.claimNext()
  await cp.waitFor(runId, 'CLAIMED')
  await worker.disconnect()
  const heir = await cp.connectWorker({ instances: [randomUUID(), instance] })
  await heir.superseded.next()
  expect((await cp.waitFor(runId, 'QUEUED')).status_message).toMatchObject({ failure_reason: 'worker_died' })
})
