import { type ChildProcess, spawn } from 'node:child_process'
import { once } from 'node:events'
import {
  chmodSync,
  existsSync,
  mkdtempSync,
  readdirSync,
  readFileSync,
  readlinkSync,
  rmSync,
  writeFileSync,
} from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { fileURLToPath } from 'node:url'
import { findProcesses } from '@openoz/machine'
import { expect, test } from 'vitest'
import { makeRepository } from './support/agent-fixture.ts'
import { type ControlPlane, startControlPlane } from './support/control-plane.ts'
import { until } from './support/poll.ts'
import { type ScriptedStep, startScriptedModel } from './support/scripted-model.ts'

/** Whole programs: a server, workers as processes, their agents, git. What dies is killed with SIGKILL. */

const oz = fileURLToPath(new URL('../packages/cli/bin/oz.mjs', import.meta.url))
const workerProgram = fileURLToPath(new URL('../packages/worker/src/test-support/worker-process.ts', import.meta.url))

/** Open to every user, as tasks of a worker that is root run as users of their own. */
function openFolder(): { path: string } & Disposable {
  const path = mkdtempSync(join(tmpdir(), 'oz-killed-'))
  chmodSync(path, 0o755)
  return { path, [Symbol.dispose]: () => rmSync(path, { recursive: true, force: true }) }
}

function startWorker(
  cp: ControlPlane,
  folder: string,
  stateDir = join(folder, 'state'),
): ChildProcess & AsyncDisposable {
  const config = join(folder, 'worker.yaml')
  writeFileSync(config, `backend:\n  direct:\n    oz_path: ${oz}\n    state_dir: ${stateDir}\n`)
  const flags = { serverUrl: cp.url, workerId: 'w', backend: 'direct', configFile: config, drain: 'stop' }
  const log = process.env.OZ_TEST_LOG ? 'inherit' : 'ignore'
  const child = spawn(process.execPath, [workerProgram, JSON.stringify(flags)], {
    env: { PATH: process.env.PATH, HOME: folder, OZ_API_KEY: cp.adminKey },
    stdio: ['ignore', 'ignore', log],
  })
  const exited = once(child, 'exit')
  return Object.assign(child, {
    async [Symbol.asyncDispose]() {
      child.kill('SIGTERM')
      await exited
    },
  })
}

/** The agent's own process, not its shim and not its tools. */
async function killAgent(executionId: string): Promise<void> {
  const processes = await findProcesses({ marker: `OZ_EXECUTION_ID=${executionId}` })
  const agents = processes.filter(({ pid }) => {
    const words = readFileSync(`/proc/${pid}/cmdline`, 'utf8').split('\0')
    return readlinkSync(`/proc/${pid}/exe`).endsWith('node') && words.includes('agent') && words.includes('run')
  })
  expect(agents.length).toBeGreaterThan(0)
  for (const { pid } of agents) process.kill(pid, 'SIGKILL')
}

const command = (text: string): ScriptedStep => ({
  toolCalls: [{ name: 'run_command', arguments: { command: text } }],
})

/** A run whose agent has done one command that no save knows of, and now waits for its model. */
async function startRun(folder: string, { repository = true } = {}) {
  const steps: ScriptedStep[] = [
    command('echo once >> count.txt; echo changed > a.txt; chmod +x a.txt; ln -s a.txt link; rm -f b.txt'),
    { hangAfterPieces: 0 },
  ]
  const next: ScriptedStep[] = [command('cat count.txt a.txt; ls'), { text: 'Done.' }]
  const model = await startScriptedModel({
    apiKey: 'sk-test',
    handler: ({ number, body }) => {
      if (number < 2) return steps[number] ?? {}
      const { messages } = body as { messages: { role: string }[] }
      return next[messages.filter(({ role }) => role === 'tool').length - 1] ?? { status: 400 }
    },
  })
  const cp = await startControlPlane({ env: { OPENAI_API_KEY: 'sk-test', OPENAI_BASE_URL: `${model.url}/v1` } })
  const worker = startWorker(cp, folder)
  const origin = makeRepository(join(folder, 'origin'), { 'a.txt': 'a\n', 'b.txt': 'b\n' })
  const source_repos = repository ? [{ url: `file://${origin}` }] : []
  const runId = await cp.createRun({
    prompt: 'Change the files.',
    config: { model_id: 'openai/scripted', environment: { source_repos }, idle_timeout_minutes: 0 },
  })
  await until(
    () => model.requests.length,
    (count) => count === 2,
    { timeoutMs: 30_000 },
  )
  const { executions } = await cp.client.runs.executions(runId)
  const executionId = executions[0]?.execution_id ?? ''
  return { model, cp, worker, runId, executionId }
}

async function checkEnd({ cp, model, runId }: Awaited<ReturnType<typeof startRun>>, files: string): Promise<void> {
  await cp.waitFor(runId, 'SUCCEEDED', 40_000)
  const { executions } = await cp.client.runs.executions(runId)
  expect(executions).toHaveLength(2)
  const events = await cp.eventsOf(runId)
  const output = events.flatMap((event) => (event.type === 'terminal_output' ? [event.data] : []))
  const said = output.flatMap(({ toolCallId, text }) => (toolCallId === undefined ? [] : [text])).join('')
  expect(said).toBe(files)
  const { messages } = model.requests[2]?.body ?? {}
  const asked = messages.filter(({ content }: { content: unknown }) => content === 'Change the files.')
  expect(asked).toHaveLength(1)
  const types = events.map(({ type }) => type)
  expect(types).not.toContain('event_invalid')
  expect(types.filter((type) => type === 'workspace_saved')).toHaveLength(2)
}

const seen = 'once\nchanged\na.txt\ncount.txt\nlink\n'

test.skipIf(process.platform !== 'linux')(
  'a killed agent’s files are there for the next attempt, and what it had done is not done again',
  async () => {
    using folder = openFolder()
    const run = await startRun(folder.path)
    await using _model = run.model
    await using _cp = run.cp
    await using _worker = run.worker
    await killAgent(run.executionId)
    await checkEnd(run, seen)
    await until(
      async () => readdirSync(join(folder.path, 'state', 'tasks')),
      (tasks) => tasks.length === 0,
    )
  },
)

test.skipIf(process.platform !== 'linux')(
  'killed together with its worker, it is saved by the next process of that worker, and goes on',
  async () => {
    using folder = openFolder()
    const run = await startRun(folder.path, { repository: false })
    await using _model = run.model
    await using _cp = run.cp
    run.worker.kill('SIGKILL')
    await once(run.worker, 'exit')
    await killAgent(run.executionId)
    const exit = join(folder.path, 'state', 'tasks', run.executionId, 'exit')
    await until(
      async () => existsSync(exit),
      (isThere) => isThere,
    )
    await using _next = startWorker(run.cp, folder.path)
    await checkEnd(run, seen)
  },
)

test.skipIf(process.platform !== 'linux')(
  'a worker that is stopped right then saves the work, and another worker goes on with it',
  async () => {
    using folder = openFolder()
    const run = await startRun(folder.path)
    await using _model = run.model
    await using _cp = run.cp
    await killAgent(run.executionId)
    run.worker.kill('SIGTERM')
    await once(run.worker, 'exit')
    await using _other = startWorker(run.cp, folder.path, join(folder.path, 'other-state'))
    await checkEnd(run, seen)
  },
)
