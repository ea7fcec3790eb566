import { type ChildProcess, spawn } from 'node:child_process'
import { once } from 'node:events'
import { existsSync, readFileSync, rmSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'
import { fileURLToPath } from 'node:url'
import { identifyProcess, openSpool } from '@openoz/machine'
import { expect, test } from 'vitest'
import { type ControlPlane, startControlPlane } from './test-support/control-plane.ts'
import { until } from './test-support/until.ts'
import { createFolder, startWorker, workerKey, writeOz } from './test-support/worker.ts'

/** Until `go` appears (or the test is over); then it leaves events that nobody has sent, and ends with 3. */
const agent = (folder: string) =>
  `touch "$OZ_WORKSPACE_ROOT/runs"; until [ -e "${folder}/go" ] || ! [ -e "${folder}/ready" ]; do sleep 0.05; done; cp ${folder}/ready/* "$OZ_SPOOL_DIR"; echo 'last words' >&2; exit 3`

/** A worker process that is sent a signal as soon as its one task runs. Resolves when it is gone. */
async function goneWorker(cp: ControlPlane, folder: string, signal: 'SIGKILL' | 'SIGUSR2' = 'SIGKILL') {
  const config = join(folder, 'worker.yaml')
  const stateDir = join(folder, 'state')
  writeFileSync(
    config,
    `backend:\n  direct:\n    oz_path: ${writeOz(folder, agent(folder))}\n    state_dir: ${stateDir}\n`,
  )
  {
    using spool = await openSpool(join(folder, 'ready'))
    spool.append([{ type: 'notice', data: { level: 'info', text: 'not sent yet' } }])
  }
  await once(spawn('chmod', ['-R', 'a+rX', join(folder, 'ready')]), 'exit')
  const flags = { serverUrl: cp.url, workerId: 'test-worker', backend: 'direct', configFile: config }
  const program = fileURLToPath(new URL('./test-support/worker-process.ts', import.meta.url))
  const child: ChildProcess = spawn(process.execPath, [program, JSON.stringify(flags)], {
    env: { PATH: process.env.PATH, HOME: folder, OZ_API_KEY: workerKey },
    stdio: 'ignore',
  })
  await cp.message('worker_hello')
  const assignment = cp.assign()
  await cp.message('task_step', ({ step, status }) => step === 'start' && status === 'completed')
  const file = join(stateDir, 'tasks', assignment.execution_id, 'task.json')
  const shim = await until('the record', () => JSON.parse(readFileSync(file, 'utf8')).process as { pid: number } | null)
  await until('the agent', () => existsSync(join(stateDir, 'workspaces', assignment.task_id, 'runs')))
  const exited = once(child, 'exit')
  child.kill(signal)
  return { ...assignment, shimPid: shim?.pid ?? 0, exit: await exited }
}

/** The connection's first word; `number` 1 was the former worker's. */
async function hello(cp: ControlPlane, number: number) {
  const message = await until('a hello', () => cp.messagesOf('worker_hello')[number - 1])
  return message.data
}

test('an agent that outlived its worker process is reported once by the next one, over reconnects', async () => {
  using folder = createFolder()
  await using cp = await startControlPlane()
  const { task_id, execution_id, execution_token } = await goneWorker(cp, folder.path)
  await using worker = startWorker(cp, folder.path, { oz: agent(folder.path), maxConcurrentTasks: 1 })
  await worker.listening()
  expect((await hello(cp, 2)).running).toEqual([{ task_id, execution_id }])
  await until('the status', () => cp.messagesOf('worker_status').at(-1)?.data.active === 1)
  // It holds the slot, and its run.
  const other = cp.assign()
  expect(await cp.message('task_rejected')).toMatchObject({ execution_id: other.execution_id })

  cp.socket().terminate()
  expect((await hello(cp, 3)).running).toEqual([{ task_id, execution_id }])
  writeFileSync(join(folder.path, 'go'), '')
  expect(await cp.outcome(execution_id)).toMatchObject({
    type: 'task_failed',
    data: { task_id, failure_reason: 'container_exit', exit_code: 3, message: expect.stringContaining('last words') },
  })
  expect(cp.state.events).toMatchObject([{ token: execution_token, batch: { events: [{ n: 1 }] } }])
  await until('a free slot', () => cp.messagesOf('worker_status').at(-1)?.data.active === 0)
  expect(cp.messagesOf('task_failed')).toHaveLength(1)
  expect(cp.messagesOf('task_claimed')).toHaveLength(1)
  await worker.leavesNothing()
})

test('a cancellation ends an agent that outlived its worker process', async () => {
  using folder = createFolder()
  await using cp = await startControlPlane()
  const { task_id, execution_id, shimPid } = await goneWorker(cp, folder.path)
  await using worker = startWorker(cp, folder.path, { oz: agent(folder.path) })
  await worker.listening()
  cp.send({ type: 'task_cancellation', data: { task_id, execution_id } })
  expect(await cp.outcome(execution_id)).toMatchObject({ type: 'task_completed', data: { task_state: 'CANCELLED' } })
  expect(identifyProcess(shimPid)).toBeUndefined()
  await worker.leavesNothing()
})

test('a worker that is told to leave takes nothing new, and leaves its agent to the next one', async () => {
  using folder = createFolder()
  await using cp = await startControlPlane()
  const { task_id, execution_id, exit } = await goneWorker(cp, folder.path, 'SIGUSR2')
  expect(exit).toEqual([0, null])
  expect(cp.messagesOf('worker_status').at(-1)?.data).toEqual({ active: 1, draining: true })
  expect([cp.messagesOf('task_failed'), cp.messagesOf('task_completed')]).toEqual([[], []])
  await using worker = startWorker(cp, folder.path, { oz: agent(folder.path) })
  await worker.listening()
  expect((await hello(cp, 2)).running).toEqual([{ task_id, execution_id }])
  writeFileSync(join(folder.path, 'go'), '')
  expect(await cp.outcome(execution_id)).toMatchObject({ type: 'task_failed', data: { exit_code: 3 } })
  await worker.leavesNothing()
})

test('an agent that outlived another worker id is left alone', async () => {
  using folder = createFolder()
  await using cp = await startControlPlane()
  const { execution_id } = await goneWorker(cp, folder.path)
  const file = join(folder.path, 'state', 'tasks', execution_id, 'task.json')
  const record = readFileSync(file, 'utf8')
  {
    await using worker = startWorker(cp, folder.path, { workerId: 'other-worker' })
    await worker.listening()
    await until('the sweep', () => worker.log().includes('left alone'))
    expect((await hello(cp, 2)).running).toEqual([])
  }
  expect(readFileSync(file, 'utf8')).toBe(record)
  await using worker = startWorker(cp, folder.path)
  await worker.listening()
  expect((await hello(cp, 3)).running).toMatchObject([{ execution_id }])
})

test('a task whose lock the disk refuses is taken over all the same, and reported once', async () => {
  using folder = createFolder()
  await using cp = await startControlPlane()
  const { task_id, execution_id } = await goneWorker(cp, folder.path)
  const owner = join(folder.path, 'state', 'tasks', execution_id, 'owner')
  rmSync(owner, { recursive: true })
  writeFileSync(owner, '')
  await using worker = startWorker(cp, folder.path, { oz: agent(folder.path), timing: { sweepEveryMs: 50 } })
  expect((await hello(cp, 2)).running).toEqual([{ task_id, execution_id }])
  expect(worker.log()).toContain('is followed without its lock')
  rmSync(owner)
  await until('the lock', () => existsSync(owner))
  writeFileSync(join(folder.path, 'go'), '')
  expect(await cp.outcome(execution_id)).toMatchObject({ data: { exit_code: 3 } })
  await worker.leavesNothing()
  expect(cp.messagesOf('task_failed')).toHaveLength(1)
})
