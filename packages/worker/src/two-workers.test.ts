import { execFileSync } from 'node:child_process'
import { randomUUID } from 'node:crypto'
import {
  closeSync,
  constants,
  existsSync,
  linkSync,
  openSync,
  readdirSync,
  readFileSync,
  renameSync,
  rmSync,
  writeFileSync,
  writeSync,
} from 'node:fs'
import { join } from 'node:path'
import { findProcesses } from '@openoz/machine'
import { expect, test } from 'vitest'
import { spawnWorker } from './test-support/child-worker.ts'
import { startControlPlane } from './test-support/control-plane.ts'
import { until } from './test-support/until.ts'
import { createFolder, startWorker } from './test-support/worker.ts'

/** Two worker processes share a machine, its state folder and its workspaces, as they do by default. */

const waiting = (folder: string) => `until [ -e "${folder}/go" ] || ! [ -e "${folder}/bin" ]; do sleep 0.05; done`

test('a run that comes back to another worker while its first one hangs: the first task is ended, and the new workspace is left alone', async () => {
  using folder = createFolder()
  await using cpA = await startControlPlane()
  await using cpB = await startControlPlane()
  const oz = `[ -e first ] || [ -e second ] || { touch first; ${waiting(folder.path)}; }; sleep 600`
  await using hung = spawnWorker(cpA, folder.path, { oz, flags: { workerId: 'worker-a', drain: 'stop' } })
  await cpA.message('worker_hello')
  const first = cpA.assign()
  const workspace = join(hung.stateDir, 'workspaces', first.task_id)
  await until('the first agent', () => existsSync(join(workspace, 'first')))
  await cpA.message('task_step', ({ step, status }) => step === 'start' && status === 'completed')
  hung.signal('SIGSTOP')

  await using worker = startWorker(cpB, folder.path, {
    workerId: 'worker-b',
    oz: `touch second; ${waiting(folder.path)}; exit 0`,
  })
  await worker.listening()
  const second = cpB.assign({ task_id: first.task_id })
  await until('the second agent', () => existsSync(join(workspace, 'second')))
  expect(existsSync(join(workspace, 'first'))).toBe(false)
  expect(await findProcesses({ marker: `OZ_EXECUTION_ID=${first.execution_id}` })).toEqual([])

  // It wakes, finds its agent killed, reports that, and would have removed what it thinks is its own.
  hung.signal('SIGCONT')
  await cpA.outcome(first.execution_id)
  await until('its folder to go', () => !existsSync(join(hung.stateDir, 'tasks', first.execution_id)))
  expect(hung.log()).toContain('The workspace belongs to a newer execution of the run')
  expect(readdirSync(workspace)).toEqual(['second'])
  expect((await findProcesses({ marker: `OZ_EXECUTION_ID=${second.execution_id}` })).length).toBeGreaterThan(0)
  writeFileSync(join(folder.path, 'go'), '')
  expect((await cpB.outcome(second.execution_id)).type).toBe('task_completed')
  await worker.leavesNothing()
})

test('a second process of the same id takes over what the first one had when that dies, and says hello anew', async () => {
  using folder = createFolder()
  await using cp = await startControlPlane()
  const oz = `touch runs; ${waiting(folder.path)}; exit 4`
  await using first = spawnWorker(cp, folder.path, { oz })
  const { instances: [instance] = [] } = await cp.message('worker_hello')
  const { task_id, execution_id } = cp.assign()
  await until('the agent', () => existsSync(join(first.stateDir, 'workspaces', task_id, 'runs')))
  await cp.message('task_step', ({ step, status }) => step === 'start' && status === 'completed')

  await using worker = startWorker(cp, folder.path, { oz, timing: { sweepEveryMs: 100 } })
  await worker.listening()
  const hello = (number: number) => until('a hello', () => cp.messagesOf('worker_hello')[number - 1]?.data)
  expect(await hello(2)).toMatchObject({ running: [] })
  expect((await hello(2)).instances).toHaveLength(1)
  await first.kill()
  expect(await hello(3)).toMatchObject({
    running: [{ task_id, execution_id }],
    instances: [expect.any(String), instance],
  })
  writeFileSync(join(folder.path, 'go'), '')
  expect(await cp.outcome(execution_id)).toMatchObject({ data: { exit_code: 4 } })
  expect(cp.messagesOf('task_failed')).toHaveLength(1)
  await worker.leavesNothing()
})

test('of two processes that start together after a death, one takes each task', async () => {
  using folder = createFolder()
  await using cp = await startControlPlane()
  const oz = `${waiting(folder.path)}; exit 4`
  await using first = spawnWorker(cp, folder.path, { oz })
  await cp.message('worker_hello')
  const assignments = Array.from({ length: 5 }, () => cp.assign())
  const started = () =>
    cp.messagesOf('task_step').filter(({ data }) => data.step === 'start' && data.status === 'completed')
  await until('the agents', () => started().length === 5)
  await first.kill()
  await using one = startWorker(cp, folder.path, { oz })
  await using other = startWorker(cp, folder.path, { oz })
  await Promise.all([one.listening(), other.listening()])
  const hellos = await until(
    'the hellos',
    () => cp.messagesOf('worker_hello').length > 2 && cp.messagesOf('worker_hello'),
  )
  const named = hellos.flatMap(({ data }) => data.running.map(({ execution_id }) => execution_id))
  expect(named.toSorted()).toEqual(assignments.map(({ execution_id }) => execution_id).toSorted())
  writeFileSync(join(folder.path, 'go'), '')
  for (const { execution_id } of assignments) await cp.outcome(execution_id)
  await one.leavesNothing()
  expect(cp.messagesOf('task_failed')).toHaveLength(5)
})

test('a task that the control plane calls over and nobody here follows is ended, and said to be gone', async () => {
  using folder = createFolder()
  await using cp = await startControlPlane()
  await using worker = startWorker(cp, folder.path)
  await worker.listening()
  const { execution_id, task_id } = cp.assign()
  await cp.outcome(execution_id)
  await worker.leavesNothing()
  cp.send({ type: 'task_superseded', data: { task_id, execution_id } })
  expect(await cp.message('task_gone')).toEqual({ task_id, execution_id })
})

test('of a task that another live process of the id has, nothing is said', async () => {
  using folder = createFolder()
  await using cpA = await startControlPlane()
  await using cpB = await startControlPlane()
  await using one = startWorker(cpA, folder.path, { oz: 'sleep 600' })
  await using other = startWorker(cpB, folder.path, { oz: 'sleep 600' })
  await Promise.all([one.listening(), other.listening()])
  const { execution_id, task_id } = cpA.assign()
  await one.event('task_started')
  cpB.send({ type: 'task_superseded', data: { task_id, execution_id } })
  // Of this one nothing is here: looked for later and longer, it is told when the word about the first would have been.
  const nobodys = { task_id: randomUUID(), execution_id: randomUUID() }
  cpB.send({ type: 'task_superseded', data: nobodys })
  await cpB.message('task_gone', (data) => data.execution_id === nobodys.execution_id)
  expect(cpB.messagesOf('task_gone').map(({ data }) => data)).toEqual([nobodys])
  expect((await findProcesses({ marker: `OZ_EXECUTION_ID=${execution_id}` })).length).toBeGreaterThan(0)
})

test('of a dead process whose own file was lost with the power, the records of its tasks say whose they are', async () => {
  using folder = createFolder()
  await using cp = await startControlPlane()
  const oz = `${waiting(folder.path)}; exit 4`
  await using first = spawnWorker(cp, folder.path, { oz })
  const { instances: [instance = ''] = [] } = await cp.message('worker_hello')
  const { task_id, execution_id } = cp.assign()
  await cp.message('task_step', ({ step, status }) => step === 'start' && status === 'completed')
  const file = join(first.stateDir, 'instances', instance, 'worker.json')
  // While it lives, its tasks are its own.
  writeFileSync(file, '')
  await using worker = startWorker(cp, folder.path, { oz, timing: { sweepEveryMs: 100 } })
  await worker.listening()
  const hello = (number: number) => until('a hello', () => cp.messagesOf('worker_hello')[number - 1]?.data)
  expect(await hello(2)).toMatchObject({ running: [] })
  await first.kill()
  expect(await hello(3)).toMatchObject({
    running: [{ task_id, execution_id }],
    instances: [expect.any(String), instance],
  })
  writeFileSync(join(folder.path, 'go'), '')
  expect(await cp.outcome(execution_id)).toMatchObject({ data: { exit_code: 4 } })
  await worker.leavesNothing()
})

/** A file that cannot be read until `open` is called. */
function hold(folder: string, file: string): { open(): void } & Disposable {
  const content = readFileSync(file)
  const pipe = join(folder, 'pipe')
  execFileSync('mkfifo', [pipe])
  rmSync(file)
  linkSync(pipe, file)
  const open = () => {
    writeFileSync(join(folder, 'content'), content)
    renameSync(join(folder, 'content'), file)
    // Whoever has the pipe open reads it from there.
    const handle = openSync(pipe, constants.O_RDWR)
    writeSync(handle, content)
    closeSync(handle)
  }
  let isOpen = false
  const once = () => {
    if (!isOpen) open()
    isOpen = true
  }
  return { open: once, [Symbol.dispose]: once }
}

test('a task that takes its time keeps no other from being taken over, and its worker is not named before', async () => {
  using folder = createFolder()
  await using cp = await startControlPlane()
  const oz = `${waiting(folder.path)}; exit 4`
  await using first = spawnWorker(cp, folder.path, { oz })
  const { instances: [instance] = [] } = await cp.message('worker_hello')
  const assignments = Array.from({ length: 5 }, () => cp.assign())
  const started = () =>
    cp.messagesOf('task_step').filter(({ data }) => data.step === 'start' && data.status === 'completed')
  await until('the agents', () => started().length === 5)
  const tasks = join(first.stateDir, 'tasks')
  const [slow = '', ...others] = readdirSync(tasks)
  const recordOf = (id: string) => join(tasks, id, 'task.json')

  await using worker = startWorker(cp, folder.path, { oz, timing: { sweepEveryMs: 100 } })
  await worker.listening()
  // Read when it is taken over.
  using held = hold(folder.path, join(tasks, slow, 'token'))
  await first.kill()
  const own = await until('its hello', () => cp.messagesOf('worker_hello')[1]?.data.instances?.[0])
  await until('the others', () => others.every((id) => JSON.parse(readFileSync(recordOf(id), 'utf8')).instance === own))
  // In the middle of it the connection breaks.
  cp.socket().terminate()
  const hello = (number: number) => until('a hello', () => cp.messagesOf('worker_hello')[number - 1]?.data)
  expect(await hello(3)).toMatchObject({ running: [], instances: [own] })
  held.open()
  const all = await hello(4)
  expect(all.instances).toEqual([own, instance])
  expect(all.running.map(({ execution_id }) => execution_id).toSorted()).toEqual([slow, ...others].toSorted())
  writeFileSync(join(folder.path, 'go'), '')
  for (const { execution_id } of assignments) await cp.outcome(execution_id)
  await worker.leavesNothing()
})
