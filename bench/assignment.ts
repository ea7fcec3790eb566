import type { TaskAssignment } from '@openoz/protocol'
import { Logger as GraphileLogger, run as runGraphileWorker } from 'graphile-worker'
import { connectBenchWorker } from './bench-worker.ts'
import { startBenchControlPlane } from './control-plane.ts'
import { type Benchmark, compared, type Measurement, percentile } from './measurement.ts'

const samples = 300
const warmUp = 30

/**
 * From the answered `POST agent/runs` to the assignment's arrival at an idle worker. Control: graphile-worker's `addJob` resolved → task started,
 * on the same database.
 */
export const assignmentBenchmark: Benchmark = {
  name: 'assignment',
  async run(): Promise<Measurement[]> {
    const controlPlane = await startBenchControlPlane()
    try {
      const ours = await measureOurs(controlPlane)
      const graphile = await measureGraphileWorker(controlPlane)
      const figures = (p: number) => ({
        value: percentile(ours, p),
        control: { name: 'graphile-worker add → start', value: percentile(graphile, p) },
      })
      return [
        compared('run accepted → assignment, p50', 'ms', figures(50), {
          words: '≤ 10 ms and ≤ 3 × control',
          isMet: (value, ratio) => value <= 10 && ratio <= 3,
        }),
        compared('run accepted → assignment, p99', 'ms', figures(99), {
          words: '≤ 50 ms',
          isMet: (value) => value <= 50,
        }),
      ]
    } finally {
      await controlPlane.stop()
    }
  },
}

async function measureOurs(controlPlane: Awaited<ReturnType<typeof startBenchControlPlane>>): Promise<number[]> {
  const arrivals = new Map<string, number>()
  let arrived: (assignment: TaskAssignment) => void = () => {}
  const worker = await connectBenchWorker(controlPlane, {
    workerId: 'bench',
    onAssignment: (assignment) => {
      arrivals.set(assignment.task_id, performance.now())
      arrived(assignment)
    },
  })
  const latencies: number[] = []
  for (let i = 0; i < samples + warmUp; i++) {
    const next = Promise.withResolvers<TaskAssignment>()
    arrived = next.resolve
    const { run_id } = await controlPlane.post<{ run_id: string }>('/api/v1/agent/runs', { prompt: 'bench' })
    const answered = performance.now()
    const assignment = await next.promise
    // An assignment may overtake the HTTP answer: then nothing was waited for.
    if (i >= warmUp) latencies.push(Math.max(0, (arrivals.get(run_id) ?? answered) - answered))
    worker.complete(assignment)
  }
  worker.close()
  return latencies
}

async function measureGraphileWorker(
  controlPlane: Awaited<ReturnType<typeof startBenchControlPlane>>,
): Promise<number[]> {
  let started = (_at: number) => {}
  const runner = await runGraphileWorker({
    pgPool: controlPlane.pool,
    concurrency: 1,
    noHandleSignals: true,
    taskList: { bench: async () => started(performance.now()) },
    logger: new GraphileLogger(() => () => {}),
  })
  const latencies: number[] = []
  for (let i = 0; i < samples + warmUp; i++) {
    const next = Promise.withResolvers<number>()
    started = next.resolve
    await runner.addJob('bench', {})
    const added = performance.now()
    const startedAt = await next.promise
    if (i >= warmUp) latencies.push(Math.max(0, startedAt - added))
    // Its worker goes back to sleep, as ours does.
    await new Promise((resolve) => setTimeout(resolve, 5))
  }
  await runner.stop()
  return latencies
}
