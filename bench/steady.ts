import { setTimeout as sleep } from 'node:timers/promises'
import { type ServerProcess, startServerProcess } from './control-plane.ts'
import { openOurs } from './fan-out.ts'
import { chunk, startLifecycles, startLiveAgents } from './live-agents.ts'
import { atRate, inLanes } from './load.ts'
import { alone, type Benchmark, compared, percentile } from './measurement.ts'

const agents = 20
const viewersOfRun = 4
const batchEvents = 10
const eventsPerSecond = 500
const livesPerSecond = 5
/** Of two medians of a heap that is collected now and then. */
const noisePercent = 5

/**
 * Half an hour of what a busy installation does: 500 events a second from 20 agents, four viewers of each, five whole lives of runs a second.
 * Growth of the server is the median of the last fifth of the time against that of the first fifth after five minutes. Bytes on disk are those of
 * the session log with its indexes, beside the JSON that was sent.
 */
export const steadyBenchmark: Benchmark = {
  name: 'steady',
  // Half an hour is its own repetition.
  rounds: 1,
  async run({ minutes }) {
    const seconds = minutes * 60
    const settleSeconds = Math.min(300, seconds / 3)
    const span = (seconds - settleSeconds) / 5
    await using controlPlane = await startServerProcess()
    const live = await startLiveAgents(controlPlane, agents)
    const channels = await openOurs(controlPlane, live)
    const lifecycles = await startLifecycles(controlPlane)
    const viewers = await Promise.all(
      Array.from({ length: agents * viewersOfRun }, (_, i) => channels.watch(i % agents, () => {})),
    )
    const before = await eventsOnDisk(controlPlane)

    const samples: { atSeconds: number; rssMb: number }[] = []
    const from = performance.now()
    const until = from + seconds * 1000
    const sampling = (async () => {
      for (; performance.now() < until; await sleep(Math.min(5_000, span * 100))) {
        const { rssMb } = await controlPlane.probe.read()
        samples.push({ atSeconds: (performance.now() - from) / 1000, rssMb })
      }
    })()
    const everyMs = (1000 * batchEvents * agents) / eventsPerSecond
    await Promise.all([
      sampling,
      atRate({ perSecond: livesPerSecond, seconds }, lifecycles.live),
      inLanes(agents, agents, async (i) => {
        for (let due = from + (i * everyMs) / agents; due < until; due += everyMs) {
          await sleep(Math.max(0, due - performance.now()))
          await channels.append(i, batchEvents)
        }
      }),
    ])
    const broken = viewers.filter(({ isBroken }) => isBroken).length
    if (broken > 0) throw new Error(`the server has ended the streams of ${broken} viewers`)
    for (const viewer of viewers) viewer.close()
    lifecycles.close()

    const medianOf = (start: number) =>
      percentile(
        samples.filter(({ atSeconds }) => atSeconds >= start && atSeconds < start + span).map(({ rssMb }) => rssMb),
        50,
      )
    const early = medianOf(settleSeconds)
    const late = medianOf(seconds - span)
    const after = await eventsOnDisk(controlPlane)
    const events = after.events - before.events
    return [
      compared(
        `${minutes} minutes of steady load: server RSS at the end`,
        'MB',
        { value: late, control: { name: `after ${Math.round(settleSeconds / 60)} minutes`, value: early } },
        { words: `no growth (≤ ${noisePercent} %)`, isMet: (_, ratio) => ratio <= 1 + noisePercent / 100 },
      ),
      compared(
        'session log on disk, per event',
        'bytes',
        {
          value: (after.bytes - before.bytes) / events,
          control: { name: 'JSON of its data as sent', value: Buffer.byteLength(JSON.stringify(chunk)) },
        },
        { words: 'reported', isMet: () => true },
      ),
      alone('whole database on disk, per event', 'bytes', (after.databaseBytes - before.databaseBytes) / events, {
        words: 'reported',
        isMet: () => true,
      }),
    ]
  },
}

async function eventsOnDisk({
  pool,
}: ServerProcess): Promise<{ events: number; bytes: number; databaseBytes: number }> {
  const { rows } = await pool.query<{ events: string; bytes: string; database: string }>(
    `select (select count(*) from session_events) as events, pg_total_relation_size('session_events') as bytes,
            pg_database_size(current_database()) as database`,
  )
  return { events: Number(rows[0]?.events), bytes: Number(rows[0]?.bytes), databaseBytes: Number(rows[0]?.database) }
}
