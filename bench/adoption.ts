import type { ChildProcess } from 'node:child_process'
import { join } from 'node:path'
import { setTimeout as sleep } from 'node:timers/promises'
import { type ModelRequest, type ScriptedStep, startScriptedModel } from '../test/support/scripted-model.ts'
import { cancelAllRuns, type ServerProcess, startServerProcess } from './control-plane.ts'
import { alone, type Benchmark, compared, type Measurement } from './measurement.ts'
import { scratchHome, startWorkerProcess, stop } from './programs.ts'
import { readFrames } from './read-frames.ts'

const full = [1, 20]
const quick = [1, 3]
/** How often each agent's command says a number. */
const tickMs = 200

/**
 * `kill -9` of a worker whose agents are at work, and at once another worker process: until every execution belongs to the new connection. Control:
 * the same with nothing to adopt, until the new connection is there. A command of each run counts aloud all the while, and a viewer reads along:
 * neither may miss a number.
 */
export const adoptionBenchmark: Benchmark = {
  name: 'adoption',
  async run({ isQuick }) {
    const home = scratchHome()
    await using stack = new AsyncDisposableStack()
    stack.defer(home.remove)
    const model = await startScriptedModel({ handler: countingModel })
    stack.defer(() => model.close())
    const provider = { OPENAI_BASE_URL: `${model.url}/v1`, OPENAI_API_KEY: 'bench' }
    const controlPlane = stack.use(await startServerProcess(provider))
    const stateDir = join(home.env.HOME ?? home.dataDir, 'worker-state')
    const env = { ...home.env, OZ_API_KEY: controlPlane.apiKey, OZ_SERVER_URL: controlPlane.url }
    const workers = createWorkers(() => startWorkerProcess(stateDir, env))
    stack.defer(() => workers.stop())
    workers.start()
    stack.defer(() => cancelAllRuns(controlPlane))
    await connectedAs(controlPlane, [])

    return await adoptionLines({ controlPlane, workers }, isQuick ? quick : full)
  },
}

/** Has the agent count aloud without an end. */
export function countingModel({ body }: ModelRequest): ScriptedStep {
  const hasCounted = JSON.stringify(body.messages).includes('"role":"tool"')
  const command = `i=0; while :; do echo "tick $i"; i=$((i+1)); sleep ${tickMs / 1000}; done`
  return hasCounted ? { text: 'Done.' } : { toolCalls: [{ name: 'run_command', arguments: { command } }] }
}

export interface AdoptionScene {
  controlPlane: ServerProcess
  workers: { start(): void; kill(): Promise<void> }
  /** What a line begins with. */
  where?: string
  /** Whether the new worker itself says that it has so many tasks. */
  hasTasks?: (count: number) => Promise<boolean>
}

/** Of each number of tasks that a worker has when it is killed. The worker listens. */
export async function adoptionLines(scene: AdoptionScene, counts: readonly number[]): Promise<Measurement[]> {
  const { controlPlane, where = '' } = scene
  const bareMs = await killAndCount(scene, [])
  const results: Measurement[] = []
  for (const tasks of counts) {
    const watched = await startCounting(controlPlane, tasks)
    const ms = await killAndCount(
      scene,
      watched.map(({ runId }) => runId),
    )
    // What was said meanwhile, and some more.
    await sleep(2_000)
    const missed = (await Promise.all(watched.map((one) => one.stop()))).reduce((sum, count) => sum + count, 0)
    const name = `${where}kill -9 of a worker with ${tasks} ${tasks === 1 ? 'task' : 'tasks'}`
    results.push(
      compared(
        `${name} → all adopted`,
        'ms',
        { value: ms, control: { name: 'nothing to adopt → connected', value: bareMs } },
        { words: '≤ 2000 ms', isMet: (value) => value <= 2_000 },
      ),
      alone(`${name}: numbers and events missing at viewers`, 'events', missed, {
        words: '0',
        isMet: (count) => count === 0,
      }),
    )
    await cancelAllRuns(controlPlane)
  }
  return results
}

function createWorkers(spawnWorker: () => ChildProcess) {
  let worker: ChildProcess | undefined
  return {
    start() {
      worker = spawnWorker()
    },
    kill: () => stop(worker, 'SIGKILL'),
    stop: () => stop(worker),
  }
}

async function connectionIds({ pool }: ServerProcess): Promise<string[]> {
  const { rows } = await pool.query<{ id: string }>("select id from worker_connections where worker_id = 'bench'")
  return rows.map(({ id }) => id)
}

/** Resolves with the connection that was not there before. */
async function connectedAs(controlPlane: ServerProcess, before: string[]): Promise<string> {
  for (const until = performance.now() + 60_000; performance.now() < until; await sleep(5)) {
    const id = (await connectionIds(controlPlane)).find((one) => !before.includes(one))
    if (id !== undefined) return id
  }
  throw new Error('the worker did not connect within a minute')
}

/** Milliseconds from the kill until all of these runs' executions, or nothing, belong to the new connection. */
async function killAndCount({ controlPlane, workers, hasTasks }: AdoptionScene, runIds: string[]): Promise<number> {
  const before = await connectionIds(controlPlane)
  const from = performance.now()
  await workers.kill()
  workers.start()
  const connection = await connectedAs(controlPlane, before)
  for (const until = performance.now() + 60_000; performance.now() < until; await sleep(5)) {
    const { rows } = await controlPlane.pool.query<{ adopted: string }>(
      `select count(*) as adopted from executions
        where run_id = any($1) and worker_connection_id = $2 and ended_at is null`,
      [runIds, connection],
    )
    const isAdopted = Number(rows[0]?.adopted) === runIds.length
    if (isAdopted && (!hasTasks || (await hasTasks(runIds.length)))) return performance.now() - from
  }
  throw new Error('the executions were not adopted within a minute')
}

interface WatchedRun {
  runId: string
  /** Numbers that the command said and the stream left out, and holes in the stream itself. */
  stop(): Promise<number>
}

async function startCounting(controlPlane: ServerProcess, tasks: number): Promise<WatchedRun[]> {
  const watched = await Promise.all(
    Array.from({ length: tasks }, async () => {
      const config = { worker_host: 'bench', idle_timeout_minutes: 0 }
      const { run_id } = await controlPlane.post<{ run_id: string }>('/api/v1/agent/runs', { prompt: 'Count.', config })
      return watch(controlPlane, run_id)
    }),
  )
  await Promise.all(watched.map(({ counts }) => counts))
  return watched
}

function watch(controlPlane: ServerProcess, runId: string): WatchedRun & { counts: Promise<void> } {
  const stopping = new AbortController()
  const counts = Promise.withResolvers<void>()
  const tooLate = setTimeout(() => counts.reject(new Error(`run ${runId} does not count within a minute`)), 60_000)
  let lastSeq = 0
  let holes = 0
  let said = ''
  const path = `${controlPlane.url}/api/v1/agent/runs/${runId}/events/stream`
  const reading = readFrames(path, { token: controlPlane.apiKey, signal: stopping.signal }, ({ id, data }) => {
    if (id !== lastSeq + 1) holes++
    lastSeq = id
    const event = JSON.parse(data) as { type: string; data: { text?: string } }
    if (event.type !== 'terminal_output') return
    said += event.data.text ?? ''
    if (said.includes('tick 3\n')) {
      clearTimeout(tooLate)
      counts.resolve()
    }
  })
  return {
    runId,
    counts: counts.promise,
    async stop() {
      stopping.abort()
      await reading
      const numbers = [...said.matchAll(/tick (\d+)\r?\n/g)].map(([, number]) => Number(number))
      const skipped = numbers.filter((number, index) => number !== index).length
      return holes + skipped
    },
  }
}
