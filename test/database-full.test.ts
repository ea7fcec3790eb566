import { expect, test } from 'vitest'
import { openDatabase } from '../packages/server/src/store/database.ts'
import { startControlPlane } from './support/control-plane.ts'
import { until } from './support/poll.ts'

/** As PostgreSQL says it when an extension of a file fails. */
const isFull = `create function full_disk() returns trigger language plpgsql
  as $$begin raise exception 'could not extend file "base/1/2": No space left on device' using errcode = '53100'; end$$`

test('a database without room says so, in words about room, and everything goes on once there is some', async () => {
  await using cp = await startControlPlane()
  const { agent, runId, worker, assignment } = await cp.startAgent()
  await cp.db.query(`${isFull};
    create trigger full_disk before insert or update on session_events for each row execute function full_disk();
    create trigger full_runs before insert or update on runs for each row execute function full_disk();`)
  const full = { status: 503, code: 'database_full', retryable: true }
  await expect(cp.client.runs.create({ prompt: 'x' })).rejects.toMatchObject({ problem: full })
  await expect(agent.say('kept in the spool')).rejects.toMatchObject({ problem: full })
  expect((await cp.client.runs.get(runId)).state).toBe('INPROGRESS')
  // The worker’s word cannot be kept: its socket closes, and it says it again.
  worker.complete(assignment)
  expect(await worker.closed).toMatchObject({ code: 1011 })

  await cp.db.query('drop function full_disk cascade')
  const again = { n: 1, type: 'notice', data: { level: 'info', text: 'kept in the spool' } }
  expect(await agent.sendBatch([again])).toEqual({ acked_n: 1 })
  await agent.end('SUCCEEDED').catch(() => agent.end('SUCCEEDED'))
  const back = await cp.connectWorker({ finishing: [assignment] })
  back.complete(assignment)
  await until(
    () => cp.client.runs.get(runId),
    (run) => !run.is_sandbox_running,
  )
})

test('statements that wait for each other are tried again, outside of a transaction too', async () => {
  await using cp = await startControlPlane({ isStopped: true })
  await cp.db.query(
    'create table pairs (id int primary key, count int not null default 0); insert into pairs values (1), (2)',
  )
  // Each locks the rows in the other order, and has time to meet the other one.
  await cp.db.query(`create function lock_pairs(first int, second int) returns void language plpgsql as $$begin
    update pairs set count = count + 1 where id = first;
    perform pg_sleep(0.2);
    update pairs set count = count + 1 where id = second; end$$`)
  const db = openDatabase({ connectionString: cp.database.url }, () => {})
  try {
    await Promise.all([db.query('select lock_pairs(1, 2)'), db.query('select lock_pairs(2, 1)')])
    expect(await cp.db.query('select count from pairs')).toEqual([{ count: 2 }, { count: 2 }])
  } finally {
    await db.close()
  }
})
