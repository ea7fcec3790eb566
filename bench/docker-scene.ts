import { type ChildProcess, spawn } from 'node:child_process'
import { writeFileSync } from 'node:fs'
import { join } from 'node:path'
import { setTimeout as sleep } from 'node:timers/promises'
import type { Engine } from '../packages/worker/src/engine/engine.ts'
import { engineProblem, startEngine, type TestEngine } from '../test/support/docker-engine.ts'
import { type ScriptedModelOptions, startScriptedModel } from '../test/support/scripted-model.ts'
import { imageName, imageProblem, openTestEngine, prepareImages } from '../test/support/test-images.ts'
import { type ServerProcess, startServerProcess } from './control-plane.ts'
import { NotMeasurable } from './measurement.ts'
import { dist, scratchHome, stop } from './programs.ts'

/** Small, with a shell. What an image holds makes no difference to the engine, only whether it has it. */
export const benchImage = imageName('musl')

export interface BenchEngine extends AsyncDisposable {
  engine: TestEngine
  /** The product's own client of it, for controls and looks of our own. */
  api: Engine
}

/** An engine of the benchmark's own, in namespaces of its own. Rejects with NotMeasurable where there can be none. */
export async function startBenchEngine(): Promise<BenchEngine> {
  const problem = engineProblem() ?? imageProblem('musl')
  if (problem !== undefined) throw new NotMeasurable(problem)
  const engine = await startEngine().catch((error: unknown) => {
    // Not every root may: in most containers it has neither the capabilities nor the control groups.
    throw new NotMeasurable(String(error))
  })
  const stack = new AsyncDisposableStack()
  stack.use(engine)
  try {
    await prepareImages(engine, ['musl'])
    const api = stack.use(openTestEngine(engine))
    return { engine, api, [Symbol.asyncDispose]: () => stack.disposeAsync() }
  } catch (error) {
    await stack.disposeAsync()
    throw error
  }
}

export interface DockerScene extends BenchEngine {
  controlPlane: ServerProcess
  worker: ChildProcess
  /** For another process of the same worker. */
  startWorker(): ChildProcess
  run(prompt: string): Promise<string>
}

export interface DockerSceneOptions {
  model: NonNullable<ScriptedModelOptions['handler']>
  /** Default: no limit. */
  slots?: number
  idleTimeoutMinutes?: number
  workerEnv?: Record<string, string>
}

/** Engine, control plane, a model by script, and a worker of the docker backend, each a process as its owner would start it (the model is in ours). */
export async function startDockerScene({
  model: handler,
  slots = 0,
  idleTimeoutMinutes = 0,
  workerEnv = {},
}: DockerSceneOptions): Promise<DockerScene> {
  const stack = new AsyncDisposableStack()
  try {
    const { engine, api } = stack.use(await startBenchEngine())
    const home = scratchHome()
    stack.defer(home.remove)
    const model = await startScriptedModel({ handler })
    stack.defer(() => model.close())
    const provider = { OPENAI_BASE_URL: `${model.url}/v1`, OPENAI_API_KEY: 'bench' }
    const controlPlane = stack.use(await startServerProcess(provider))
    const stateDir = join(home.env.HOME ?? home.dataDir, 'worker-state')
    const credentials = { OZ_API_KEY: controlPlane.apiKey, OZ_SERVER_URL: controlPlane.url }
    const env = { ...home.env, ...credentials, ...engine.env, ...workerEnv }
    const config = `${stateDir}.yaml`
    const docker = { state_dir: stateDir, default_image: benchImage }
    writeFileSync(config, JSON.stringify({ max_concurrent_tasks: slots, backend: { docker } }))
    let worker: ChildProcess | undefined
    const startWorker = () => {
      // Nobody adopts what a measured worker leaves; what it does not end goes with the engine.
      const args = ['--backend', 'docker', '--worker-id', 'bench', '--config-file', config, '--drain', 'stop']
      const stderr = process.env.BENCH_DEBUG ? 2 : 'ignore'
      worker = spawn(process.execPath, [dist('oz-agent-worker'), ...args], { env, stdio: ['ignore', 'ignore', stderr] })
      return worker
    }
    stack.defer(() => stop(worker))
    const first = startWorker()
    await connected(controlPlane, first)
    const all = stack.move()
    return {
      ...{ engine, api, controlPlane, worker: first, startWorker },
      async run(prompt) {
        const config = { worker_host: 'bench', idle_timeout_minutes: idleTimeoutMinutes }
        const { run_id } = await controlPlane.post<{ run_id: string }>('/api/v1/agent/runs', { prompt, config })
        return run_id
      },
      [Symbol.asyncDispose]: () => all.disposeAsync(),
    }
  } catch (error) {
    await stack.disposeAsync()
    throw error
  }
}

async function connected({ pool }: ServerProcess, worker: ChildProcess): Promise<void> {
  for (const until = performance.now() + 60_000; performance.now() < until; await sleep(50)) {
    const { rows } = await pool.query("select 1 from worker_connections where worker_id = 'bench'")
    if (rows.length > 0) return
    if (worker.exitCode !== null) throw new Error(`the worker ended with ${worker.exitCode}`)
  }
  throw new Error('the worker did not connect within a minute')
}
