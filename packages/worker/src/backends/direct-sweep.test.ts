import { type ChildProcess, spawn } from 'node:child_process'
import { randomUUID } from 'node:crypto'
import { once } from 'node:events'
import { existsSync, mkdirSync, readdirSync, readFileSync, symlinkSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'
import { findProcesses, lockFolder } from '@openoz/machine'
import { expect, test } from 'vitest'
import { readInstallationId, stateMark } from '../installation.ts'
import { makeSilent, spawnWorker } from '../test-support/child-worker.ts'
import { startControlPlane } from '../test-support/control-plane.ts'
import { until } from '../test-support/until.ts'
import { createFolder, startWorker } from '../test-support/worker.ts'

/** What nobody answers for is found and cleared, with or without a control plane; what is somebody's is not touched. */

const timing = { sweepEveryMs: 100 }

/** A state folder as workers before us left it. */
async function stateOf(folder: string): Promise<{ state: string; installation: string }> {
  const state = join(folder, 'state')
  mkdirSync(join(state, 'tasks'), { recursive: true })
  return { state, installation: await readInstallationId(state) }
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

const marked = (executionId: string, installation: string) => ({
  OZ_EXECUTION_ID: executionId,
  OZ_WORKER_STATE: stateMark(installation, executionId),
})

/** No control plane at all: what is swept now is swept without one. */
const nowhere = { url: 'http://127.0.0.1:1' }

test('processes of a task that has no folder are ended, without a control plane; those of another installation are not', async () => {
  using folder = createFolder()
  const { installation } = await stateOf(folder.path)
  using stray = daemon(marked(randomUUID(), installation))
  // What a tool of the task started as a run of its own has another execution in its environment.
  using nested = daemon({ ...marked(randomUUID(), installation), OZ_EXECUTION_ID: randomUUID() })
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

test('a task that writes somebody else’s execution into its marks ends nothing but itself', async () => {
  using folder = createFolder()
  const { installation } = await stateOf(folder.path)
  const local = randomUUID()
  using persons = daemon({ OZ_EXECUTION_ID: local })
  using unnamed = daemon({ OZ_EXECUTION_ID: '' })
  using forged = daemon({ OZ_EXECUTION_ID: randomUUID(), OZ_WORKER_STATE: stateMark(installation, local) })
  using empty = daemon({ OZ_EXECUTION_ID: randomUUID(), OZ_WORKER_STATE: `${installation}/` })
  using bare = daemon({ OZ_EXECUTION_ID: randomUUID(), OZ_WORKER_STATE: installation })
  await using worker = startWorker(nowhere, folder.path, { timing })
  await forged.gone
  using next = daemon(marked(randomUUID(), installation))
  await next.gone
  await until('the log', () => worker.log().includes('Processes of a task that is no more were ended'))
  expect([persons, unnamed, empty, bare].map(({ child }) => child.signalCode)).toEqual([null, null, null, null])
})

test.skipIf(process.getuid?.() !== 0)(
  'a daemon that has cleared its environment is found by the user of its task, and that user is free again',
  async () => {
    using folder = createFolder()
    const { state } = await stateOf(folder.path)
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
    const { state } = await stateOf(folder.path)
    mkdirSync(join(state, 'users'))
    writeFileSync(join(state, 'users', '65502'), randomUUID())
    const theirMarks = marked(randomUUID(), randomUUID())
    using theirShim = daemon(theirMarks)
    using theirs = daemon(theirMarks, 65_502)
    await using worker = startWorker(nowhere, folder.path, { timing })
    await until('the user', () => worker.leftovers().users.length === 0)
    expect([theirShim, theirs].map(({ child }) => child.signalCode)).toEqual([null, null])
  },
)

test.each([
  ['torn', '{"version": 1, "worker_'],
  ['of a newer version', JSON.stringify({ version: 2, worker: { new: true } })],
])('a record that is %s is set aside with everything beside it, and its processes are ended', async (_, record) => {
  using folder = createFolder()
  const { state, installation } = await stateOf(folder.path)
  const executionId = randomUUID()
  const control = join(state, 'tasks', executionId)
  mkdirSync(join(control, 'owner'), { recursive: true })
  mkdirSync(join(control, 'spool'))
  writeFileSync(join(control, 'spool', 'events-000000000001.jsonl'), 'precious\n')
  writeFileSync(join(control, 'task.json'), record)
  using left = daemon(marked(executionId, installation))
  await using worker = startWorker(nowhere, folder.path, { timing })
  await left.gone
  const aside = join(state, 'unreadable', executionId)
  await until('the folder', () => existsSync(aside))
  expect(readFileSync(join(aside, 'task.json'), 'utf8')).toBe(record)
  expect(readFileSync(join(aside, 'spool', 'events-000000000001.jsonl'), 'utf8')).toBe('precious\n')
  expect(worker.leftovers().tasks).toEqual([])
})

test('a record that cannot be read now says nothing about its task', async () => {
  using folder = createFolder()
  const { state, installation } = await stateOf(folder.path)
  const executionId = randomUUID()
  const control = join(state, 'tasks', executionId)
  mkdirSync(join(control, 'owner'), { recursive: true })
  // EISDIR stands for every error that is not about what is in the file.
  mkdirSync(join(control, 'task.json'))
  using theirs = daemon(marked(executionId, installation))
  await using worker = startWorker(nowhere, folder.path, { timing })
  using stray = daemon(marked(randomUUID(), installation))
  await stray.gone
  await until('the log', () => worker.log().includes(`What task ${executionId} left could not be swept`))
  expect(worker.leftovers().tasks).toEqual([executionId])
  expect(theirs.child.signalCode).toBeNull()
})

test('the workspace of a task that was set aside stays', async () => {
  using folder = createFolder()
  const { state } = await stateOf(folder.path)
  const [executionId, runId, other] = [randomUUID(), randomUUID(), randomUUID()]
  mkdirSync(join(state, 'tasks', executionId, 'owner'), { recursive: true })
  writeFileSync(join(state, 'tasks', executionId, 'task.json'), '{"version": 2}')
  mkdirSync(join(state, 'owners'))
  for (const [run, owner] of [
    [runId, executionId],
    [other, randomUUID()],
  ] as const) {
    mkdirSync(join(state, 'workspaces', run), { recursive: true })
    writeFileSync(join(state, 'owners', run), owner)
  }
  await using worker = startWorker(nowhere, folder.path, { timing })
  await until('the sweep', () => worker.leftovers().workspaces.length === 1)
  expect(existsSync(join(state, 'unreadable', executionId))).toBe(true)
  expect(worker.leftovers().workspaces).toEqual([runId])
})

test('a record that cannot be read is left alone while a worker holds its task', async () => {
  using folder = createFolder()
  const { state, installation } = await stateOf(folder.path)
  const executionId = randomUUID()
  const control = join(state, 'tasks', executionId)
  mkdirSync(join(control, 'owner'), { recursive: true })
  writeFileSync(join(control, 'task.json'), '{"version": 2}')
  const lock = lockFolder(join(control, 'owner'))
  using theirs = daemon(marked(executionId, installation))
  await using worker = startWorker(nowhere, folder.path, { timing })
  using stray = daemon(marked(randomUUID(), installation))
  await stray.gone
  expect(worker.leftovers().tasks).toEqual([executionId])
  expect(theirs.child.signalCode).toBeNull()
  if ('release' in lock) lock.release()
  await theirs.gone
})

test('workspaces that belong to no task are removed; those of nobody and those of tasks stay', async () => {
  using folder = createFolder()
  const { state } = await stateOf(folder.path)
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
  using stray = daemon(marked(randomUUID(), await readInstallationId(worker.stateDir)))
  await stray.gone
  expect(readFileSync(join(worker.workspaceRoot, task_id, 'result'), 'utf8')).toBe('work\n')
})

test('an agent of another worker id, whose worker is dead, is left alone while it runs', async () => {
  using folder = createFolder()
  await using cp = await startControlPlane()
  await using one = spawnWorker(cp, folder.path, { oz: 'sleep 600', flags: { workerId: 'one' } })
  await cp.message('worker_hello')
  const { execution_id } = cp.assign()
  await cp.message('task_step', ({ step, status }) => step === 'start' && status === 'completed')
  await one.kill()
  await using other = startWorker(cp, folder.path, { workerId: 'other', timing, oz: 'sleep 600' })
  await until('the look at it', () => other.log().includes('An agent of another worker id still runs; left alone'))
  using stray = daemon(marked(randomUUID(), await readInstallationId(one.stateDir)))
  await stray.gone
  expect((await findProcesses({ marker: `OZ_EXECUTION_ID=${execution_id}` })).length).toBeGreaterThan(0)
  expect(other.leftovers().tasks).toEqual([execution_id])
  expect(other.leftovers().workspaces).toHaveLength(1)

  // Its own worker, when that comes back, has it as before.
  await using again = startWorker(cp, folder.path, { workerId: 'one', oz: 'sleep 600' })
  await cp.message('worker_hello', ({ running }) => running.some((one) => one.execution_id === execution_id))
  again.stop()
  await cp.outcome(execution_id)
})

test('a task of another control plane, from before the address was changed, is named in the log, and set aside after a week', async () => {
  using folder = createFolder()
  await using former = await startControlPlane()
  await using cp = await startControlPlane()
  const oz = `echo work >file; until [ -e ${folder.path}/go ] || ! [ -e ${folder.path}/bin ]; do sleep 0.05; done`
  await using dead = spawnWorker(former, folder.path, { oz })
  await former.message('worker_hello')
  const { execution_id, task_id } = former.assign()
  await former.message('task_step', ({ step, status }) => step === 'start' && status === 'completed')
  await until('the agent', () => existsSync(join(dead.stateDir, 'workspaces', task_id, 'file')))
  await dead.kill()
  const control = join(dead.stateDir, 'tasks', execution_id)
  makeSilent(dead.stateDir, execution_id, 8 * 24 * 60 * 60_000)

  await using worker = startWorker(cp, folder.path, { timing })
  const words = 'A task of this worker belongs to another control plane'
  await until('the log', () => worker.log().includes(words))
  const line = JSON.parse(worker.lines.find((text) => text.includes(words)) ?? '{}')
  expect(line).toMatchObject({ level: 40, folder: control, itsServer: former.url, server: cp.url, runId: task_id })
  // Its agent speaks to that control plane itself.
  using stray = daemon(marked(randomUUID(), await readInstallationId(dead.stateDir)))
  await stray.gone
  expect(existsSync(control)).toBe(true)

  writeFileSync(join(folder.path, 'go'), '')
  await until('the end of the agent', () => existsSync(join(control, 'exit')))
  using later = daemon(marked(randomUUID(), await readInstallationId(dead.stateDir)))
  await later.gone
  expect(existsSync(control)).toBe(true)
  makeSilent(dead.stateDir, execution_id, 8 * 24 * 60 * 60_000)
  const aside = join(dead.stateDir, 'unreadable', execution_id)
  await until('the folder', () => existsSync(join(aside, 'spool')))
  expect(worker.log()).toContain('its folder was set aside')
  await until('its user', () => worker.leftovers().users.length === 0)
  expect(readFileSync(join(worker.workspaceRoot, task_id, 'file'), 'utf8')).toBe('work\n')
  expect(worker.lines.filter((text) => text.includes(words))).toHaveLength(1)
})
