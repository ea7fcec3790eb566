import type { TaskAssignment } from '@openoz/protocol'
import { type BenchWorker, connectBenchWorker } from './bench-worker.ts'
import { type ServerProcess, startServerProcess } from './control-plane.ts'
import { inLanes } from './load.ts'
import { type Benchmark, compared, percentile } from './measurement.ts'

/** Half of the workers are full, and all that waits names one of them; the other half is idle. */
const full = { workers: 200, queued: 10_000, samples: 300, warmUp: 30 }
const quick = { workers: 20, queued: 200, samples: 30, warmUp: 5 }

/**
 * From the answered `POST agent/runs` to the assignment at one of 100 idle workers, while 10,000 runs wait for 100 others whose only slot is
 * taken: for runs that any worker may take, and, in turns with them, for runs that name one. Control: the same on the same control plane before,
 * with one worker and an empty queue.
 */
export const assignmentLoadedBenchmark: Benchmark = {
  name: 'assignment-loaded',
  async run({ isQuick }) {
    const size = isQuick ? quick : full
    await using controlPlane = await startServerProcess()
    const arrivals = createArrivals()
    const first = await arrivals.connect(controlPlane, 'idle-0')
    const idle = await measure(controlPlane, arrivals, size, [undefined])
    first.close()

    const busy = Array.from({ length: size.workers / 2 }, (_, i) => `busy-${i}`)
    await inLanes(8, busy.length, async (i) => {
      await arrivals.connect(controlPlane, busy[i] ?? '', 1)
      await createRun(controlPlane, busy[i])
    })
    await arrivals.count(busy.length)
    await inLanes(16, size.queued, (i) => createRun(controlPlane, busy[i % busy.length]))
    await inLanes(8, size.workers / 2, (i) => arrivals.connect(controlPlane, `idle-${i + 1}`, 1))

    const named = Array.from({ length: size.workers / 2 }, (_, i) => `idle-${i + 1}`)
    const loaded = await measure(
      controlPlane,
      arrivals,
      { ...size, samples: 2 * size.samples },
      named.flatMap((host) => [undefined, host]),
    )
    const load = `with ${size.queued} queued and ${size.workers} workers`
    const line = (what: string, ms: number[], p: number) =>
      compared(
        `${what} → assignment ${load}, p${p}`,
        'ms',
        { value: percentile(ms, p), control: { name: 'one idle worker, empty queue', value: percentile(idle.all, p) } },
        p === 99
          ? { words: '≤ 2 × control', isMet: (_, ratio) => ratio <= 2 }
          : { words: 'with its control', isMet: () => true },
      )
    return [50, 99].flatMap((p) => [
      line('run accepted', loaded.unnamed, p),
      line('run that names its worker accepted', loaded.named, p),
    ])
  },
}

async function createRun(controlPlane: ServerProcess, workerHost?: string): Promise<string> {
  const config = workerHost === undefined ? {} : { worker_host: workerHost }
  return (await controlPlane.post<{ run_id: string }>('/api/v1/agent/runs', { prompt: 'bench', config })).run_id
}

interface Arrival {
  at: number
  assignment: TaskAssignment
  worker: BenchWorker
}

function createArrivals() {
  const arrived = new Map<string, Arrival>()
  let changed = () => {}
  const wait = async (isThere: () => boolean) => {
    while (!isThere())
      await new Promise<void>((resolve) => {
        changed = resolve
      })
  }
  return {
    async connect(controlPlane: ServerProcess, workerId: string, maxConcurrentTasks = 0): Promise<BenchWorker> {
      const worker: BenchWorker = await connectBenchWorker(controlPlane, {
        workerId,
        maxConcurrentTasks,
        onAssignment(assignment) {
          arrived.set(assignment.task_id, { at: performance.now(), assignment, worker })
          changed()
        },
      })
      return worker
    },
    count: (wanted: number) => {
      const before = arrived.size
      return wait(() => arrived.size >= Math.max(before, wanted))
    },
    async of(runId: string): Promise<Arrival> {
      await wait(() => arrived.has(runId))
      const arrival = arrived.get(runId)
      arrived.delete(runId)
      if (!arrival) throw new Error(`run ${runId} was not offered`)
      return arrival
    },
  }
}

async function measure(
  controlPlane: ServerProcess,
  arrivals: ReturnType<typeof createArrivals>,
  { samples, warmUp }: { samples: number; warmUp: number },
  hosts: (string | undefined)[],
) {
  const latencies = { all: [] as number[], named: [] as number[], unnamed: [] as number[] }
  for (let i = -warmUp; i < samples; i++) {
    const host = hosts[(i + warmUp) % hosts.length]
    const runId = await createRun(controlPlane, host)
    const answered = performance.now()
    const { at, assignment, worker } = await arrivals.of(runId)
    // An assignment may overtake the HTTP answer: then nothing was waited for.
    const ms = Math.max(0, at - answered)
    if (i >= 0) {
      latencies.all.push(ms)
      latencies[host === undefined ? 'unnamed' : 'named'].push(ms)
    }
    worker.complete(assignment)
  }
  return latencies
}
