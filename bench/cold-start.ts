import { readFileSync } from 'node:fs'
import { join } from 'node:path'
import { createApiClient } from '@openoz/protocol'
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
        const { run_id } = await client.runs.create({ prompt: 'Say done.' })
        await ended(async () => (await client.runs.get(run_id)).finished_at !== null)
        const { executions } = await client.runs.executions(run_id)
        const steps = executions[0]?.waterfall ?? []
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

async function ended(isEnded: () => Promise<boolean>): Promise<void> {
  while (!(await isEnded())) await new Promise((done) => setTimeout(done, 50))
}
