import { expect, test } from 'vitest'
import { openDatabase } from '../packages/server/src/store/database.ts'
import { listWaitingHosts } from '../packages/server/src/store/queue.ts'
import { startControlPlane } from './support/control-plane.ts'
import { until } from './support/poll.ts'

test.each([true, false])('two servers on one database offer every run once (NOTIFY: %s)', async (useNotify) => {
  await using cp = await startControlPlane({ useNotify })
  const other = await cp.addServer()
  const workers = await Promise.all(
    Array.from({ length: 8 }, (_, i) =>
      cp.connectWorker({
        workerId: i < 4 ? 'twin' : `w${i}`,
        maxConcurrentTasks: 0,
        ...(i % 2 ? { serverUrl: other.url } : {}),
      }),
    ),
  )
  const clients = [cp.client, cp.clientFor(cp.adminKey, other.url)]
  const created = await Promise.all(
    Array.from({ length: 80 }, (_, i) =>
      clients[i % 2]?.runs.create({ prompt: `${i}`, ...(i % 3 === 0 ? { config: { worker_host: 'twin' } } : {}) }),
    ),
  )
  const offered = () => workers.flatMap((worker) => worker.assignments.items)
  await until(() => offered().length >= 80, Boolean, { timeoutMs: 20_000 })
  expect(
    offered()
      .map(({ task_id }) => task_id)
      .sort(),
  ).toEqual(created.map((run) => run?.run_id ?? '').sort())
  const [row] = await cp.db.query<{ runs: number; executions: number }>(
    'select count(distinct run_id)::int as runs, count(*)::int as executions from executions',
  )
  expect(row).toEqual({ runs: 80, executions: 80 })
})

test('the database itself refuses a second live execution of a run', async () => {
  await using cp = await startControlPlane()
  const { runId } = await cp.startAgent()
  const second = cp.db.query(
    `insert into executions (id, run_id, number, state, worker_id, token_hash)
     values (gen_random_uuid(), $1, 2, 'offered', 'w2', 'x')`,
    [runId],
  )
  await expect(second).rejects.toMatchObject({ constraint: 'executions_one_live' })
})

test('under rejections, closing sockets and two servers no run is lost and none is offered twice at a time', async () => {
  await using cp = await startControlPlane()
  const other = await cp.addServer()
  const runs = await Promise.all(Array.from({ length: 30 }, () => cp.createRun()))
  const ended = new Set<string>()
  for (let round = 0; ended.size < runs.length; round++) {
    const workers = await Promise.all(
      Array.from({ length: 4 }, (_, i) =>
        cp.connectWorker({ maxConcurrentTasks: 3, ...(i % 2 ? { serverUrl: other.url } : {}) }),
      ),
    )
    await until(() => workers.some((worker) => worker.assignments.waiting > 0))
    for (const [index, worker] of workers.entries()) {
      while (worker.assignments.waiting > 0) {
        const assignment = await worker.nextAssignment()
        if ((index + round) % 3 === 0) worker.reject(assignment)
        else {
          worker.claim(assignment)
          worker.complete(assignment, { message: 'done' })
          ended.add(assignment.task_id)
        }
      }
    }
    // What was ended is heard before the sockets go; what was only offered meanwhile goes back.
    for (const runId of ended) await cp.waitFor(runId, 'SUCCEEDED')
    await Promise.all(workers.map((worker) => worker.disconnect()))
  }
  for (const runId of runs) {
    const states = await cp.statesOf(runId)
    expect(states.filter((state) => state === 'SUCCEEDED')).toHaveLength(1)
  }
})

test('a queued run that still has a live execution stops nobody behind it, and is offered once that one is lost', async () => {
  await using cp = await startControlPlane()
  const { runId: first, worker } = await cp.startAgent({}, { maxConcurrentTasks: 2 })
  // No door leads here; a row that is as wrong as this must not stop the queue.
  await cp.db.query(`update runs set state = 'QUEUED' where id = $1`, [first])
  const second = await cp.createRun()
  expect((await worker.claimNext()).task_id).toBe(second)
  await cp.advanceDatabaseClock({ seconds: 14 * 60 })
  expect((await worker.nextAssignment()).task_id).toBe(first)
  expect((await cp.client.runs.executions(first)).executions.map(({ state }) => state)).toEqual(['lost', 'offered'])
})

test('the hosts that runs wait for are each found once, in every team, whatever else is queued', async () => {
  await using cp = await startControlPlane()
  for (const worker_host of ['b', 'a', 'b', 'c']) await cp.createRun({ config: { worker_host } })
  for (let i = 0; i < 3; i++) await cp.createRun()
  const [team] = await cp.db.query<{ id: string }>('select id from teams')
  const other = '00000000-0000-4000-8000-000000000001'
  await cp.db.query(`insert into teams (id, name, slug) values ('${other}', 'other', 'other')`)
  await cp.db.query(`update runs set team_id = '${other}' where worker_host = 'c'`)
  const db = openDatabase({ connectionString: cp.database.url }, () => {})
  try {
    const hosts = (await listWaitingHosts(db)).map(({ teamId, workerHost }) => `${teamId} ${workerHost}`)
    expect(hosts.sort()).toEqual([`${team?.id} `, `${team?.id} a`, `${team?.id} b`, `${other} c`].sort())
  } finally {
    await db.close()
  }
})
