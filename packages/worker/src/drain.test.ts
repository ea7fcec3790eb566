import { randomUUID } from 'node:crypto'
import { existsSync, mkdirSync, readdirSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'
import { findProcesses } from '@openoz/machine'
import { expect, test } from 'vitest'
import { spawnWorker } from './test-support/child-worker.ts'
import { startControlPlane } from './test-support/control-plane.ts'
import { until } from './test-support/until.ts'
import { createFolder, startWorker } from './test-support/worker.ts'

const waiting = (folder: string) => `until [ -e "${folder}/go" ] || ! [ -e "${folder}/bin" ]; do sleep 0.05; done`

const processesOf = (executionId: string) => findProcesses({ marker: `OZ_EXECUTION_ID=${executionId}` })

test('SIGTERM leaves running tasks to the next process, when nothing else was said', async () => {
  using folder = createFolder()
  await using cp = await startControlPlane()
  await using former = spawnWorker(cp, folder.path, { oz: `touch runs; ${waiting(folder.path)}` })
  await cp.message('worker_hello')
  const { task_id, execution_id } = cp.assign()
  await until('the agent', () => existsSync(join(former.stateDir, 'workspaces', task_id, 'runs')))
  await cp.message('task_step', ({ step, status }) => step === 'start' && status === 'completed')
  former.signal('SIGTERM')
  expect(await former.exited).toEqual([0, null])
  expect(cp.messagesOf('worker_status').at(-1)?.data).toEqual({ active: 1, draining: true })
  expect([...cp.messagesOf('task_failed'), ...cp.messagesOf('task_completed')]).toEqual([])
  expect((await processesOf(execution_id)).length).toBeGreaterThan(0)

  await using worker = startWorker(cp, folder.path)
  await worker.listening()
  expect((await until('the hello', () => cp.messagesOf('worker_hello')[1])).data.running).toEqual([
    { task_id, execution_id },
  ])
  writeFileSync(join(folder.path, 'go'), '')
  expect((await cp.outcome(execution_id)).type).toBe('task_completed')
  await worker.leavesNothing()
})

test('a worker that leaves ends what has no agent yet, and reports it', async () => {
  using folder = createFolder()
  await using cp = await startControlPlane()
  await using worker = startWorker(cp, folder.path, {
    drain: 'leave',
    direct: { setupCommand: 'touch setup; sleep 600' },
  })
  await worker.listening()
  const { task_id, execution_id } = cp.assign()
  await until('the setup', () => existsSync(join(worker.workspaceRoot, task_id, 'setup')))
  worker.stop()
  expect(await worker.ended).toBe(0)
  expect(await cp.outcome(execution_id)).toMatchObject({ data: { failure_reason: 'graceful_shutdown' } })
  expect(worker.leftovers()).toEqual({ tasks: [], workspaces: [], users: [] })
})

test('with --drain wait a worker takes nothing new and ends when its tasks have', async () => {
  using folder = createFolder()
  await using cp = await startControlPlane()
  await using worker = startWorker(cp, folder.path, { drain: 'wait', oz: waiting(folder.path) })
  await worker.listening()
  const { execution_id } = cp.assign()
  await worker.event('task_started')
  worker.stop()
  await cp.message('worker_status', ({ draining }) => draining)
  const late = cp.assign()
  expect(await cp.message('task_rejected')).toMatchObject({ execution_id: late.execution_id })
  expect((await processesOf(execution_id)).length).toBeGreaterThan(0)
  writeFileSync(join(folder.path, 'go'), '')
  expect(await worker.ended).toBe(0)
  expect((await cp.outcome(execution_id)).type).toBe('task_completed')
  expect(worker.leftovers()).toEqual({ tasks: [], workspaces: [], users: [] })
})

test.each(['wait', 'stop'])('with --drain %s a second signal ends all tasks at once', async (drain) => {
  using folder = createFolder()
  await using cp = await startControlPlane()
  const oz = `trap '' TERM; touch runs; while :; do sleep 0.1; done`
  await using former = spawnWorker(cp, folder.path, { oz, flags: { drain } })
  await cp.message('worker_hello')
  const { task_id, execution_id } = cp.assign()
  await until('the agent', () => existsSync(join(former.stateDir, 'workspaces', task_id, 'runs')))
  await cp.message('task_step', ({ step, status }) => step === 'start' && status === 'completed')
  former.signal('SIGTERM')
  await cp.message('worker_status', ({ draining }) => draining)
  former.signal('SIGTERM')
  expect(await cp.outcome(execution_id)).toMatchObject({ data: { failure_reason: 'graceful_shutdown' } })
  expect(await former.exited).toEqual([0, null])
  expect(await processesOf(execution_id)).toEqual([])
})

test('a stopping worker without a control plane ends its tasks, and the next one reports what it could not', async () => {
  using folder = createFolder()
  await using cp = await startControlPlane()
  const execution = await (async () => {
    await using former = startWorker(cp, folder.path, { oz: 'sleep 600', timing: { settleMs: 300 } })
    await former.listening()
    const { execution_id, task_id } = cp.assign()
    await former.event('task_started')
    cp.state.refusal = { code: 'server_draining', details: {} }
    cp.socket().terminate()
    await former.event('disconnected')
    former.stop()
    expect(await former.ended).toBe(0)
    expect(await processesOf(execution_id)).toEqual([])
    expect(await former.event('task_ended')).toMatchObject({ executionId: execution_id })
    return { execution_id, task_id }
  })()
  cp.state.refusal = undefined
  await using worker = startWorker(cp, folder.path)
  await worker.listening()
  expect((await until('the hello', () => cp.messagesOf('worker_hello')[1])).data.finishing).toEqual([
    { task_id: execution.task_id, execution_id: execution.execution_id },
  ])
  expect(await cp.outcome(execution.execution_id)).toMatchObject({ data: { failure_reason: 'graceful_shutdown' } })
  await worker.leavesNothing()
})

test('an operator drains a worker and thinks better of it', async () => {
  using folder = createFolder()
  await using cp = await startControlPlane()
  await using worker = startWorker(cp, folder.path, { oz: waiting(folder.path) })
  await worker.listening()
  const running = cp.assign()
  await worker.event('task_started')
  const said = () => worker.lines.map((line) => JSON.parse(line).msg).filter((words) => /operator/i.test(words))
  // As a control plane of before says it at every connect.
  cp.send({ type: 'worker_drain', data: { draining: false } })
  cp.send({ type: 'worker_drain', data: { draining: true } })
  await cp.message('worker_status', ({ draining }) => draining)
  const refused = cp.assign()
  expect(await cp.message('task_rejected')).toMatchObject({
    execution_id: refused.execution_id,
    reason: 'worker is draining',
  })
  cp.send({ type: 'worker_drain', data: { draining: false } })
  await until('the end of it', () => cp.messagesOf('worker_status').at(-1)?.data.draining === false)
  expect(said()).toEqual([
    'An operator drains this worker: no new tasks; running ones go on',
    'An operator has ended the drain: this worker takes new tasks again',
  ])
  writeFileSync(join(folder.path, 'go'), '')
  const taken = cp.assign()
  for (const { execution_id } of [running, taken]) expect((await cp.outcome(execution_id)).type).toBe('task_completed')
})

test('one-shot: a task whose execution was over before its agent had ended well is no failure', async () => {
  using folder = createFolder()
  await using cp = await startControlPlane()
  cp.state.takesEvents = false
  await using worker = startWorker(cp, folder.path, {
    oneShot: true,
    maxConcurrentTasks: 1,
    oz: `printf '{"n":1,"type":"notice","at":"2026-01-01T00:00:00.000Z","data":{}}\\n' >"$OZ_SPOOL_DIR/events-000000000001.jsonl"; exit 0`,
    timing: { deliveryTimeoutMs: 60_000 },
  })
  await worker.listening()
  const { task_id, execution_id } = cp.assign()
  await cp.message('task_finishing')
  cp.send({ type: 'task_superseded', data: { task_id, execution_id } })
  cp.state.takesEvents = true
  expect(await cp.message('task_gone')).toEqual({ task_id, execution_id })
  expect(await worker.ended).toBe(0)
})

test.each([
  ['with --drain wait', { drain: 'wait' }],
  ['of one task', { oneShot: true, maxConcurrentTasks: 1 }],
] as const)('a worker %s does not wait for ever for a control plane that went away', async (_, options) => {
  using folder = createFolder()
  await using cp = await startControlPlane()
  await using worker = startWorker(cp, folder.path, {
    ...options,
    oz: waiting(folder.path),
    timing: { finishMs: 2_000, settleMs: 100 },
  })
  await worker.listening()
  const { execution_id } = cp.assign()
  await worker.event('task_started')
  await cp[Symbol.asyncDispose]()
  await worker.event('disconnected')
  if ('drain' in options) worker.stop()
  writeFileSync(join(folder.path, 'go'), '')
  await worker.ended
  expect(worker.leftovers().tasks).toEqual([execution_id])
})

test('a worker whose end of a task was not heard leaves its instance for the next process to name', async () => {
  using folder = createFolder()
  await using cp = await startControlPlane()
  await using worker = startWorker(cp, folder.path, { timing: { finishMs: 200, settleMs: 200 } })
  await worker.listening()
  cp.state.answersPings = false
  // Its folder cannot be made, and nothing on disk will say that it was claimed.
  const executionId = randomUUID()
  mkdirSync(join(worker.stateDir, 'tasks', executionId))
  cp.assign({ execution_id: executionId })
  await cp.outcome(executionId)
  worker.stop()
  await worker.ended
  expect(readdirSync(join(worker.stateDir, 'instances'))).toEqual(cp.messagesOf('worker_hello')[0]?.data.instances)
})
