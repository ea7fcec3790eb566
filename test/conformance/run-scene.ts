import type { TaskRefs } from '../../packages/worker/src/backends/backend.ts'
import { type ControlPlane, startControlPlane } from '../support/control-plane.ts'
import { until } from '../support/poll.ts'
import { type ScriptedModel, type ScriptedStep, startScriptedModel } from '../support/scripted-model.ts'
import {
  type BackendFixture,
  type ConformanceWorker,
  type ConformanceWorkerOptions,
  untilNothingLeft,
} from './backend-fixture.ts'

export const command = (text: string): ScriptedStep => ({
  toolCalls: [{ name: 'run_command', arguments: { command: text } }],
})

/** One run on a worker of this backend, with a control plane and a model of its own. */
export interface RunScene extends AsyncDisposable {
  readonly cp: ControlPlane
  readonly model: ScriptedModel
  readonly runId: string
  readonly worker: ConformanceWorker
  /** The worker that was is told to end; the next one has its folder. */
  replaceWorker(how: 'stop' | 'leave'): Promise<void>
  executions(): Promise<(TaskRefs & { state: string; failure_reason?: string; exit_code?: number })[]>
  /** What its commands wrote, as its log has it. */
  output(): Promise<string>
  untilSaid(text: string): Promise<void>
  /** So many requests of the agent have come to the model. */
  untilAsked(count: number): Promise<void>
  /** What the model was told last. */
  lastAsked(): string
  untilNothingLeft(): Promise<void>
}

export interface RunSceneOptions {
  steps?: ScriptedStep[]
  worker?: ConformanceWorkerOptions
  idleMinutes?: number
}

export async function startRun(
  fixture: BackendFixture,
  { steps = [], worker: workerOptions, idleMinutes = 0 }: RunSceneOptions,
): Promise<RunScene> {
  await using stack = new AsyncDisposableStack()
  const model = stack.use(await startScriptedModel({ apiKey: 'sk-test', steps }))
  const env = { OPENAI_API_KEY: 'sk-test', OPENAI_BASE_URL: `${model.url}/v1` }
  const cp = stack.use(await startControlPlane({ env }))
  const first = stack.use(await fixture.startWorker(cp, workerOptions))
  let worker = first
  const runId = await cp.createRun({
    prompt: 'Begin.',
    config: { ...fixture.runConfig, worker_host: 'w1', idle_timeout_minutes: idleMinutes },
  })
  const slow = { timeoutMs: 40_000, everyMs: 30 }
  const executions = async () => {
    const { executions: all } = await cp.client.runs.executions(runId)
    return all.map((execution) => ({ ...execution, task_id: runId })) as Awaited<ReturnType<RunScene['executions']>>
  }
  const output = async () =>
    (await cp.eventsOf(runId)).flatMap(({ type, data }) => (type === 'terminal_output' ? [data.text] : [])).join('')
  const kept = stack.move()
  return {
    ...{ cp, model, runId, executions, output },
    get worker() {
      return worker
    },
    async replaceWorker(how) {
      await worker.stop(how)
      worker = kept.use(await fixture.startWorker(cp, { ...workerOptions, folder: first.folder }))
    },
    async untilSaid(text) {
      await until(output, (said) => said.includes(text), slow)
    },
    async untilAsked(count) {
      await until(
        () => model.requests.length,
        (asked) => asked >= count,
        slow,
      )
    },
    lastAsked: () => JSON.stringify(model.requests.at(-1)?.body),
    async untilNothingLeft() {
      for (const execution of await executions()) await untilNothingLeft(fixture, execution, first.folder)
    },
    [Symbol.asyncDispose]: () => kept.disposeAsync(),
  }
}
