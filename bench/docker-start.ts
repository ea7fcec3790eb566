import { mkdirSync } from 'node:fs'
import { join } from 'node:path'
import { setTimeout as sleep } from 'node:timers/promises'
import { createApiClient } from '@openoz/protocol'
import { listContainers } from '../packages/worker/src/engine/containers.ts'
import { bareStartMs } from './docker-control.ts'
import { type DockerScene, startDockerScene } from './docker-scene.ts'
import { type Benchmark, compared, percentile } from './measurement.ts'

const full = 15
const quick = 3

/**
 * From the assignment to the agent's hello on the docker backend, by the control plane's own clock. Control, in turns: the engine's own create and start
 * of the same image with the same settings. The first run, which puts the agent on the engine, is not counted.
 */
export const dockerStartBenchmark: Benchmark = {
  name: 'docker-start',
  async run({ isQuick }) {
    await using scene = await startDockerScene({ model: () => ({ text: 'Done.' }) })
    const relay = join(scene.engine.folder, 'bench-relay')
    mkdirSync(relay)
    await stepsOnceGone(scene, await scene.run('Say done.'))
    const helloMs: number[] = []
    const bareMs: number[] = []
    const parts = new Map<string, number[]>()
    for (let i = 0; i < (isQuick ? quick : full); i++) {
      bareMs.push(await bareStartMs(scene.api, { command: ['/agent/libexec/sleep', '60'], relay }))
      const steps = await stepsOnceGone(scene, await scene.run('Say done.'))
      for (const { step, duration_ms: ms } of steps) parts.set(step, [...(parts.get(step) ?? []), ms ?? Number.NaN])
      const duration = (name: string) => steps.find(({ step }) => step === name)?.duration_ms ?? Number.NaN
      helloMs.push(duration('offer') + duration('hello'))
    }
    if (process.env.BENCH_DEBUG) for (const [step, ms] of parts) console.error(`${step}: ${percentile(ms, 50)} ms`)
    const figures = {
      value: percentile(helloMs, 50),
      control: { name: 'create and start of the same container by the engine alone', value: percentile(bareMs, 50) },
    }
    return [
      compared('docker start: assignment → hello, p50', 'ms', figures, {
        words: '≤ control + 300 ms',
        isMet: (value) => value <= figures.control.value + 300,
      }),
    ]
  },
}

/** Once nothing of the run is on the engine any more: what is still busy then would slow the next start. */
async function stepsOnceGone({ controlPlane, api }: DockerScene, runId: string) {
  const { url, apiKey } = controlPlane
  const client = createApiClient({ fetch: (path, init) => fetch(url + path, init), apiKey })
  for (const until = performance.now() + 60_000; performance.now() < until; await sleep(50)) {
    const execution = (await client.runs.executions(runId)).executions[0]
    if (!execution?.ended_at) continue
    if (execution.outcome === 'failed') throw new Error(`run ${runId}: ${execution.message}`)
    if ((await listContainers(api, { labels: [`oz-task-id=${runId}`] })).length === 0) return execution.waterfall
  }
  const { state, status_message } = await client.runs.get(runId)
  throw new Error(`run ${runId} has not ended within a minute: ${state} ${status_message?.message ?? ''}`)
}
