import { readFileSync } from 'node:fs'
import { join } from 'node:path'
import { setTimeout as sleep } from 'node:timers/promises'
import { createApiClient, type FollowUpMode } from '@openoz/protocol'
import { startScriptedModel } from '../test/support/scripted-model.ts'
import { type Benchmark, compared, type Measurement, percentile } from './measurement.ts'
import { scratchHome, startProgram } from './programs.ts'

const samples = 40

/**
 * From the message that a person sends to the model request that holds it: through API, inbox, agent and gateway. The turn at work runs short
 * commands for `steer`, which waits for the end of the one at hand, and one that would run for minutes for `interrupt`, which has to be
 * stopped. Control: the same person's plain question to the same API.
 */
export const steeringBenchmark: Benchmark = {
  name: 'steering',
  async run() {
    const home = scratchHome()
    const waiting = new Map<string, () => void>()
    const model = await startScriptedModel({
      handler: ({ body }) => {
        const said = JSON.stringify(body.messages)
        for (const [text, resolve] of waiting) if (said.includes(text)) resolve()
        if (said.includes('that is all')) return { text: 'Done.' }
        const command = said.includes('take your time') ? 'sleep 300' : 'sleep 0.02'
        return { toolCalls: [{ name: 'run_command', arguments: { command } }] }
      },
    })
    const env = { OPENAI_BASE_URL: `${model.url}/v1`, OPENAI_API_KEY: 'bench', OZ_AGENT_MAX_STEPS: '100000' }
    const up = await startProgram(['up', '--worker-id', 'bench'], { ...home.env, ...env }, 'worker_ready')
    const apiKey = readFileSync(join(home.dataDir, 'admin-api-key'), 'utf8').trim()
    const client = createApiClient({ fetch: (path, init) => fetch(up.url + path, init), apiKey })

    async function effectMs(runId: string, mode: FollowUpMode, text: string): Promise<number> {
      const effect = new Promise<void>((resolve) => waiting.set(text, resolve))
      const from = performance.now()
      await client.runs.followUp(runId, { message: text, mode })
      await effect
      waiting.delete(text)
      return performance.now() - from
    }

    async function measure(prompt: string, mode: FollowUpMode) {
      const { run_id } = await client.runs.create({ prompt, config: { idle_timeout_minutes: 0 } })
      const begun = new Promise<void>((resolve) => waiting.set(prompt, resolve))
      await begun
      waiting.delete(prompt)
      const effects: number[] = []
      const questions: number[] = []
      for (let i = 0; i < samples; i++) {
        // A person's pause; the command at hand is somewhere in its middle.
        await sleep(100 + Math.random() * 50)
        effects.push(await effectMs(run_id, mode, `message ${i} of ${prompt}.`))
        const from = performance.now()
        await client.whoami()
        questions.push(performance.now() - from)
      }
      await client.runs.followUp(run_id, { message: 'that is all', mode: 'interrupt' })
      return { effects, questions }
    }

    try {
      const steered = await measure('work on', 'steer')
      const interrupted = await measure('take your time', 'interrupt')
      return [
        ...lines('steer → the model has it', steered, 100),
        ...lines('interrupt of a running command → the model has it', interrupted, 1000),
      ]
    } finally {
      await up.stop()
      await model.close()
      home.remove()
    }
  },
}

function lines(
  name: string,
  { effects, questions }: { effects: number[]; questions: number[] },
  limitMs: number,
): Measurement[] {
  return [50, 99].map((p) => {
    const figures = { value: percentile(effects, p), control: { name: 'GET whoami', value: percentile(questions, p) } }
    return compared(`${name}, p${p}`, 'ms', figures, { words: `≤ ${limitMs} ms`, isMet: (value) => value <= limitMs })
  })
}
