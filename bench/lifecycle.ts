import { Logger as GraphileLogger, run as runGraphileWorker } from 'graphile-worker'
import type pg from 'pg'
import { type ServerProcess, startServerProcess } from './control-plane.ts'
import { startLifecycles } from './live-agents.ts'
import { forSeconds } from './load.ts'
import { alone, type Benchmark, compared } from './measurement.ts'

const lanes = 32
const warmUpSeconds = 2

/**
 * Whole lives of runs without a process (`startLifecycles`), 32 at a time. Control: jobs of graphile-worker that do nothing, added one by one and
 * performed, 32 at a time, on the same database: one write for the job and one for its end, where a run needs some twenty rows.
 */
export const lifecycleBenchmark: Benchmark = {
  name: 'lifecycle',
  async run({ isQuick }) {
    const seconds = isQuick ? 3 : 12
    await using controlPlane = await startServerProcess()
    const lifecycles = await startLifecycles(controlPlane)
    await forSeconds(warmUpSeconds, lanes, lifecycles.live)
    const before = await controlPlane.probe.read()
    const rate = await forSeconds(seconds, lanes, lifecycles.live)
    const after = await controlPlane.probe.read()
    const { wrong, all } = await countWrong(controlPlane)
    lifecycles.close()
    const control = await graphileRate(controlPlane.pool, isQuick ? 2 : 6)
    return [
      compared(
        `whole lives of runs without a process, ${lanes} at a time (${wrong} of ${all} did not succeed)`,
        'runs/s',
        { value: rate, control: { name: 'graphile-worker add → done', value: control } },
        { words: '≥ 200 runs/s, no error', isMet: (value) => value >= 200 && wrong === 0 },
      ),
      alone('of it processor time of the server, per run', 'ms', (after.cpuMs - before.cpuMs) / (rate * seconds), {
        words: 'for information',
        isMet: () => true,
      }),
    ]
  },
}

/** The last reports are still on their way. */
async function countWrong({ pool }: ServerProcess): Promise<{ wrong: number; all: number }> {
  const until = performance.now() + 30_000
  for (;;) {
    const { rows } = await pool.query<{ all: string; right: string; live: string }>(
      `select count(*) as all, count(*) filter (where state = 'SUCCEEDED') as right,
              (select count(*) from executions where ended_at is null) as live from runs`,
    )
    const [counts] = rows
    const all = Number(counts?.all)
    const wrong = all - Number(counts?.right)
    if ((wrong === 0 && Number(counts?.live) === 0) || performance.now() > until) return { wrong, all }
  }
}

async function graphileRate(pgPool: pg.Pool, seconds: number): Promise<number> {
  const done = new Map<string, () => void>()
  const runner = await runGraphileWorker({
    pgPool,
    concurrency: lanes,
    noHandleSignals: true,
    taskList: { bench: async (payload) => done.get((payload as { key: string }).key)?.() },
    logger: new GraphileLogger(() => () => {}),
  })
  let jobs = 0
  const rate = await forSeconds(seconds, lanes, async () => {
    const key = String(jobs++)
    const performed = new Promise<void>((resolve) => done.set(key, resolve))
    await runner.addJob('bench', { key })
    await performed
    done.delete(key)
  })
  await runner.stop()
  return rate
}
