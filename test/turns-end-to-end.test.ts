import { execFile } from 'node:child_process'
import { mkdirSync, mkdtempSync, rmSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { fileURLToPath } from 'node:url'
import { promisify } from 'node:util'
import { runAgent } from '@openoz/agent'
import { findProcesses } from '@openoz/machine'
import type { CreateRunRequest } from '@openoz/protocol'
import { pino } from 'pino'
import { expect, test } from 'vitest'
import { makeRepository } from './support/agent-fixture.ts'
import { startControlPlane } from './support/control-plane.ts'
import { until } from './support/poll.ts'
import { type ScriptedModelOptions, startScriptedModel } from './support/scripted-model.ts'

/** Server, gateway and a real agent in this process, as a worker with one slot would have started it. */
async function startRun(options: ScriptedModelOptions & Partial<CreateRunRequest>) {
  const { prompt = 'Begin.', config, ...script } = options
  const model = await startScriptedModel(script)
  const cp = await startControlPlane({ env: { OPENAI_API_KEY: 'sk-test', OPENAI_BASE_URL: `${model.url}/v1` } })
  const folder = mkdtempSync(join(tmpdir(), 'oz-turns-'))
  const workspace = join(folder, 'workspace')
  mkdirSync(workspace)
  const worker = await cp.connectWorker()
  const runId = await cp.createRun({ prompt, config: { idle_timeout_minutes: 5, ...config } })
  const assignment = await worker.claimNext()
  const stop = new AbortController()
  const running = runAgent({
    serverUrl: cp.url,
    executionToken: assignment.execution_token ?? '',
    spoolDir: join(folder, 'spool'),
    workingDirectory: workspace,
    log: pino({ level: process.env.OZ_TEST_LOG ?? 'silent' }),
    signal: stop.signal,
    env: { PATH: process.env.PATH, HOME: folder, OZ_EXECUTION_ID: assignment.execution_id },
  })
  const executions = async () => (await cp.client.runs.executions(runId)).executions
  return {
    cp,
    model,
    worker,
    runId,
    assignment,
    running,
    workspace,
    executions,
    say: (message: string, mode?: 'steer' | 'interrupt') =>
      cp.client.runs.followUp(runId, { message, ...(mode ? { mode } : {}) }),
    rested: () => until(executions, ([execution]) => execution?.state === 'idle', { timeoutMs: 20_000 }),
    async [Symbol.asyncDispose]() {
      stop.abort()
      await running
      await cp[Symbol.asyncDispose]()
      await model.close()
      rmSync(folder, { recursive: true, force: true })
    },
  }
}

const command = (text: string) => ({ toolCalls: [{ name: 'run_command', arguments: { command: text } }] })

const leftOver = (executionId: string) => findProcesses({ marker: `OZ_EXECUTION_ID=${executionId}` })

test('one agent works through a conversation: a follow-up, a steer, an interrupt, a question and its answer', async () => {
  const wait = 'echo begun; until [ -e go ]; do sleep 0.02; done'
  await using run = await startRun({
    steps: [
      { text: 'Begun.' },
      command(wait),
      command('echo again; sleep 60'),
      { toolCalls: [{ name: 'ask', arguments: { question: 'Left or right?' } }] },
      { text: 'Left it is.' },
    ],
  })
  const { cp, runId, model, workspace } = run
  const commandsThatSaid = async (text: string) =>
    (await cp.eventsOf(runId)).filter(
      ({ type, data }) => type === 'terminal_output' && JSON.stringify(data).includes(text),
    )
  await run.rested()
  expect((await cp.client.runs.get(runId)).state).toBe('SUCCEEDED')

  expect(await run.say('Go on.')).toMatchObject({ turn: 2, mode: 'queue', state: 'INPROGRESS' })
  await until(
    () => commandsThatSaid('begun'),
    ({ length }) => length > 0,
  )
  expect(await run.say('This way.', 'steer')).toMatchObject({ turn: 2, mode: 'steer' })
  writeFileSync(join(workspace, 'go'), '')
  await until(
    () => commandsThatSaid('again'),
    ({ length }) => length > 0,
  )
  const interruptedAt = performance.now()
  expect(await run.say('Stop that.', 'interrupt')).toMatchObject({ turn: 2, mode: 'interrupt' })
  await until(() => model.requests.length === 4, Boolean, { everyMs: 5 })
  expect(performance.now() - interruptedAt).toBeLessThan(1_000)
  await cp.waitFor(runId, 'BLOCKED')
  await run.rested()

  expect(await run.say('Left.')).toMatchObject({ turn: 3, mode: 'queue' })
  await cp.waitFor(runId, 'SUCCEEDED')
  await run.rested()
  const asked = model.requests.map(({ body }) => JSON.stringify(body.messages.slice(1)))
  expect(asked[1]).toMatch(/Begin\..*Begun\..*Go on\./)
  expect(asked[3]).toContain('Stop that.')
  expect(asked[4]).toMatch(/This way\..*Stop that\..*Left\./)
  const events = await cp.eventsOf(runId)
  expect(events.map(({ type }) => type)).not.toContain('event_invalid')
  const delivered = events.filter(({ type }) => type === 'message_delivered')
  expect(delivered.length).toBe(2)
  expect(await cp.statesOf(runId)).toEqual([
    'QUEUED',
    'PENDING',
    'CLAIMED',
    'INPROGRESS',
    'SUCCEEDED',
    'INPROGRESS',
    'BLOCKED',
    'INPROGRESS',
    'SUCCEEDED',
  ])
  expect(await run.executions()).toMatchObject([{ state: 'idle' }])
})

test('an agent at rest gives its slot to a run that waits', async () => {
  await using run = await startRun({ steps: [{ text: 'Begun.' }] })
  await run.rested()
  const other = await run.cp.createRun({ prompt: 'Something else.' })
  expect(await run.running).toEqual({ exitCode: 0 })
  run.worker.complete(run.assignment)
  const next = await run.worker.claimNext()
  expect(next.task_id).toBe(other)
  expect(await run.executions()).toMatchObject([{ state: 'ended' }])
  expect((await run.cp.client.runs.get(run.runId)).state).toBe('SUCCEEDED')
})

test('a blocked run whose agent rests is cancelled with it', async () => {
  await using run = await startRun({
    steps: [
      command('setsid sleep 1000 >/dev/null 2>&1 & echo started'),
      { toolCalls: [{ name: 'ask', arguments: { question: 'Go on?' } }] },
    ],
  })
  await run.cp.waitFor(run.runId, 'BLOCKED')
  await run.rested()
  await run.cp.client.runs.cancel(run.runId)
  expect(await run.running).toEqual({ exitCode: 1 })
  expect(await leftOver(run.assignment.execution_id)).toEqual([])
  run.worker.fail(run.assignment, { failure_reason: 'agent_invocation', exit_code: 1 })
  await run.cp.waitFor(run.runId, 'CANCELLED')
})

test('a server that restarts while the agent rests is waited for, and the message that came then is a turn', async () => {
  await using run = await startRun({ steps: [{ text: 'Begun.' }, { text: 'Gone on.' }] })
  await run.rested()
  await run.cp.restart()
  await run.say('Go on.')
  await until(
    () => run.cp.client.runs.get(run.runId),
    (answer) => answer.status_message?.message === 'Gone on.',
  )
  expect(await run.executions()).toHaveLength(1)
})

test('every turn of an execution saves what the run changed since it began', async () => {
  const origin = mkdtempSync(join(tmpdir(), 'oz-origin-'))
  try {
    makeRepository(origin, { 'sum.txt': '3\n' })
    await using run = await startRun({
      config: { environment: { source_repos: [{ url: `file://${origin}`, dir: 'app' }] } },
      steps: [
        command('echo 4 > sum.txt; git commit -qam One'),
        { text: 'One.' },
        command('echo 5 > sum.txt; echo new > new.txt'),
        { text: 'Two.' },
      ],
    })
    await run.rested()
    const { cp, runId } = run
    expect((await cp.client.runs.workspace(runId)).repositories).toMatchObject([{ commits: 1, files_changed: 1 }])
    await run.say('More.')
    await until(
      () => cp.client.runs.get(runId),
      (answer) => answer.status_message?.message === 'Two.',
    )
    const saved = await cp.client.runs.workspace(runId)
    expect(saved.repositories).toMatchObject([{ commits: 1, files_changed: 2, uncommitted: true }])
  } finally {
    rmSync(origin, { recursive: true, force: true })
  }
})

test('who watches a follow-up sees its turn, and nothing of the turns before it', async () => {
  await using run = await startRun({ steps: [{ text: 'Begun.' }, { text: 'Gone on.' }] })
  await run.rested()
  const oz = fileURLToPath(new URL('../packages/cli/bin/oz.mjs', import.meta.url))
  const { stdout } = await promisify(execFile)(
    process.execPath,
    [oz, 'run', 'follow-up', run.runId, 'Go on.', '--watch'],
    { env: { PATH: process.env.PATH, HOME: run.cp.folder, OZ_SERVER_URL: run.cp.url, OZ_API_KEY: run.cp.adminKey } },
  )
  expect(stdout).toContain('Gone on.')
  expect(stdout).toMatch(/tokens: .* in 1 request/)
  expect(stdout).not.toMatch(/Begun|From accepted to done/)
  expect((await run.cp.client.runs.get(run.runId)).usage.requests).toBe(2)
})
