import { readFileSync } from 'node:fs'
import { join } from 'node:path'
import { setTimeout as sleep } from 'node:timers/promises'
import { type ApiClient, createApiClient } from '@openoz/protocol'
import { startScriptedModel } from '../test/support/scripted-model.ts'
import { type Benchmark, compared, percentile } from './measurement.ts'
import { scratchHome, startProgram, timeToExit } from './programs.ts'

const runs = 15

/** From the assignment to the agent's hello on the direct backend, by the control plane's own clock. Control: a Node that does nothing. */
export const coldStartBenchmark: Benchmark = {
  name: 'cold-start',
  async run() {
    const home = scratchHome()
    const model = await startScriptedModel({ handler: () => ({ text: 'Done.' }) })
    const up = await startProgram(
      ['up', '--worker-id', 'bench'],
      { ...home.env, OPENAI_BASE_URL: `${model.url}/v1`, OPENAI_API_KEY: 'bench' },
      'worker_ready',
    )
    try {
      const apiKey = readFileSync(join(home.dataDir, 'admin-api-key'), 'utf8').trim()
      const client = createApiClient({ fetch: (path, init) => fetch(up.url + path, init), apiKey })
      const helloMs: number[] = []
      const bareMs: number[] = []
      for (let i = 0; i < runs; i++) {
        bareMs.push(await timeToExit(['-e', '0']))
        const { run_id } = await client.runs.create({ prompt: 'Say done.', config: { idle_timeout_minutes: 0 } })
        const steps = await waterfallOnceEnded(client, run_id)
        const duration = (step: string) => steps.find((one) => one.step === step)?.duration_ms ?? Number.NaN
        helloMs.push(duration('offer') + duration('hello'))
      }
      const figures = {
        value: percentile(helloMs, 50),
        control: { name: 'node -e 0', value: percentile(bareMs, 50) },
      }
      return [
        compared('direct cold start: assignment → hello, p50', 'ms', figures, {
          words: '≤ control + 200 ms',
          isMet: (value) => value <= figures.control.value + 200,
        }),
      ]
    } finally {
      await up.stop()
      await model.close()
      home.remove()
    }
  },
}

/** The execution is over when the worker has cleared up after it: what is still busy then would slow the next start. */
async function waterfallOnceEnded(client: ApiClient, runId: string) {
  for (const until = performance.now() + 60_000; performance.now() < until; await sleep(50)) {
    const execution = (await client.runs.executions(runId)).executions[0]
    if (execution?.ended_at) return execution.waterfall
  }
  const { state, status_message } = await client.runs.get(runId)
  throw new Error(`Run ${runId} has not ended within a minute: ${state} ${status_message?.message ?? ''}`)
}
