import { randomBytes, randomUUID } from 'node:crypto'
import { expect, test } from 'vitest'
import { openDatabase } from '../packages/server/src/store/database.ts'
import { claimNextRun } from '../packages/server/src/store/queue.ts'
import { startControlPlane } from './support/control-plane.ts'
import { addMember, addTeam } from './support/people.ts'
import { until } from './support/poll.ts'

test('a drained worker is told so, keeps what it runs and is offered nothing, until the drain ends', async () => {
  await using cp = await startControlPlane()
  const { worker, runId, agent } = await cp.startAgent({}, { maxConcurrentTasks: 2 })
  await until(
    () => cp.client.workers.list(),
    ({ workers }) => workers.length === 1,
  )
  const answer = await cp.client.workers.drain('w1')
  expect(answer).toMatchObject({ worker_id: 'w1', connections: 1, drain: { requested_by: expect.any(String) } })
  const waiting = await cp.createRun()
  expect(await worker.drains.next()).toBe(true)
  expect(await cp.client.workers.list()).toMatchObject({
    workers: [{ worker_id: 'w1', draining: true, drain: answer.drain }],
    drains: [{ worker_id: 'w1', ...answer.drain }],
  })
  // Asked again it is the same drain.
  expect((await cp.client.workers.drain('w1')).drain).toEqual(answer.drain)

  const why = await cp.client.runs.why(waiting)
  expect(why.workers).toMatchObject([{ reason: expect.stringMatching(/^worker draining: .+ asked for it at /) }])
  expect(why.waiting_code).toBe('worker_draining')
  expect(why.next_step).toContain('`oz worker drain NAME --off`')
  await agent.say('I go on')
  expect((await cp.client.runs.get(runId)).state).toBe('INPROGRESS')

  // Two looks of the dispatcher pass with another worker's run.
  const other = await cp.connectWorker({ workerId: 'w2' })
  expect((await other.claimNext()).task_id).toBe(waiting)
  const named = await cp.createRun({ config: { worker_host: 'w1' } })
  await cp.advanceDatabaseClock({ seconds: 5 })
  expect(worker.assignments.waiting).toBe(0)

  expect(await cp.client.workers.endDrain('w1')).toMatchObject({ worker_id: 'w1', drain: null })
  expect(await worker.drains.next()).toBe(false)
  expect((await worker.nextAssignment()).task_id).toBe(named)
})

test('a drained id stays drained over its connections, on whichever server', async () => {
  await using cp = await startControlPlane({ useNotify: false })
  const second = await cp.addServer()
  await cp.client.workers.drain('w1')
  const worker = await cp.connectWorker({ serverUrl: second.url })
  expect(await worker.drains.next()).toBe(true)
  const runId = await cp.createRun({ config: { worker_host: 'w1' } })
  await worker.disconnect()
  const back = await cp.connectWorker()
  expect(await back.drains.next()).toBe(true)
  const reference = await cp.connectWorker({ ours: false })
  const other = await cp.connectWorker({ workerId: 'w2' })
  const free = await cp.createRun()
  expect((await other.nextAssignment()).task_id).toBe(free)
  expect((await cp.client.runs.get(runId)).state).toBe('QUEUED')
  expect(reference.frames).toEqual([])
  // The other server hears of the end by looking.
  await cp.clientFor(cp.adminKey, second.url).workers.endDrain('w1')
  await until(() => back.assignments.items.length + reference.assignments.items.length === 1)
})

test('a worker that was away when its drain ended is told so when it is back', async () => {
  await using cp = await startControlPlane()
  await cp.client.workers.drain('w1')
  const worker = await cp.connectWorker()
  expect(await worker.drains.next()).toBe(true)
  await worker.disconnect()
  await cp.client.workers.endDrain('w1')
  const back = await cp.connectWorker()
  // As it says itself, as long as it believes what it was told.
  back.send({ type: 'worker_status', data: { active: 0, draining: true } })
  expect(await back.drains.next()).toBe(false)
})

test('a worker that nobody drains hears nothing of drains', async () => {
  await using cp = await startControlPlane()
  const { worker, assignment, agent } = await cp.startAgent()
  worker.send({ type: 'worker_status', data: { active: 1, draining: false } })
  await agent.end('SUCCEEDED')
  worker.complete(assignment)
  const next = await cp.createRun()
  expect((await worker.nextAssignment()).task_id).toBe(next)
  expect(worker.frames.map(({ type }) => type)).not.toContain('worker_drain')
  // It stops: that is no reason to tell it that nobody drains it.
  worker.send({ type: 'worker_status', data: { active: 1, draining: true } })
  await until(
    () => cp.client.workers.list(),
    ({ workers }) => workers[0]?.draining === true,
  )
  expect(worker.frames.map(({ type }) => type)).not.toContain('worker_drain')
})

test('the claim itself gives a drained worker nothing, whatever its server knows', async () => {
  await using cp = await startControlPlane()
  const runId = await cp.createRun()
  const db = openDatabase({ connectionString: cp.database.url, max: 1 }, () => {})
  try {
    const [team] = await cp.db.query<{ id: string }>('select team_id as id from runs')
    const connection = { teamId: team?.id ?? '', connectionId: randomUUID(), instance: null }
    const claim = (workerId: string) =>
      claimNextRun(db, {
        ...connection,
        ...{
          workerId,
          executionId: randomUUID(),
          tokenHash: randomBytes(32),
          outageSeconds: 10,
          earlierForSeconds: null,
        },
      })
    await cp.client.workers.drain('w1')
    expect(await claim('w1')).toBeUndefined()
    expect(await claim('w2')).toMatchObject({ runId })
  } finally {
    await db.close()
  }
})

test('a run that waits for a drained worker says so', async () => {
  await using cp = await startControlPlane()
  await cp.connectWorker()
  await until(
    () => cp.client.workers.list(),
    ({ workers }) => workers.length === 1,
  )
  await cp.client.workers.drain('w1')
  const named = await cp.createRun({ config: { worker_host: 'w1' } })
  const draining = 'Waiting for worker w1, which is draining: nothing new is offered to it.'
  expect((await cp.client.runs.get(named)).status_message?.message).toBe(draining)
  expect((await cp.client.runs.why(named)).summary).toBe(draining)
  const free = await cp.createRun()
  expect((await cp.client.runs.why(free)).summary).toBe('Waiting for a worker: all that are connected are draining.')
})

test('members may not drain, and another team’s worker of the same name is another one', async () => {
  await using cp = await startControlPlane()
  const member = await addMember(cp, 'member')
  await expect(cp.clientFor(member.key).workers.drain('w1')).rejects.toMatchObject({ problem: { status: 403 } })
  const theirs = await addTeam(cp, 'theirs')
  expect(await cp.clientFor(theirs.key).workers.drain('w1')).toMatchObject({ connections: 0 })
  const worker = await cp.connectWorker()
  const runId = await cp.createRun()
  expect((await worker.nextAssignment()).task_id).toBe(runId)
  expect(worker.drains.items).toEqual([])
  expect(await cp.client.workers.list()).toMatchObject({ workers: [{ drain: null, draining: false }], drains: [] })
})

test('a drain stands in the audit log once, and so does its end', async () => {
  await using cp = await startControlPlane()
  await cp.client.workers.drain('w1')
  await cp.client.workers.drain('w1')
  await cp.client.workers.endDrain('w1')
  await cp.client.workers.endDrain('w1')
  const events = await cp.db.query(`select action, target from audit_events where action like 'worker.%' order by id`)
  expect(events).toEqual([
    { action: 'worker.drain', target: 'worker:w1' },
    { action: 'worker.undrain', target: 'worker:w1' },
  ])
  await expect(cp.client.workers.drain('warp-1')).rejects.toMatchObject({ problem: { code: 'worker_id_reserved' } })
})
