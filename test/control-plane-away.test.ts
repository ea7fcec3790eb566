import { existsSync, mkdirSync, mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { runAgent } from '@openoz/agent'
import { pino } from 'pino'
import { expect, test } from 'vitest'
import { startLink } from '../packages/cli/src/chaos/link.ts'
import { type ControlPlane, startControlPlane } from './support/control-plane.ts'
import { until } from './support/poll.ts'
import { type ScriptedModel, startScriptedModel } from './support/scripted-model.ts'

/** A minute for each second: an agent may be cut off for 12 of them. */
const lease = { unreachable: '1s', stop: '12s', lost: '14s' }

const steps = [
  {
    toolCalls: [
      {
        name: 'run_command',
        arguments: { command: 'until [ -e go ]; do echo beat; echo beat >> beats; sleep 0.1; done; rm go' },
      },
    ],
  },
  { text: 'All done.' },
]

/** An agent at work on a command that goes on until the file `go` is there. It reaches its control plane by this address. */
async function startAtWork(cp: ControlPlane, serverUrl: string) {
  const folder = mkdtempSync(join(tmpdir(), 'oz-away-'))
  const workspace = join(folder, 'workspace')
  mkdirSync(workspace)
  const worker = await cp.connectWorker()
  const runId = await cp.createRun({ prompt: 'Beat.', config: { idle_timeout_minutes: 0 } })
  const { execution_token: executionToken = '', execution_id } = await worker.claimNext()
  const ended = runAgent({
    serverUrl,
    executionToken,
    spoolDir: join(folder, 'spool'),
    workingDirectory: workspace,
    log: pino({ level: process.env.OZ_TEST_LOG ?? 'silent' }),
    signal: new AbortController().signal,
    env: { PATH: process.env.PATH, HOME: folder, OZ_EXECUTION_ID: execution_id },
  })
  const beats = () =>
    (existsSync(join(workspace, 'beats')) ? readFileSync(join(workspace, 'beats'), 'utf8') : '').length
  await until(beats, (count) => count > 0, { timeoutMs: 20_000 })
  return {
    runId,
    ended,
    beats,
    endCommand: () => writeFileSync(join(workspace, 'go'), ''),
    [Symbol.dispose]: () => rmSync(folder, { recursive: true, force: true }),
  }
}

async function startPlane() {
  const model = await startScriptedModel({ apiKey: 'sk-test', steps })
  const env = { OPENAI_API_KEY: 'sk-test', OPENAI_BASE_URL: `${model.url}/v1` }
  return { model, cp: await startControlPlane({ lease, env }) }
}

/** One execution, one outcome, every event once, and the model was asked no more than there was to ask. */
async function checkWhole(cp: ControlPlane, model: ScriptedModel, runId: string): Promise<void> {
  const { executions } = await cp.client.runs.executions(runId)
  expect(executions).toHaveLength(1)
  const events = await cp.eventsOf(runId)
  expect(events.map(({ seq }) => seq)).toEqual(events.map((_, index) => index + 1))
  expect(events.map(({ type }) => type)).not.toContain('event_invalid')
  const states = await cp.statesOf(runId)
  expect(states.filter((state) => state === 'SUCCEEDED')).toHaveLength(1)
  expect(events.filter(({ data }) => 'late' in data)).toEqual([])
  expect(model.requests).toHaveLength(2)
}

test('an agent that is cut off for ten of its twelve minutes works on, waits for its model, and delivers all of it', async () => {
  const { model, cp } = await startPlane()
  await using _model = model
  await using _cp = cp
  const { hostname, port } = new URL(cp.url)
  await using link = await startLink(() => [{ host: hostname, port: Number(port) }])
  using agent = await startAtWork(cp, `http://127.0.0.1:${link.port}`)
  const cutAt = performance.now()
  const heal = link.begin('cut')
  const before = agent.beats()
  await until(async () => (await cp.client.runs.executions(agent.runId)).executions[0]?.unreachable)
  await until(agent.beats, (count) => count > before + 100)
  // The command ends while nobody can be reached: its output and the next question to the model wait.
  agent.endCommand()
  await until(() => performance.now() - cutAt > 10_000, Boolean, { timeoutMs: 15_000, everyMs: 100 })
  expect(model.requests).toHaveLength(1)
  heal()
  expect(await agent.ended).toEqual({ exitCode: 0 })
  await cp.waitFor(agent.runId, 'SUCCEEDED')
  await checkWhole(cp, model, agent.runId)
  const text = (await cp.eventsOf(agent.runId)).flatMap((event) =>
    event.type === 'terminal_output' ? [event.data.text] : [],
  )
  expect(text.join('')).toBe('beat\n'.repeat(agent.beats() / 5))
}, 60_000)

test('a control plane that is replaced under a running agent is not noticed by it', async () => {
  const { model, cp } = await startPlane()
  await using _model = model
  await using _cp = cp
  using agent = await startAtWork(cp, cp.url)
  await cp.stop()
  const before = agent.beats()
  await until(agent.beats, (count) => count > before + 50)
  await cp.addServer({ port: Number(new URL(cp.url).port) })
  agent.endCommand()
  expect(await agent.ended).toEqual({ exitCode: 0 })
  await cp.waitFor(agent.runId, 'SUCCEEDED')
  await checkWhole(cp, model, agent.runId)
}, 60_000)
