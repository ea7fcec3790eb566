import { type BenchControlPlane, startBenchControlPlane } from './control-plane.ts'
import { chunk, createEventWriter, startLiveAgents } from './live-agents.ts'
import { forSeconds } from './load.ts'
import { type Benchmark, compared, type Measurement, percentile } from './measurement.ts'

const agents = 20
const eventsPerBatch = 10
const eventsPerSecond = 2_000
const seconds = 12
/** Not counted: code that runs for the first time, and connections that are opened. */
const warmUpSeconds = 2

/**
 * From sending a batch to its durable acknowledgement, at 2,000 events a second from 20 agents. Control: inserting a batch of the same rows in a
 * transaction, by the same driver into the same database, at the same rate.
 */
export const appendBenchmark: Benchmark = {
  name: 'append',
  async run(): Promise<Measurement[]> {
    const controlPlane = await startBenchControlPlane()
    try {
      const live = await startLiveAgents(controlPlane, agents)
      const writers = live.map((agent) => createEventWriter(controlPlane, agent))
      const say = async (agent: number, size: number) => void (await writers[agent]?.say(size))
      const ours = await atRate(say)
      const control = await measureInsert(controlPlane)
      const throughput = 100 * (await forSeconds(5, agents, (agent) => say(agent, 100)))
      const name = 'plain insert of the same rows'
      return [
        compared(
          'event append → acknowledgement at 2,000 events/s, p99',
          'ms',
          { value: percentile(ours, 99), control: { name, value: percentile(control, 99) } },
          { words: '≤ 25 ms', isMet: (value) => value <= 25 },
        ),
        compared(
          'event append → acknowledgement at 2,000 events/s, p50',
          'ms',
          { value: percentile(ours, 50), control: { name, value: percentile(control, 50) } },
          { words: 'with its control', isMet: () => true },
        ),
        {
          name: 'events appended at the limit, 100 a batch',
          value: Math.round(throughput),
          unit: 'events/s',
          target: '≥ 5,000 events/s',
          control: null,
          ratio: null,
          ok: throughput >= 5_000,
        },
      ]
    } finally {
      await controlPlane.stop()
    }
  },
}

/** Each agent sends a batch every so often, the next one only after its acknowledgement. */
async function atRate(send: (agent: number, size: number) => Promise<void>): Promise<number[]> {
  const latencies: number[] = []
  const everyMs = (agents * eventsPerBatch * 1000) / eventsPerSecond
  const countedFrom = performance.now() + warmUpSeconds * 1000
  const until = performance.now() + seconds * 1000
  await Promise.all(
    Array.from({ length: agents }, async (_, agent) => {
      let due = performance.now() + (agent * everyMs) / agents
      while (due < until) {
        await new Promise((resolve) => setTimeout(resolve, Math.max(0, due - performance.now())))
        const from = performance.now()
        await send(agent, eventsPerBatch)
        if (from >= countedFrom) latencies.push(performance.now() - from)
        due += everyMs
      }
    }),
  )
  return latencies
}

async function measureInsert({ pool }: BenchControlPlane): Promise<number[]> {
  await pool.query('create table bench_events (id bigserial primary key, data jsonb not null)')
  const rows = JSON.stringify(Array.from({ length: eventsPerBatch }, () => chunk))
  return atRate(async () => {
    const client = await pool.connect()
    await client.query('begin')
    await client.query('insert into bench_events (data) select value from jsonb_array_elements($1)', [rows])
    await client.query('commit')
    client.release()
  })
}
