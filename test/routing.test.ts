import { setTimeout as sleep } from 'node:timers/promises'
import { expect, test } from 'vitest'
import { startControlPlane } from './support/control-plane.ts'
import { addTeam } from './support/people.ts'
import { until } from './support/poll.ts'
import type { TestWorker } from './support/test-worker.ts'

test('a run for a worker that nobody has connected stays queued and says who is connected', async () => {
  await using cp = await startControlPlane()
  await cp.connectWorker({ workerId: 'here' })
  await until(
    () => cp.client.workers.list(),
    ({ workers }) => workers.length === 1,
  )
  const created = await cp.client.runs.create({ prompt: 'x', config: { worker_host: 'elsewhere' } })
  expect(created).toMatchObject({ state: 'QUEUED', at_capacity: true })
  expect((await cp.client.runs.get(created.run_id)).status_message?.message).toBe(
    'Waiting for worker elsewhere, which is not connected. Connected: here.',
  )
  await cp.connectWorker({ workerId: 'other' })
  await until(
    () => cp.client.runs.get(created.run_id),
    (run) => run.status_message?.message.includes('Connected: here, other.') === true,
  )
  const worker = await cp.connectWorker({ workerId: 'elsewhere' })
  expect((await worker.nextAssignment()).task_id).toBe(created.run_id)
})

test('worker ids are case-sensitive', async () => {
  await using cp = await startControlPlane()
  const lower = await cp.connectWorker({ workerId: 'mac' })
  const upper = await cp.connectWorker({ workerId: 'Mac' })
  const runId = await cp.createRun({ config: { worker_host: 'Mac' } })
  expect((await upper.nextAssignment()).task_id).toBe(runId)
  expect(lower.assignments.items).toEqual([])
})

test('why names the worker that a waiting run is meant for: not there, written differently, or of another team', async () => {
  await using cp = await startControlPlane()
  const { key } = await addTeam(cp, 'others')
  await cp.connectWorker({ workerId: 'build', key })
  const runId = await cp.createRun({ config: { worker_host: 'build' } })
  const why = await cp.client.runs.why(runId)
  expect(why).toMatchObject({ waiting_code: 'worker_not_connected', summary: expect.stringContaining('worker build') })
  expect(why.next_step).toContain('A worker takes the runs of its key’s team only; its log names that team.')

  await cp.connectWorker({ workerId: 'Build' })
  const differs = await until(
    () => cp.client.runs.why(runId),
    ({ workers }) => workers.length === 1,
  )
  expect(differs).toMatchObject({
    waiting_code: 'worker_id_differs',
    next_step: expect.stringContaining('--host Build'),
  })

  await cp.connectWorker({ workerId: 'build', maxConcurrentTasks: 1 })
  await cp.waitFor(runId, 'PENDING')
  const behind = await cp.createRun({ config: { worker_host: 'build' } })
  expect((await cp.client.runs.why(behind)).waiting_code).toBe(null)
})

test('a run that names nobody goes to any worker of its team, and to no other team’s', async () => {
  await using cp = await startControlPlane()
  const { key } = await addTeam(cp, 'others')
  const stranger = await cp.connectWorker({ workerId: 'w1', key, maxConcurrentTasks: 0 })
  const named = await cp.createRun({ config: { worker_host: 'w1' } })
  const unnamed = await cp.createRun()
  const own = await cp.connectWorker({ workerId: 'w1', maxConcurrentTasks: 0 })
  expect([(await own.nextAssignment()).task_id, (await own.nextAssignment()).task_id]).toEqual([named, unnamed])
  expect(stranger.assignments.items).toEqual([])
  // The reference's word for "the vendor's machines" means any worker here.
  const vendor = await cp.createRun({ config: { worker_host: 'warp' } })
  expect((await own.nextAssignment()).task_id).toBe(vendor)
})

test('a worker of another team cannot claim, end or keep what is not its team’s', async () => {
  await using cp = await startControlPlane()
  const { key } = await addTeam(cp, 'others')
  const { runId, assignment } = await cp.startAgent()
  const running = [{ task_id: assignment.task_id, execution_id: assignment.execution_id }]
  const stranger = await cp.connectWorker({ key, running })
  expect(await stranger.superseded.next()).toMatchObject({ execution_id: assignment.execution_id })
  stranger.fail(assignment, { message: 'not yours', failure_reason: 'container_exit' })
  const reference = await cp.connectWorker({ key, ours: false })
  reference.complete(assignment, { task_state: 'CANCELLED' })
  await Promise.all([untilHandled(stranger), untilHandled(reference)])
  expect((await cp.client.runs.get(runId)).state).toBe('INPROGRESS')
  expect((await cp.client.runs.executions(runId)).executions[0]?.state).toBe('running')
})

/** Messages of a connection are handled in order: when a violation has closed it, those before it are done. */
async function untilHandled(worker: TestWorker): Promise<void> {
  const about = { protocol: 1, version: '0', backend: 'direct', platform: 'linux/amd64', host: 'test' }
  worker.send({ type: 'worker_hello', data: { ...about, max_concurrent_tasks: 1, running: [] } })
  expect(await worker.closed).toMatchObject({ code: 4400 })
}

test('runs are offered in the order in which they came, named and unnamed alike', async () => {
  await using cp = await startControlPlane()
  const runs: string[] = []
  for (let i = 0; i < 6; i++) runs.push(await cp.createRun(i % 2 ? { config: { worker_host: 'w1' } } : {}))
  const worker = await cp.connectWorker({ maxConcurrentTasks: 0 })
  for (const runId of runs) expect((await worker.claimNext()).task_id).toBe(runId)
})

test('a rejected run keeps its place, and the connection that rejected it is left alone for 5 s', async () => {
  await using cp = await startControlPlane()
  const full = await cp.connectWorker({ workerId: 'w1', maxConcurrentTasks: 0 })
  const first = await cp.createRun({ config: { worker_host: 'w1' } })
  full.reject(await full.nextAssignment(), 'worker at maximum concurrency')
  await cp.waitFor(first, 'QUEUED')
  const second = await cp.createRun({ config: { worker_host: 'w1' } })
  expect((await cp.client.runs.why(second)).place_in_queue).toBe(2)
  await sleep(1_500)
  expect(full.assignments.waiting).toBe(0)

  // Another process under the same id takes it, the older run first.
  const other = await cp.connectWorker({ workerId: 'w1', maxConcurrentTasks: 0 })
  expect((await other.claimNext()).task_id).toBe(first)
  expect((await other.claimNext()).task_id).toBe(second)
  await cp.waitFor(first, 'CLAIMED')
  expect(await cp.statesOf(first)).toEqual(['QUEUED', 'PENDING', 'QUEUED', 'PENDING', 'CLAIMED'])
  const { executions } = await cp.client.runs.executions(first)
  expect(executions.map(({ state, outcome }) => [state, outcome])).toEqual([
    ['ended', 'rejected'],
    ['claimed', null],
  ])
})

test('a rejecting connection is asked again after 5 s, or at once when a task of it ends', async () => {
  await using cp = await startControlPlane()
  const worker = await cp.connectWorker({ ours: false })
  await cp.createRun()
  const running = await worker.claimNext()
  const second = await cp.createRun()
  worker.reject(await worker.nextAssignment())
  await cp.waitFor(second, 'QUEUED')
  worker.complete(running)
  const again = await worker.nextAssignment(1_000)
  expect(again.task_id).toBe(second)
  const from = performance.now()
  worker.reject(again)
  expect((await worker.nextAssignment(8_000)).task_id).toBe(second)
  expect(performance.now() - from).toBeGreaterThan(4_900)
})

test('a worker is offered no more than its slots, and the next when one becomes free', async () => {
  await using cp = await startControlPlane()
  const worker = await cp.connectWorker({ maxConcurrentTasks: 2 })
  const runs = await Promise.all([cp.createRun(), cp.createRun(), cp.createRun()])
  const first = await worker.claimNext()
  await worker.claimNext()
  await until(
    () => cp.statesOf(first.task_id),
    (states) => states.includes('CLAIMED'),
  )
  const waiting = runs.find((runId) => !worker.assignments.items.some(({ task_id }) => task_id === runId))
  expect((await cp.client.runs.get(waiting ?? '')).state).toBe('QUEUED')
  worker.fail(first, { failure_reason: 'container_exit' })
  expect((await worker.nextAssignment(900)).task_id).toBe(waiting)
})

test('several workers under one id share its runs, without waiting for a poll', async () => {
  await using cp = await startControlPlane()
  const twins = await Promise.all([cp.connectWorker(), cp.connectWorker(), cp.connectWorker()])
  await until(
    () => cp.client.workers.list(),
    ({ workers }) => workers.length === 3,
  )
  const { body } = await cp.request<{ workers: unknown[] }>('GET', '/api/v1/agent/connected-self-hosted-workers')
  expect(body.workers).toMatchObject([{ worker_host: 'w1', connection_count: 3 }])
  const runs = await Promise.all([1, 2, 3].map(() => cp.createRun({ config: { worker_host: 'w1' } })))
  const offered = await Promise.all(twins.map((twin) => twin.nextAssignment()))
  expect(offered.map(({ task_id }) => task_id).sort()).toEqual(runs.sort())
})

test('all twins get work at once when the queue was there before them', async () => {
  await using cp = await startControlPlane({ useNotify: false })
  const blocker = await cp.createRun({ config: { worker_host: 'nobody' } })
  const twins = await Promise.all([cp.connectWorker(), cp.connectWorker()])
  await until(
    () => cp.client.workers.list(),
    ({ workers }) => workers.length === 2,
  )
  // One transaction, one hint: what follows must come from one round of the dispatcher.
  await cp.db.query(`update runs set worker_host = '' where id = $1`, [blocker])
  await cp.createRun()
  const from = performance.now()
  await Promise.all(twins.map((twin) => twin.nextAssignment()))
  expect(performance.now() - from).toBeLessThan(700)
})

test('work is spread over workers, the least loaded first', async () => {
  await using cp = await startControlPlane()
  const names = ['a', 'b', 'c']
  const workers = await Promise.all(names.map((workerId) => cp.connectWorker({ workerId, maxConcurrentTasks: 0 })))
  await until(
    () => cp.client.workers.list(),
    (answer) => answer.workers.length === 3,
  )
  for (let count = 1; count <= 9; count++) {
    await cp.createRun()
    await until(() => workers.reduce((sum, worker) => sum + worker.assignments.items.length, 0) === count)
  }
  expect(workers.map((worker) => worker.assignments.items.length)).toEqual([3, 3, 3])
})

test('an offer goes back to the queue when its connection closes before the claim', async () => {
  await using cp = await startControlPlane()
  const worker = await cp.connectWorker()
  const runId = await cp.createRun()
  const assignment = await worker.nextAssignment()
  await worker.disconnect()
  await cp.waitFor(runId, 'QUEUED')
  await expect(cp.agentFor(assignment).hello()).rejects.toMatchObject({ problem: { code: 'execution_superseded' } })
  const next = await cp.connectWorker()
  expect((await next.claimNext()).task_id).toBe(runId)
  await cp.waitFor(runId, 'CLAIMED')
})

test('an offer that nobody answers is taken back after 30 s, and the late claim is told so', async () => {
  await using cp = await startControlPlane()
  const silent = await cp.connectWorker({ workerId: 'silent' })
  const runId = await cp.createRun()
  const assignment = await silent.nextAssignment()
  await cp.advanceDatabaseClock({ seconds: 31 })
  await until(() => silent.superseded.waiting > 0)
  expect(await silent.superseded.next()).toEqual({
    task_id: runId,
    execution_id: assignment.execution_id,
  })
  silent.claim(assignment)
  expect(await silent.superseded.next()).toMatchObject({ execution_id: assignment.execution_id })
  // Its slot is not lost by that: with nobody else there, it is asked again.
  expect((await silent.claimNext()).task_id).toBe(runId)
  await cp.waitFor(runId, 'CLAIMED')
})

test('a draining worker gets nothing new', async () => {
  await using cp = await startControlPlane()
  const worker = await cp.connectWorker()
  worker.send({ type: 'worker_status', data: { active: 0, draining: true } })
  await until(
    () => cp.client.workers.list(),
    ({ workers }) => workers[0]?.draining === true,
  )
  const runId = await cp.createRun()
  await sleep(1_200)
  expect(worker.assignments.items).toEqual([])
  expect((await cp.client.runs.why(runId)).workers[0]?.reason).toBe(
    'worker draining: it is being stopped, and takes nothing new',
  )
  worker.send({ type: 'worker_status', data: { active: 0, draining: false } })
  expect((await worker.nextAssignment()).task_id).toBe(runId)
})

test('hints for others that never cease do not keep a run waiting that nobody gave a hint for', async () => {
  await using cp = await startControlPlane()
  const worker = await cp.connectWorker()
  const silent = await cp.createRun({ config: { worker_host: 'nobody' } })
  let isOffered = false
  const hints = (async () => {
    while (!isOffered) await cp.createRun({ config: { worker_host: 'nobody' } })
  })()
  await sleep(200)
  // As a lost hint, or a retry whose time has come.
  await cp.db.query(`update runs set worker_host = 'w1' where id = $1`, [silent])
  const assignment = await worker.nextAssignment(4_000).finally(() => {
    isOffered = true
  })
  expect(assignment.task_id).toBe(silent)
  await hints
})
