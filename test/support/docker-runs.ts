import { isTerminal } from '@openoz/protocol'
import { listContainers } from '../../packages/worker/src/engine/containers.ts'
import { listNetworks } from '../../packages/worker/src/engine/networks.ts'
import { listVolumes } from '../../packages/worker/src/engine/volumes.ts'
import type { ControlPlane } from './control-plane.ts'
import type { TestEngine } from './docker-engine.ts'
import { until } from './poll.ts'
import { type ScriptedModel, type ScriptedStep, startScriptedModel } from './scripted-model.ts'
import { openTestEngine } from './test-images.ts'

/** Each run has a script of its own, under its prompt, so that many of them can be under way at once. `env`: for the control plane. */
export async function startModelOf(
  scripts: Record<string, ScriptedStep[]> = {},
): Promise<ScriptedModel & { env: Record<string, string>; askedBy(prompt: string): string[] }> {
  const asked = new Map<string, string[]>()
  const model = await startScriptedModel({
    apiKey: 'sk-test',
    handler({ body }) {
      const text = JSON.stringify(body)
      const prompt = Object.keys(scripts).find((name) => text.includes(name)) ?? ''
      const before = asked.get(prompt) ?? []
      asked.set(prompt, [...before, text])
      return scripts[prompt]?.[before.length] ?? { text: 'Done.' }
    },
  })
  const env = { OPENAI_API_KEY: 'sk-test', OPENAI_BASE_URL: `${model.url}/v1` }
  return { ...model, env, askedBy: (prompt) => asked.get(prompt) ?? [] }
}

/** How a run has ended, as whoever started it is told. */
export async function endOf(cp: ControlPlane, runId: string, timeoutMs = 60_000) {
  const { state, status_message: status } = await until(
    () => cp.client.runs.get(runId),
    (run) => isTerminal(run.state),
    { timeoutMs, everyMs: 50 },
  )
  return { state, code: status?.error_code, reason: status?.failure_reason, message: status?.message ?? '' }
}

/** What there is of a run on an engine. */
export async function leftOf(engine: Pick<TestEngine, 'socket'>, runId: string): Promise<string[]> {
  await using api = openTestEngine(engine)
  const labels = [`oz-task-id=${runId}`]
  const [containers, volumes, networks] = await Promise.all([
    listContainers(api, { labels }),
    listVolumes(api, { labels }),
    listNetworks(api, { labels }),
  ])
  return [
    ...containers.map(({ Names, State }) => `container ${Names[0]?.slice(1)} ${State}`),
    ...volumes.map(({ Name }) => `volume ${Name}`),
    ...networks.map(({ Name }) => `network ${Name}`),
  ]
}

/** Removing begins once the end was told. */
export async function untilNothingIsLeft(engine: Pick<TestEngine, 'socket'>, runIds: string[]): Promise<void> {
  for (const runId of runIds)
    await until(
      () => leftOf(engine, runId),
      (left) => left.length === 0,
      { timeoutMs: 20_000, everyMs: 50 },
    )
}
