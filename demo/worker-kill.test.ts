import { execFile } from 'node:child_process'
import { lstat, readFile, readlink } from 'node:fs/promises'
import { join } from 'node:path'
import { promisify } from 'node:util'
import { findProcesses } from '@openoz/machine'
import { afterAll, afterEach, beforeAll, expect, test } from 'vitest'
import { foundDrafts, leaveDrafts, lookFirst, type Scene, startScene } from './kill-scene.ts'
import type { ChatMessage } from './scripted-conversation.ts'
import { textOf } from './scripted-conversation.ts'
import { type DemoTaskName, demoTasks } from './tasks.ts'

/**
 * The demo's tasks with everything real, except that workers die: in the middle of the task, and again before the next thing is said. What is
 * killed is killed with SIGKILL. A new `machine` is a worker with another id and no state.
 */

const run = promisify(execFile)
let scene: Scene

beforeAll(async () => {
  scene = await startScene()
})
afterEach(() => scene.endWorkers())
afterAll(() => scene?.[Symbol.asyncDispose]())

/** Elsewhere the processes of an execution cannot be found by their environment. */
const linuxTest = test.skipIf(process.platform !== 'linux')

const promptOf = (task: DemoTaskName, ...more: string[]) => [demoTasks[task].prompt, ...more].join(' ')

async function startRun(prompt: string): Promise<string> {
  const args = ['agent', 'run-cloud', '--prompt', prompt, '--repo', scene.source, '--output-format', 'json']
  return JSON.parse(await scene.oz(...args)).run_id
}

/** The tools in the order of their calls. Each call must have ended, once. */
async function callsOf(runId: string): Promise<string[]> {
  const events = await scene.eventsOf(runId)
  expect(events.map(({ type }) => type)).not.toContain('event_invalid')
  const calls = events.filter(({ type }) => type === 'tool_call')
  const ids = calls.map(({ data }) => data.toolCallId)
  const ends = events.filter(
    ({ type, data }) => type === 'tool_call_update' && ['completed', 'failed'].includes(String(data.status)),
  )
  expect(ends.map(({ data }) => data.toolCallId)).toEqual(ids)
  expect(ends.map(({ data }) => data.status)).not.toContain('failed')
  return calls.map(({ data }) => String(data.tool))
}

/** What the model was asked last: prompts, and results of tools, in their order. */
function lastRequest() {
  const messages: ChatMessage[] = scene.model.requests.at(-1)?.body.messages
  return {
    said: messages
      .filter(({ role }) => role === 'user')
      .map(textOf)
      .filter((text) => !text.startsWith('Note from openoz')),
    results: messages.filter(({ role }) => role === 'tool').map(textOf),
  }
}

const attemptsOf = async (runId: string) =>
  (await scene.executionsOf(runId)).map(({ worker, state }) => `${state} on ${worker}`)

/** With the drafts that no step of the script has committed by itself. */
async function expectDrafts(clone: string): Promise<void> {
  expect(await readFile(join(clone, 'README.md'), 'utf8')).toMatch(/Not said yet\.\n$/)
  expect(await readlink(join(clone, 'drafts', 'latest'))).toBe('ideas.txt')
  expect((await lstat(join(clone, 'drafts', 'check.sh'))).mode & 0o111).toBe(0o111)
  expect((await lstat(join(clone, 'drafts', 'large'))).size).toBe(3 * 1024 * 1024)
}

const subjectsIn = async (clone: string) =>
  (await run('git', ['-C', clone, 'log', '--format=%s'])).stdout.trim().split('\n')
const testIn = (clone: string) => run(process.execPath, ['--test'], { cwd: clone })

const drafts = 'run_command'
const look = 'run_command'
const fixCalls = ['run_command', 'edit_files', 'run_command', 'run_command']
const refactorCalls = ['todo', 'read_files', 'run_command', 'edit_files', ...Array(3).fill('run_command'), 'todo']
const fixSubject = 'Give left-over cents to the first people who pay'
const refactorSubject = 'Move what both programs share into one module'
const firstSubject = 'A bill splitter with one failing test'

linuxTest(
  'fix: the agent outlives its worker; the follow-up finds conversation and files on another machine',
  async () => {
    const worker = await scene.startWorker('first', 'here')
    const hold = scene.model.holdAt(2)
    const runId = await startRun(promptOf('fix', leaveDrafts))
    await hold.reached()
    await worker.kill()
    const next = await scene.startWorker('first', 'here')
    hold.release()
    await scene.rested(runId, 'SUCCEEDED')
    expect(await callsOf(runId)).toEqual([...fixCalls, drafts])
    expect(await attemptsOf(runId)).toEqual(['idle on first'])

    await next.kill()
    await scene.killExecution(runId)
    await scene.startWorker('other', 'there')
    await scene.oz('run', 'follow-up', runId, promptOf('refactor', lookFirst), '--watch')
    expect(await callsOf(runId)).toEqual([...fixCalls, drafts, look, ...refactorCalls])
    expect(await attemptsOf(runId)).toEqual(['lost on first', 'idle on other'])
    const { said, results } = lastRequest()
    expect(said).toEqual([promptOf('fix', leaveDrafts), promptOf('refactor', lookFirst)])
    expect(results).toHaveLength(fixCalls.length + 2 + refactorCalls.length)
    const found = JSON.parse(results[fixCalls.length + 1] ?? '').output
    expect(found).toContain(`${fixSubject}\n${firstSubject}\n M README.md\n?? drafts/check.sh\n`)
    expect(found).toContain(foundDrafts)

    const clone = await scene.checkOut(runId)
    await testIn(clone)
    await expectDrafts(clone)
    expect(await subjectsIn(clone)).toEqual([refactorSubject, fixSubject, firstSubject])
  },
)

linuxTest(
  'refactor: worker and agent die together; the next attempt goes on from the last step, with its files',
  async () => {
    const worker = await scene.startWorker('second', 'desk')
    const hold = scene.model.holdAt(5)
    const runId = await startRun(promptOf('refactor', leaveDrafts))
    await hold.reached()
    await worker.kill()
    await scene.killExecution(runId)
    hold.release()
    const next = await scene.startWorker('second', 'desk')
    await scene.rested(runId, 'SUCCEEDED')
    expect(await callsOf(runId)).toEqual([...refactorCalls, drafts])
    expect(await attemptsOf(runId)).toEqual(['ended on second', 'idle on second'])

    await next.kill()
    await scene.killExecution(runId)
    await scene.startWorker('laptop', 'bag')
    await scene.oz('run', 'follow-up', runId, promptOf('fix', lookFirst), '--watch')
    expect(await callsOf(runId)).toEqual([...refactorCalls, drafts, look, ...fixCalls])
    const { said, results } = lastRequest()
    expect(said).toEqual([promptOf('refactor', leaveDrafts), promptOf('fix', lookFirst)])
    expect(JSON.parse(results[refactorCalls.length + 1] ?? '').output).toContain(foundDrafts)

    const clone = await scene.checkOut(runId)
    await testIn(clone)
    await expectDrafts(clone)
    expect(await subjectsIn(clone)).toEqual([fixSubject, refactorSubject, firstSubject])
  },
)

linuxTest('server: the program in the background outlives the worker, and is gone with the machine', async () => {
  const worker = await scene.startWorker('third', 'rack')
  const hold = scene.model.holdAt(1)
  const runId = await startRun(promptOf('server', leaveDrafts))
  await hold.reached()
  await worker.kill()
  const next = await scene.startWorker('third', 'rack')
  hold.release()
  const ended = await scene.rested(runId, 'SUCCEEDED')
  expect(ended.status_message?.message).toContain('They add up to 99.99')
  const calls = await callsOf(runId)
  expect(calls.filter((tool) => tool !== 'read_command')).toEqual([
    'run_command',
    'write_to_command',
    'stop_command',
    drafts,
  ])
  expect(await attemptsOf(runId)).toEqual(['idle on third'])

  await next.kill()
  await scene.killExecution(runId)
  await scene.startWorker('fourth', 'cloud')
  await scene.oz('run', 'follow-up', runId, promptOf('fix', lookFirst), '--watch')
  expect(await callsOf(runId)).toEqual([...calls, look, ...fixCalls])
  const { said, results } = lastRequest()
  expect(said).toEqual([promptOf('server', leaveDrafts), promptOf('fix', lookFirst)])
  expect(results.join()).toContain('Linus  33.33')

  const clone = await scene.checkOut(runId)
  await testIn(clone)
  await expectDrafts(clone)
})

linuxTest('question: begun on one machine, asked on a second, answered on a third', async () => {
  const worker = await scene.startWorker('one', 'one')
  const hold = scene.model.holdAt(1)
  const runId = await startRun(promptOf('question', leaveDrafts))
  await hold.reached()
  await worker.kill()
  await scene.killExecution(runId)
  hold.release()
  const second = await scene.startWorker('two', 'two')
  await scene.rested(runId, 'BLOCKED')
  expect(await callsOf(runId)).toEqual(['run_command', drafts, 'ask'])
  expect(await attemptsOf(runId)).toEqual(['lost on one', 'idle on two'])

  await second.kill()
  await scene.killExecution(runId)
  await scene.startWorker('three', 'three')
  const { answer } = demoTasks.question
  await scene.oz('run', 'follow-up', runId, `${answer} ${lookFirst}`, '--watch')
  expect(await callsOf(runId)).toEqual(['run_command', drafts, 'ask', look, 'edit_files', 'run_command', 'run_command'])
  const { said, results } = lastRequest()
  expect(said).toEqual([promptOf('question', leaveDrafts), `${answer} ${lookFirst}`])
  expect(JSON.parse(results[3] ?? '').output).toContain(foundDrafts)

  const clone = await scene.checkOut(runId)
  await testIn(clone)
  await expectDrafts(clone)
  expect(await subjectsIn(clone)).toEqual(['Give left-over cents to the last people who pay', firstSubject])
  const bill = await run(process.execPath, ['src/main.js', '100', 'Ada', 'Bob', 'Eve'], { cwd: clone })
  expect(bill.stdout).toContain('Eve  33.34')
})

linuxTest('a fork works on in its own copy, and a new run continues the conversation of an ended one', async () => {
  const worker = await scene.startWorker('origin', 'origin')
  const runId = await startRun(promptOf('fix', leaveDrafts))
  const { conversation_id: conversationId } = await scene.rested(runId, 'SUCCEEDED')
  await worker.kill()
  await scene.killExecution(runId)
  const before = await scene.oz('run', 'diff', runId)

  await scene.startWorker('elsewhere', 'elsewhere')
  const fork = await scene.oz(
    'run',
    'fork',
    runId,
    '--prompt',
    promptOf('refactor', lookFirst),
    '--output-format',
    'json',
  )
  const { run_id: forkId } = JSON.parse(fork)
  const forked = await scene.rested(forkId, 'SUCCEEDED')
  expect(forked.conversation_id).not.toBe(conversationId)
  expect(lastRequest().said).toEqual([promptOf('fix', leaveDrafts), promptOf('refactor', lookFirst)])
  expect(JSON.parse(lastRequest().results[fixCalls.length + 1] ?? '').output).toContain(foundDrafts)
  expect(await callsOf(forkId)).toEqual([look, ...refactorCalls])
  expect(await scene.oz('run', 'diff', runId)).toBe(before)
  const inFork = await scene.checkOut(forkId)
  await testIn(inFork)
  await expectDrafts(inFork)
  expect(await subjectsIn(inFork)).toEqual([refactorSubject, fixSubject, firstSubject])

  const prompt = promptOf('server', lookFirst)
  const { run_id: nextId } = await scene.client.runs.create({ prompt, conversation_id: conversationId ?? '' })
  const next = await scene.rested(nextId, 'SUCCEEDED')
  expect(next.conversation_id).toBe(conversationId)
  expect(next.status_message?.message).toContain('They add up.')
  expect(lastRequest().said).toEqual([promptOf('fix', leaveDrafts), prompt])
  expect(JSON.parse(lastRequest().results[fixCalls.length + 1] ?? '').output).toContain(foundDrafts)
  const { steps } = await scene.client.conversations.get(conversationId ?? '')
  expect(steps).toHaveLength(2)
})

linuxTest('nothing that was started for a run is left', async () => {
  for (const id of scene.executionIds) expect(await findProcesses({ marker: `OZ_EXECUTION_ID=${id}` })).toEqual([])
})
