import { expect, test } from 'vitest'
import { type ControlPlane, startControlPlane } from './support/control-plane.ts'
import { until } from './support/poll.ts'

/** Runs whose agents were asked to leave, in this order. */
async function askedToLeave(cp: ControlPlane): Promise<string[]> {
  const rows = await cp.db.query<{ run_id: string }>(
    `select run_id from commands where type = 'end_idle' order by position`,
  )
  return rows.map(({ run_id }) => run_id)
}

/** A worker with one slot, and an agent in it that only waits for messages. */
async function restingAgent(cp: ControlPlane, workerId: string, serverUrl = cp.url) {
  const worker = await cp.connectWorker({ workerId, serverUrl })
  const runId = await cp.createRun({ config: { worker_host: workerId } })
  const assignment = await worker.claimNext()
  worker.send({ type: 'worker_status', data: { active: 1, draining: false } })
  const agent = cp.agentFor(assignment, serverUrl)
  await agent.hello()
  await agent.end('SUCCEEDED')
  await agent.nextTurn()
  return { worker, runId, assignment, agent }
}

test('one run that waits asks one agent of all workers to leave: the one that has rested longest', async () => {
  await using cp = await startControlPlane()
  const resting = []
  for (const workerId of ['w1', 'w2', 'w3']) resting.push(await restingAgent(cp, workerId))
  const runId = await cp.createRun({ prompt: 'needs a slot' })
  await until(async () => (await askedToLeave(cp)).length > 0)

  const [first] = resting
  expect(await first?.agent.nextCommand()).toMatchObject({ type: 'end_idle' })
  await first?.agent.nextTurn(true)
  if (first) first.worker.complete(first.assignment)
  await cp.waitFor(runId, 'PENDING')
  expect(await askedToLeave(cp)).toEqual([first?.runId])
})

test('runs that name a worker ask its agents, and the others ask those that are left', async () => {
  await using cp = await startControlPlane()
  const [r1, r2, r3] = [
    await restingAgent(cp, 'w1'),
    await restingAgent(cp, 'w2'),
    await restingAgent(cp, 'w3'),
  ] as const
  await cp.createRun({ prompt: 'only there', config: { worker_host: 'w3' } })
  await cp.createRun({ prompt: 'anywhere' })
  await until(async () => (await askedToLeave(cp)).length >= 2)
  expect((await askedToLeave(cp)).sort()).toEqual([r1.runId, r3.runId].sort())
  await cp.createRun({ prompt: 'anywhere too' })
  await until(async () => (await askedToLeave(cp)).includes(r2.runId))
  expect(await askedToLeave(cp)).toHaveLength(3)
})

test('two servers ask one agent for one run', async () => {
  await using cp = await startControlPlane()
  const other = await cp.addServer()
  const first = await restingAgent(cp, 'w1')
  const second = await restingAgent(cp, 'w2', other.url)
  await until(
    () => cp.db.query('select from worker_connections where active = 1'),
    (rows) => rows.length === 2,
  )
  await cp.createRun({ prompt: 'needs a slot' })
  await until(async () => (await askedToLeave(cp)).length > 0)
  // As many runs as agents: had the second been asked for the first run, it would be asked already.
  expect(await askedToLeave(cp)).toEqual([first.runId])
  await cp.createRun({ prompt: 'needs one too' })
  await until(async () => (await askedToLeave(cp)).length > 1)
  expect(await askedToLeave(cp)).toEqual([first.runId, second.runId])
})
