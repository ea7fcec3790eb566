import { randomBytes, randomUUID } from 'node:crypto'
import type pg from 'pg'
import { openDatabase } from '../packages/server/src/store/database.ts'
import { claimNextRun } from '../packages/server/src/store/queue.ts'
import { connectBenchWorker } from './bench-worker.ts'
import { type ServerProcess, startServerProcess } from './control-plane.ts'
import { inLanes } from './load.ts'
import { type Benchmark, compared } from './measurement.ts'

const claimers = 4
const turns = 4
const full = { queued: 4_000 }
const quick = { queued: 400 }

/**
 * How many waiting runs four claimers take a second: the product's own statement, which also writes the execution and the event. Control: four
 * claimers with nothing but `for update skip locked`, on a table of their own in the same database, with the same index. In turns.
 */
export const claimsBenchmark: Benchmark = {
  name: 'claims',
  async run({ isQuick }) {
    const { queued } = isQuick ? quick : full
    await using controlPlane = await startServerProcess()
    await using db = disposable(openDatabase({ ...controlPlane.database, max: claimers }, () => {}))
    const connection = await connectDraining(controlPlane)
    await inLanes(16, queued, () => controlPlane.post('/api/v1/agent/runs', { prompt: 'bench' }))
    await fillControlTable(controlPlane.pool, queued)
    await controlPlane.pool.query('analyze')

    const size = queued / turns
    const rates = { ours: [] as number[], control: [] as number[] }
    for (let turn = 0; turn < turns; turn++) {
      rates.control.push(await rateOf(size, () => db.query(rawClaim)))
      const claim = async () => {
        const ids = { instance: null, executionId: randomUUID(), tokenHash: randomBytes(32) }
        const offer = { ...connection, ...ids, outageSeconds: 10, earlierForSeconds: null }
        if (!(await claimNextRun(db, offer))) throw new Error('the queue is empty')
      }
      rates.ours.push(await rateOf(size, claim))
    }
    return [
      compared(
        `claims, ${claimers} at a time`,
        'claims/s',
        {
          value: mean(rates.ours),
          control: { name: 'bare update … skip locked', value: mean(rates.control) },
        },
        { words: '≥ 0.4 × control', isMet: (_, ratio) => ratio >= 0.4 },
      ),
    ]
  },
}

/** A connection that lives, so that nobody takes its offers back, and drains, so that the server makes none of its own. */
async function connectDraining(controlPlane: ServerProcess) {
  const worker = await connectBenchWorker(controlPlane, { workerId: 'claimer', onAssignment: () => {} })
  worker.drain()
  for (;;) {
    const { rows } = await controlPlane.pool.query<{ id: string; team_id: string }>(
      "select id, team_id from worker_connections where worker_id = 'claimer' and draining",
    )
    const row = rows[0]
    if (row) return { connectionId: row.id, teamId: row.team_id, workerId: 'claimer' }
  }
}

async function fillControlTable(pool: pg.Pool, count: number): Promise<void> {
  await pool.query(
    `create table bench_queue (id uuid primary key, team_id uuid not null, state text not null, queued_at timestamptz not null,
                               prompt text not null);
     create index bench_queue_waiting on bench_queue (team_id, queued_at, id) where state = 'QUEUED'`,
  )
  await pool.query(
    `insert into bench_queue select gen_random_uuid(), '${controlTeam}', 'QUEUED', now() + n * interval '1 ms', 'bench'
       from generate_series(1, $1::int) n`,
    [count],
  )
}

const controlTeam = '00000000-0000-4000-8000-000000000000'

const rawClaim = `update bench_queue set state = 'PENDING'
                   where id = (select id from bench_queue where team_id = '${controlTeam}' and state = 'QUEUED'
                                order by queued_at, id limit 1 for update skip locked)
                  returning *`

async function rateOf(count: number, claim: () => Promise<unknown>): Promise<number> {
  const from = performance.now()
  await inLanes(claimers, count, claim)
  return (count * 1000) / (performance.now() - from)
}

const mean = (numbers: number[]) => numbers.reduce((sum, number) => sum + number, 0) / numbers.length

function disposable<T extends { close(): Promise<void> }>(thing: T): T & AsyncDisposable {
  return Object.assign(thing, { [Symbol.asyncDispose]: () => thing.close() })
}
