import { type ChildProcess, spawn } from 'node:child_process'
import { randomUUID } from 'node:crypto'
import { once } from 'node:events'
import { existsSync, mkdirSync, readdirSync, readFileSync, symlinkSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'
import { lockFolder } from '@openoz/machine'
import { expect, test } from 'vitest'
import { stateMark } from '../installation.ts'
import { startControlPlane } from '../test-support/control-plane.ts'
import { until } from '../test-support/until.ts'
import { createFolder, startWorker } from '../test-support/worker.ts'

/** What nobody answers for is found and cleared, with or without a control plane; what is somebody's is not touched. */

const timing = { sweepEveryMs: 100 }
const installation = '7b1d3c8e-0000-4000-8000-000000000001'

/** A state folder as workers before us left it. */
function stateOf(folder: string): string {
  const state = join(folder, 'state')
  mkdirSync(join(state, 'tasks'), { recursive: true })
  writeFileSync(join(state, 'installation'), `${installation}\n`)
  return state
}

function daemon(env: NodeJS.ProcessEnv, uid?: number): { child: ChildProcess; gone: Promise<unknown> } & Disposable {
  const child = spawn('sleep', ['613'], {
    env: { PATH: process.env.PATH, ...env },
    detached: true,
    uid,
    stdio: 'ignore',
  })
  return { child, gone: once(child, 'exit'), [Symbol.dispose]: () => child.kill('SIGKILL') }
}

const marked = (executionId: string, state = installation) => ({
  OZ_EXECUTION_ID: executionId,
  OZ_WORKER_STATE: stateMark(state, executionId),
})

/** No control plane at all: what is swept now is swept without one. */
const nowhere = { url: 'http://127.0.0.1:1' }

test('processes of a task that has no folder are ended, without a control plane; those of another installation are not', async () => {
  using folder = createFolder()
  stateOf(folder.path)
  using stray = daemon(marked(randomUUID()))
  // What a tool of the task started as a run of its own has another execution in its environment.
  using nested = daemon({ ...marked(randomUUID()), OZ_EXECUTION_ID: randomUUID() })
  using others = daemon(marked(randomUUID(), randomUUID()))
  using local = daemon({ OZ_EXECUTION_ID: randomUUID() })
  await using worker = startWorker(nowhere, folder.path, { timing })
  await Promise.all([stray.gone, nested.gone])
  await until('the log', () => worker.log().includes('Processes of a task that is no more were ended'))
  expect([others.child.exitCode, others.child.signalCode, local.child.exitCode, local.child.signalCode]).toEqual([
    null,
    null,
    null,
    null,
  ])
})

test.skipIf(process.getuid?.() !== 0)(
  'a daemon that has cleared its environment is found by the user of its task, and that user is free again',
  async () => {
    using folder = createFolder()
    const state = stateOf(folder.path)
    mkdirSync(join(state, 'users'))
    writeFileSync(join(state, 'users', '65501'), randomUUID())
    using left = daemon({}, 65_501)
    await using worker = startWorker(nowhere, folder.path, { timing })
    await left.gone
    await until('the user', () => worker.leftovers().users.length === 0)
  },
)

test.skipIf(process.getuid?.() !== 0)(
  'a user whose processes are another installation’s is given back, and they go on',
  async () => {
    using folder = createFolder()
    const state = stateOf(folder.path)
    mkdirSync(join(state, 'users'))
    writeFileSync(join(state, 'users', '65502'), randomUUID())
    using theirs = daemon(marked(randomUUID(), randomUUID()), 65_502)
    await using worker = startWorker(nowhere, folder.path, { timing })
    await until('the user', () => worker.leftovers().users.length === 0)
    expect([theirs.child.exitCode, theirs.child.signalCode]).toEqual([null, null])
  },
)

test.each([
  ['torn', '{"version": 1, "worker_'],
  ['of a newer version', JSON.stringify({ version: 2, worker: { new: true } })],
])('a record that is %s is set aside with everything beside it, and its processes are ended', async (_, record) => {
  using folder = createFolder()
  const state = stateOf(folder.path)
  const executionId = randomUUID()
  const control = join(state, 'tasks', executionId)
  mkdirSync(join(control, 'owner'), { recursive: true })
  mkdirSync(join(control, 'spool'))
  writeFileSync(join(control, 'spool', 'events-000000000001.jsonl'), 'precious\n')
  writeFileSync(join(control, 'task.json'), record)
  using left = daemon(marked(executionId))
  await using worker = startWorker(nowhere, folder.path, { timing })
  await left.gone
  const aside = join(state, 'unreadable', executionId)
  await until('the folder', () => existsSync(aside))
  expect(readFileSync(join(aside, 'task.json'), 'utf8')).toBe(record)
  expect(readFileSync(join(aside, 'spool', 'events-000000000001.jsonl'), 'utf8')).toBe('precious\n')
  expect(worker.leftovers().tasks).toEqual([])
})

test('a record that cannot be read is left alone while a worker holds its task', async () => {
  using folder = createFolder()
  const state = stateOf(folder.path)
  const executionId = randomUUID()
  const control = join(state, 'tasks', executionId)
  mkdirSync(join(control, 'owner'), { recursive: true })
  writeFileSync(join(control, 'task.json'), '{"version": 2}')
  const lock = lockFolder(join(control, 'owner'))
  using theirs = daemon(marked(executionId))
  await using worker = startWorker(nowhere, folder.path, { timing })
  using stray = daemon(marked(randomUUID()))
  await stray.gone
  expect(worker.leftovers().tasks).toEqual([executionId])
  expect(theirs.child.signalCode).toBeNull()
  if ('release' in lock) lock.release()
  await theirs.gone
})

test('workspaces that belong to no task are removed; those of nobody and those of tasks stay', async () => {
  using folder = createFolder()
  const state = stateOf(folder.path)
  const root = join(state, 'workspaces')
  const [stray, kept] = [randomUUID(), randomUUID()]
  for (const name of [stray, kept, '.removing-1', 'notes']) mkdirSync(join(root, name), { recursive: true })
  symlinkSync('/etc', join(root, '.removing-1', 'link'))
  mkdirSync(join(state, 'owners'))
  writeFileSync(join(state, 'owners', stray), randomUUID())
  mkdirSync(join(state, 'tasks', `.gone-${randomUUID()}`))
  await using cp = await startControlPlane()
  await using worker = startWorker(cp, folder.path, { timing, oz: 'sleep 600' })
  await worker.listening()
  const { task_id } = cp.assign()
  await worker.event('task_started')
  await until('the sweep', () => !existsSync(join(root, stray)))
  expect(readdirSync(root).toSorted()).toEqual([kept, task_id, 'notes'].toSorted())
  expect(readdirSync(join(state, 'owners'))).toEqual([task_id])
  expect(readdirSync(join(state, 'tasks')).filter((name) => name.startsWith('.gone'))).toEqual([])
  expect(existsSync('/etc/passwd')).toBe(true)
})

test('a workspace that was kept for the operator outlives every sweep', async () => {
  using folder = createFolder()
  await using cp = await startControlPlane()
  await using worker = startWorker(cp, folder.path, { timing, cleanup: false, oz: 'echo work >result' })
  await worker.listening()
  const { execution_id, task_id } = cp.assign()
  await cp.outcome(execution_id)
  await until('the end', () => worker.leftovers().tasks.length === 0)
  using stray = daemon(marked(randomUUID(), readFileSync(join(worker.stateDir, 'installation'), 'utf8').trim()))
  await stray.gone
  expect(readFileSync(join(worker.workspaceRoot, task_id, 'result'), 'utf8')).toBe('work\n')
})

test('an agent of another worker id is left alone while it runs', async () => {
  using folder = createFolder()
  await using cpA = await startControlPlane()
  await using cpB = await startControlPlane()
  await using one = startWorker(cpA, folder.path, { workerId: 'one', oz: 'sleep 600', serverUrl: cpA.url })
  await one.listening()
  const { execution_id } = cpA.assign()
  const { pid } = await one.event('task_started')
  await using other = startWorker(cpB, folder.path, { workerId: 'other', timing, oz: 'sleep 600' })
  using stray = daemon(marked(randomUUID(), readFileSync(join(one.stateDir, 'installation'), 'utf8').trim()))
  await stray.gone
  expect(process.kill(pid, 0)).toBe(true)
  expect(other.leftovers().tasks).toEqual([execution_id])
})
