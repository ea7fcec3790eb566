import { expect, test } from 'vitest'
import { type ControlPlane, startControlPlane } from './support/control-plane.ts'
import { until } from './support/poll.ts'

/** Workers of the reference name runs, not executions, and several may share an id. */

const minutes = (count: number) => ({ seconds: count * 60 })
const shared = { ours: false, workerId: 'shared' }

const executionsOf = async (cp: ControlPlane, runId: string) => (await cp.client.runs.executions(runId)).executions

const connections = (cp: ControlPlane, count: number) =>
  until(
    () => cp.client.workers.list(),
    ({ workers }) => workers.length === count,
  )

test('the late end of a lost execution ends nothing of another worker under the same id', async () => {
  await using cp = await startControlPlane()
  const a = await cp.connectWorker(shared)
  const runId = await cp.createRun({ config: { worker_host: 'shared' } })
  const one = await a.claimNext()
  await cp.agentFor(one).hello()
  await a.disconnect()
  await connections(cp, 0)
  await cp.advanceDatabaseClock(minutes(14))
  await cp.waitFor(runId, 'QUEUED')
  const b = await cp.connectWorker(shared)
  const two = await b.claimNext()
  const agent = cp.agentFor(two)
  await agent.hello()

  const back = await cp.connectWorker(shared)
  back.fail(one, { failure_reason: 'agent_invocation', exit_code: 137 })
  // What it says next is handled after that.
  const next = await cp.createRun({ config: { worker_host: 'shared' } })
  await until(() => back.assignments.items.length + b.assignments.items.length === 2)
  expect(await executionsOf(cp, runId)).toMatchObject([{ state: 'lost' }, { state: 'running' }])
  const holder = back.assignments.items.length > 0 ? back : b
  holder.claim((holder === back ? back.assignments.items[0] : b.assignments.items[1]) as typeof one)
  await cp.waitFor(next, 'CLAIMED')
  b.complete(two)
  await cp.waitFor(runId, 'SUCCEEDED')
})

test('what a worker claimed is not given to another one that was there under its id', async () => {
  await using cp = await startControlPlane()
  const sibling = await cp.connectWorker(shared)
  const first = await cp.createRun({ config: { worker_host: 'shared' } })
  await sibling.claimNext()
  await cp.waitFor(first, 'CLAIMED')
  const a = await cp.connectWorker(shared)
  await connections(cp, 2)
  const runs = [await cp.createRun(), await cp.createRun()]
  await until(() => a.assignments.items.length > 0)
  const mine = a.assignments.items[0] as (typeof a.assignments.items)[number]
  a.claim(mine)
  await cp.waitFor(mine.task_id, 'CLAIMED')
  await a.disconnect()
  await connections(cp, 1)
  await cp.client.runs.cancel(mine.task_id)
  // A round of presence, in which it would be taken over.
  const [before] = (await cp.client.workers.list()).workers
  await until(
    () => cp.client.workers.list(),
    ({ workers }) => workers[0]?.last_seen_at !== before?.last_seen_at,
  )
  expect(sibling.cancellations.items.map(({ task_id }) => task_id)).not.toContain(mine.task_id)
  expect(runs).toContain(mine.task_id)
  // Nobody answers for it: its lease does.
  await cp.advanceDatabaseClock(minutes(14))
  await cp.waitFor(mine.task_id, 'CANCELLED')
})

test('a worker that names runs only gets none of which it may still end an earlier execution', async () => {
  await using cp = await startControlPlane()
  const worker = await cp.connectWorker({ ours: false })
  const runId = await cp.createRun()
  const lost = await worker.claimNext()
  await cp.agentFor(lost).hello()
  await cp.advanceDatabaseClock(minutes(13.1))
  expect(await worker.cancellations.next()).toMatchObject({ task_id: runId })
  // Nobody waits for its word any more.
  await cp.advanceDatabaseClock({ seconds: 31 })
  const next = await cp.createRun()
  expect((await worker.claimNext()).task_id).toBe(next)
  expect((await cp.client.runs.get(runId)).state).toBe('QUEUED')
  worker.complete(lost, { task_state: 'CANCELLED' })
  const retry = await worker.claimNext()
  expect(retry.task_id).toBe(runId)
  await cp.waitFor(runId, 'CLAIMED')
  expect(await executionsOf(cp, runId)).toMatchObject([{ state: 'lost' }, { state: 'claimed' }])
})

test('an offer that was withdrawn or rejected comes again, but not before the worker’s word on it', async () => {
  await using cp = await startControlPlane()
  const worker = await cp.connectWorker({ ours: false })
  const runId = await cp.createRun()
  const unanswered = await worker.nextAssignment()
  await cp.advanceDatabaseClock({ seconds: 31 })
  expect(await worker.cancellations.next()).toMatchObject({ task_id: runId })
  const next = await cp.createRun()
  expect((await worker.claimNext()).task_id).toBe(next)
  worker.complete(unanswered, { task_state: 'CANCELLED' })
  const again = await worker.nextAssignment()
  expect(again.task_id).toBe(runId)
  worker.reject(again)
  expect((await worker.nextAssignment()).task_id).toBe(runId)
})
