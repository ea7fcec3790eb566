import { existsSync, readFileSync, rmSync, statSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'
import { AppError } from '@openoz/protocol'
import { workerCloseCodes } from '@openoz/protocol/schemas'
import { expect, test } from 'vitest'
import { createAssignment, startControlPlane } from './test-support/control-plane.ts'
import { until } from './test-support/until.ts'
import { createFolder, startWorker, workerKey, writeOz } from './test-support/worker.ts'

test('a task is claimed, started, reported and leaves nothing behind', async () => {
  using folder = createFolder()
  await using cp = await startControlPlane()
  await using worker = startWorker(cp, folder.path, { maxConcurrentTasks: 3 })
  const hello = await cp.message('worker_hello')
  expect(hello).toMatchObject({ protocol: 1, backend: 'direct', max_concurrent_tasks: 3, running: [] })
  expect(cp.state.requests[0]?.headers.authorization).toBe(`Bearer ${workerKey}`)
  expect(cp.state.requests[0]?.headers['x-oz-worker-protocol']).toBe('1')
  expect(cp.state.requests[0]?.url).toBe(`${cp.socketPath}?worker_id=test-worker`)

  const { execution_id, task_id } = cp.assign()
  const outcome = await cp.outcome(execution_id)

  expect(outcome).toMatchObject({ type: 'task_completed', data: { task_id, execution_id } })
  const types = cp.state.messages.map(({ type }) => type)
  expect(types.indexOf('task_claimed')).toBeLessThan(types.indexOf('task_completed'))
  const steps = cp.messagesOf('task_step').map(({ data }) => `${data.step} ${data.status}`)
  expect(steps).toEqual(['worker_setup started', 'worker_setup completed', 'start started', 'start completed'])
  await worker.leavesNothing()
  expect(worker.log()).toContain('Successfully connected to server')
  expect(worker.log()).toContain('Listening for tasks')
  await until('a free slot', () => cp.messagesOf('worker_status').at(-1)?.data.active === 0)
})

test('a full worker rejects, and takes again when a task has ended', async () => {
  using folder = createFolder()
  await using cp = await startControlPlane()
  await using worker = startWorker(cp, folder.path, {
    maxConcurrentTasks: 1,
    oz: `[ "$TASK_ID" != "$LONG" ] || sleep 600`,
  })
  await worker.listening()
  const first = createAssignment()
  cp.send({ type: 'task_assignment', data: { ...first, env_vars: { LONG: first.task_id } } })
  await cp.message('task_claimed')
  const second = cp.assign()
  const rejected = await cp.message('task_rejected')
  expect(rejected).toMatchObject({ execution_id: second.execution_id, reason: 'worker at maximum concurrency' })

  cp.send({ type: 'task_cancellation', data: { task_id: first.task_id } })
  expect(await cp.outcome(first.execution_id)).toMatchObject({
    type: 'task_completed',
    data: { task_state: 'CANCELLED' },
  })
  await until('a free slot', () => cp.messagesOf('worker_status').at(-1)?.data.active === 0)
  const third = cp.assign()
  expect((await cp.outcome(third.execution_id)).type).toBe('task_completed')
})

test('an outcome that comes while the connection is broken is delivered on the next one', async () => {
  using folder = createFolder()
  await using cp = await startControlPlane()
  await using worker = startWorker(cp, folder.path, { oz: `until [ -e "${folder.path}/go" ]; do sleep 0.05; done` })
  await worker.listening()
  const { execution_id, task_id } = cp.assign()
  await cp.message('task_step', ({ step, status }) => step === 'start' && status === 'completed')

  cp.state.refusal = { code: 'server_draining', details: {} }
  cp.socket().terminate()
  await until('a failed reconnect', () => cp.state.requests.length > 2)
  writeFileSync(join(folder.path, 'go'), '')
  await worker.event('task_ended')
  expect(cp.messagesOf('task_completed')).toEqual([])
  cp.state.refusal = undefined

  expect(await cp.outcome(execution_id)).toMatchObject({ type: 'task_completed', data: { task_id } })
})

test('a claim that the broken connection may have swallowed is said again, after a hello that names what runs', async () => {
  using folder = createFolder()
  await using cp = await startControlPlane()
  await using worker = startWorker(cp, folder.path, {
    oz: 'sleep 600',
    timing: { connection: { backoffBaseMs: 20, pingEveryMs: 60_000 } },
  })
  await worker.listening()
  const { execution_id, task_id } = cp.assign()
  await cp.message('task_claimed')
  const before = cp.state.messages.length
  cp.socket().terminate()

  await until('the claim again', () => cp.messagesOf('task_claimed').length > 1)
  const again = cp.state.messages.slice(before).filter(({ type }) => type !== 'task_step')
  expect(again[0]).toMatchObject({ type: 'worker_hello', data: { running: [{ task_id, execution_id }] } })
  expect(again[1]).toMatchObject({ type: 'task_claimed', data: { execution_id } })
})

test.each([
  ['api_key_unknown', { suffix: '…cdef' }, 'No API key matches'],
  ['worker_key_other_worker', { allowed: 'other', workerId: 'test-worker' }, 'as worker other only'],
] as const)('a worker that is refused with %s says why and ends with 1', async (code, details, words) => {
  using folder = createFolder()
  await using cp = await startControlPlane()
  cp.state.refusal = { code, details }
  await using worker = startWorker(cp, folder.path)
  expect(await worker.ended).toBe(1)
  expect(worker.log()).toContain(words)
  expect(worker.log()).not.toContain(workerKey)
})

test('a close code that says not to come back ends the worker with 1', async () => {
  using folder = createFolder()
  await using cp = await startControlPlane()
  await using worker = startWorker(cp, folder.path)
  await worker.listening()
  cp.socket().close(workerCloseCodes.keyRefused, 'the key was revoked')
  expect(await worker.ended).toBe(1)
  expect(worker.log()).toContain('the key was revoked')
})

test('a worker says which team it works for, since runs of other teams never come to it', async () => {
  using folder = createFolder()
  await using cp = await startControlPlane()
  await using worker = startWorker(cp, folder.path)
  await until('the team', () => worker.log().includes('"teams":["platform"]'))
  expect(worker.log()).toContain('Takes runs of the team of its key only')
})

test('malformed and unknown messages are logged without their content, and change nothing', async () => {
  using folder = createFolder()
  await using cp = await startControlPlane()
  await using worker = startWorker(cp, folder.path)
  await worker.listening()
  cp.send('{"type":')
  cp.send('[]')
  cp.send({ type: 'task_assignment', data: { task_id: '../../etc', execution_token: 'et-hidden' } })
  cp.send({ type: 'brand_new', data: { secret: 'et-hidden' } })
  cp.send({ type: 'task_cancellation', data: { task_id: createAssignment().task_id } })
  const { execution_id } = cp.assign()
  expect((await cp.outcome(execution_id)).type).toBe('task_completed')
  expect(worker.log()).toContain('is no message; ignored')
  expect(worker.log()).toContain('malformed message; ignored')
  expect(worker.log()).toContain('unknown type; ignored')
  expect(worker.log()).not.toContain('et-hidden')
})

test('SIGTERM drains: what runs is ended and reported for a retry elsewhere, new offers are rejected', async () => {
  using folder = createFolder()
  await using cp = await startControlPlane()
  await using worker = startWorker(cp, folder.path, { oz: `trap '' TERM; while :; do sleep 0.1; done` })
  await worker.listening()
  const { execution_id } = cp.assign()
  await worker.event('task_started')
  worker.stop()
  await cp.message('worker_status', ({ draining }) => draining)
  const late = cp.assign()
  expect(await cp.message('task_rejected')).toMatchObject({
    execution_id: late.execution_id,
    reason: 'worker is draining',
  })
  expect(await cp.outcome(execution_id)).toMatchObject({
    type: 'task_failed',
    data: { failure_reason: 'graceful_shutdown' },
  })
  expect(await worker.ended).toBe(0)
  await worker.leavesNothing()
})

test('a second signal does not wait for an agent that ignores the first', async () => {
  using folder = createFolder()
  await using cp = await startControlPlane()
  await using worker = startWorker(cp, folder.path, {
    oz: `trap '' TERM; while :; do sleep 0.1; done`,
    timing: { graceMs: 600_000 },
  })
  await worker.listening()
  const { execution_id } = cp.assign()
  await worker.event('task_started')
  worker.stop()
  worker.stopNow()
  expect(await worker.ended).toBe(0)
  expect(await cp.outcome(execution_id)).toMatchObject({ data: { failure_reason: 'graceful_shutdown' } })
})

test.each([
  ['exit 0', 0],
  ['exit 3', 1],
])('one-shot: after a task that does %j the worker ends with %i', async (oz, exitCode) => {
  using folder = createFolder()
  await using cp = await startControlPlane()
  await using worker = startWorker(cp, folder.path, { oz: `sleep 0.2; ${oz}`, oneShot: true, maxConcurrentTasks: 1 })
  await worker.listening()
  const { execution_id } = cp.assign()
  cp.assign()
  await cp.message('task_rejected')
  expect(await worker.ended).toBe(exitCode)
  expect(await cp.outcome(execution_id)).toBeDefined()
})

test('a worker without oz does not start', async () => {
  using folder = createFolder()
  const cp = { url: 'http://127.0.0.1:1' }
  await using worker = startWorker(cp, folder.path, { direct: { ozPath: join(folder.path, 'no-oz') } })
  await expect(worker.ended).rejects.toMatchObject({ code: 'oz_missing' })
})

test('an oz that disappears later fails the task, not the worker', async () => {
  using folder = createFolder()
  await using cp = await startControlPlane()
  await using worker = startWorker(cp, folder.path)
  await worker.listening()
  rmSync(join(folder.path, 'bin', 'oz'))
  const { execution_id } = cp.assign()
  expect(await cp.outcome(execution_id)).toMatchObject({
    type: 'task_failed',
    data: { failure_reason: 'agent_invocation', message: expect.stringContaining('cannot start agents') },
  })
  expect(existsSync(worker.stateDir)).toBe(true)
})

test('a workspace root that cannot be used any more fails the task, not the worker', async () => {
  using folder = createFolder()
  await using cp = await startControlPlane()
  const workspaceRoot = join(folder.path, 'workspaces')
  await using worker = startWorker(cp, folder.path, { direct: { workspaceRoot } })
  await worker.listening()
  rmSync(workspaceRoot, { recursive: true })
  writeFileSync(workspaceRoot, '')
  const { execution_id } = cp.assign()
  expect(await cp.outcome(execution_id)).toMatchObject({
    type: 'task_failed',
    data: { failure_reason: 'workspace_setup', message: expect.stringContaining(workspaceRoot) },
  })
})

test('a workspace root that cannot be written keeps the worker from starting', async () => {
  using folder = createFolder()
  const cp = { url: 'http://127.0.0.1:1' }
  // Root may write everywhere, but not below a file.
  const workspaceRoot = join(writeOz(folder.path, ''), 'workspaces')
  await using worker = startWorker(cp, folder.path, { direct: { workspaceRoot } })
  const error = await worker.ended.catch((reason: unknown) => reason)
  expect(error).toBeInstanceOf(AppError)
  expect(error).toMatchObject({
    code: 'workspace_root_not_writable',
    details: { folder: workspaceRoot, problem: 'ENOTDIR' },
  })
})

test('a reassigned run waits until its earlier execution has ended here', async () => {
  using folder = createFolder()
  await using cp = await startControlPlane()
  await using worker = startWorker(cp, folder.path, { oz: 'sleep 600' })
  await worker.listening()
  const first = cp.assign()
  await worker.event('task_started')
  const second = cp.assign({ task_id: first.task_id })
  expect(await cp.message('task_rejected')).toMatchObject({ execution_id: second.execution_id })

  cp.send({ type: 'task_superseded', data: { task_id: first.task_id, execution_id: first.execution_id } })
  expect(await worker.event('task_ended')).toMatchObject({ result: 'abandoned' })
  expect(cp.messagesOf('task_completed')).toEqual([])
  expect(cp.messagesOf('task_failed')).toEqual([])
  const third = cp.assign({ task_id: first.task_id })
  await cp.message('task_claimed', ({ execution_id }) => execution_id === third.execution_id)
})

test('the files of a task are private, and what is told of it holds no token', async () => {
  using folder = createFolder()
  await using cp = await startControlPlane()
  await using worker = startWorker(cp, folder.path, {
    oz: 'cat "$OZ_EXECUTION_TOKEN_FILE" >&2; cp "$OZ_EXECUTION_TOKEN_FILE" "$OZ_WORKSPACE_ROOT/seen"; sleep 1; exit 9',
    cleanup: false,
  })
  await worker.listening()
  const { execution_id, execution_token = '', task_id } = cp.assign()
  await worker.event('task_started')
  const control = join(worker.stateDir, 'tasks', execution_id)
  for (const file of ['token', 'task.json', 'agent/token', 'agent/variables.sh', 'agent.log']) {
    expect(statSync(join(control, file)).mode & 0o077, file).toBe(0)
  }
  const record = JSON.parse(readFileSync(join(control, 'task.json'), 'utf8'))
  expect(record).toMatchObject({ version: 1, task_id, execution_id, worker: { pid: process.pid } })
  const outcome = await cp.outcome(execution_id)
  expect(outcome).toMatchObject({ type: 'task_failed', data: { exit_code: 9, failure_reason: 'container_exit' } })
  expect(readFileSync(join(worker.workspaceRoot, task_id, 'seen'), 'utf8')).toBe(execution_token)
  expect(JSON.stringify(cp.state.messages)).not.toContain(execution_token)
  expect(worker.log()).not.toContain(execution_token)
})
