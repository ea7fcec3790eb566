import { spawnSync } from 'node:child_process'
import { existsSync, mkdirSync, readdirSync, readFileSync, rmSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'
import { endProcessTree, findProcesses, identifyProcess, openSpool } from '@openoz/machine'
import { expect, test } from 'vitest'
import { spawnWorker } from './test-support/child-worker.ts'
import { type ControlPlane, startControlPlane } from './test-support/control-plane.ts'
import { until } from './test-support/until.ts'
import { createFolder, startWorker } from './test-support/worker.ts'

/** A worker is killed in every state that a task can be in; the next process of its id goes on from there. */

/** Until `go` appears, or the test is over. */
const waiting = (folder: string) => `until [ -e "${folder}/go" ] || ! [ -e "${folder}/bin" ]; do sleep 0.05; done`

async function secondHello(cp: ControlPlane) {
  return (await until('a second hello', () => cp.messagesOf('worker_hello')[1])).data
}

const processesOf = (executionId: string) => findProcesses({ marker: `OZ_EXECUTION_ID=${executionId}` })

test('killed before it had written anything of a task, it is named by the next one as what held it', async () => {
  using folder = createFolder()
  await using cp = await startControlPlane()
  await using former = spawnWorker(cp, folder.path, { oz: 'sleep 600' })
  const { instances: [instance] = [] } = await cp.message('worker_hello')
  await former.kill()
  await using worker = startWorker(cp, folder.path)
  await worker.listening()
  const hello = await secondHello(cp)
  expect(hello.instances?.slice(1)).toEqual([instance])
  expect(hello.instances?.[0]).not.toBe(instance)
  // Once that was handled there is nothing to say about it any more.
  await until('the instance to go', () => readdirSync(join(worker.stateDir, 'instances')).length === 1)
})

test('killed in the middle of a setup command: its processes are ended, the execution is not named, and is reported as killed', async () => {
  using folder = createFolder()
  await using cp = await startControlPlane()
  const direct = { setup_command: `touch started; setsid ${'sleep 1000'}` }
  await using former = spawnWorker(cp, folder.path, { oz: 'sleep 600', direct })
  const { instances: [instance] = [] } = await cp.message('worker_hello')
  const { task_id, execution_id } = cp.assign()
  await until('the setup', () => existsSync(join(former.stateDir, 'workspaces', task_id, 'started')))
  await former.kill()

  await using worker = startWorker(cp, folder.path)
  await worker.listening()
  const hello = await secondHello(cp)
  expect(hello).toMatchObject({ running: [], finishing: [], instances: [expect.any(String), instance] })
  expect(await processesOf(execution_id)).toEqual([])
  expect(await cp.outcome(execution_id)).toMatchObject({
    type: 'task_failed',
    data: { failure_reason: 'agent_invocation', exit_code: 137 },
  })
  await worker.leavesNothing()
})

test('killed between the start of the shim and the note of it: the agent is adopted by what the shim wrote itself', async () => {
  using folder = createFolder()
  await using cp = await startControlPlane()
  await using former = spawnWorker(cp, folder.path, { oz: `touch runs; ${waiting(folder.path)}; exit 5` })
  await cp.message('worker_hello')
  const { task_id, execution_id } = cp.assign()
  await until('the agent', () => existsSync(join(former.stateDir, 'workspaces', task_id, 'runs')))
  await former.kill()
  const file = join(former.stateDir, 'tasks', execution_id, 'task.json')
  const record = JSON.parse(readFileSync(file, 'utf8'))
  writeFileSync(file, JSON.stringify({ ...record, process: null }))

  await using worker = startWorker(cp, folder.path)
  await worker.listening()
  expect((await secondHello(cp)).running).toEqual([{ task_id, execution_id }])
  const adopted = JSON.parse(readFileSync(file, 'utf8'))
  expect(identifyProcess(adopted.process.pid)).toEqual(adopted.process)
  writeFileSync(join(folder.path, 'go'), '')
  expect(await cp.outcome(execution_id)).toMatchObject({ data: { failure_reason: 'container_exit', exit_code: 5 } })
  await worker.leavesNothing()
})

test('twenty agents are taken over, and named to the control plane, within two seconds', async () => {
  using folder = createFolder()
  await using cp = await startControlPlane()
  await using former = spawnWorker(cp, folder.path, { oz: waiting(folder.path) })
  await cp.message('worker_hello')
  const started = () =>
    cp.messagesOf('task_step').filter(({ data }) => data.step === 'start' && data.status === 'completed')
  const assignments = Array.from({ length: 20 }, () => cp.assign())
  await until('all agents', () => started().length === 20, 60_000)
  await former.kill()
  const startedAt = performance.now()
  await using worker = startWorker(cp, folder.path)
  const { running } = await secondHello(cp)
  expect(performance.now() - startedAt).toBeLessThan(2_000)
  expect(running.map(({ execution_id }) => execution_id).toSorted()).toEqual(
    assignments.map(({ execution_id }) => execution_id).toSorted(),
  )
  writeFileSync(join(folder.path, 'go'), '')
  for (const { execution_id } of assignments) expect((await cp.outcome(execution_id)).type).toBe('task_completed')
  await worker.leavesNothing()
})

test('an agent of before a reboot is reported as killed, whoever has its number now', async () => {
  using folder = createFolder()
  await using cp = await startControlPlane()
  await using former = spawnWorker(cp, folder.path, { oz: `touch runs; ${waiting(folder.path)}` })
  await cp.message('worker_hello')
  const { task_id, execution_id } = cp.assign()
  await until('the agent', () => existsSync(join(former.stateDir, 'workspaces', task_id, 'runs')))
  await cp.message('task_step', ({ step, status }) => step === 'start' && status === 'completed')
  await former.kill()
  await endProcessTree({ marker: `OZ_EXECUTION_ID=${execution_id}` }, 0)
  // Nobody was there to be told.
  rmSync(join(former.stateDir, 'tasks', execution_id, 'exit'), { force: true })
  const control = join(former.stateDir, 'tasks', execution_id)
  const record = JSON.parse(readFileSync(join(control, 'task.json'), 'utf8'))
  const earlier = (identity: { startedAt: string }) => ({
    pid: process.pid,
    startedAt: identity.startedAt.replace(/^[^:]+/, '00000000-0000-4000-8000-000000000000'),
  })
  const rebooted = { ...record, process: earlier(record.process), worker: earlier(record.worker) }
  writeFileSync(join(control, 'task.json'), JSON.stringify(rebooted))

  await using worker = startWorker(cp, folder.path)
  await worker.listening()
  expect(await cp.outcome(execution_id)).toMatchObject({
    type: 'task_failed',
    data: { failure_reason: 'agent_invocation', exit_code: 137, message: expect.stringContaining('disappeared') },
  })
  await worker.leavesNothing()
})

/** What an agent has in its spool when it ends. */
async function prepareEvents(folder: string): Promise<string> {
  const ready = join(folder, 'ready')
  {
    using spool = await openSpool(ready)
    spool.append([{ type: 'notice', data: { level: 'info', text: 'its outcome' } }])
  }
  spawnSync('chmod', ['-R', 'a+rX', ready])
  return ready
}

test('killed while an ended agent’s events wait for the control plane: the next one delivers them, and then reports the end as it was', async () => {
  using folder = createFolder()
  await using cp = await startControlPlane()
  const ready = await prepareEvents(folder.path)
  cp.state.takesEvents = false
  const oz = `cp ${ready}/* "$OZ_SPOOL_DIR"; echo 'last words' >&2; exit 6`
  await using former = spawnWorker(cp, folder.path, { oz })
  await cp.message('worker_hello')
  const { task_id, execution_id, execution_token } = cp.assign()
  await cp.message('task_finishing')
  await until('the slot', () => cp.messagesOf('worker_status').at(-1)?.data.active === 0)
  expect(JSON.parse(readFileSync(join(former.stateDir, 'tasks', execution_id, 'end.json'), 'utf8'))).toMatchObject({
    exit: { type: 'exited', code: 6 },
  })
  await former.kill()

  await using worker = startWorker(cp, folder.path, { timing: { deliveryTimeoutMs: 60_000 } })
  await worker.listening()
  expect(await secondHello(cp)).toMatchObject({ running: [], finishing: [{ task_id, execution_id }] })
  expect(cp.messagesOf('task_failed')).toEqual([])
  cp.state.takesEvents = true
  expect(await cp.outcome(execution_id)).toMatchObject({
    data: { failure_reason: 'container_exit', exit_code: 6, message: expect.stringContaining('last words') },
  })
  expect(cp.state.events).toMatchObject([{ token: execution_token, batch: { events: [{ n: 1 }] } }])
  await worker.leavesNothing()
})

test('killed before the control plane had handled the report: it is said again, and only then everything goes', async () => {
  using folder = createFolder()
  await using cp = await startControlPlane()
  await using former = spawnWorker(cp, folder.path, { oz: `${waiting(folder.path)}; exit 7` })
  await cp.message('worker_hello')
  const { execution_id } = cp.assign()
  await cp.message('task_step', ({ step, status }) => step === 'start' && status === 'completed')
  cp.state.answersPings = false
  writeFileSync(join(folder.path, 'go'), '')
  await cp.outcome(execution_id)
  expect(existsSync(join(former.stateDir, 'tasks', execution_id, 'end.json'))).toBe(true)
  await former.kill()
  cp.state.answersPings = true
  await using worker = startWorker(cp, folder.path)
  await until('the second report', () => cp.messagesOf('task_failed').length === 2)
  await worker.leavesNothing()
})

test('the events of an agent that died while the control plane was away come before the word of its end', async () => {
  using folder = createFolder()
  await using cp = await startControlPlane()
  const ready = await prepareEvents(folder.path)
  await using worker = startWorker(cp, folder.path, {
    oz: `${waiting(folder.path)}; cp ${ready}/* "$OZ_SPOOL_DIR"; kill -KILL $$`,
    // Counted only while there is a connection.
    timing: { deliveryTimeoutMs: 100, connection: { backoffBaseMs: 20, backoffMaxMs: 50, pingEveryMs: 200 } },
  })
  await worker.listening()
  const { execution_id } = cp.assign()
  await cp.message('task_step', ({ step, status }) => step === 'start' && status === 'completed')
  cp.state.refusal = { code: 'server_draining', details: {} }
  cp.state.takesEvents = false
  cp.socket().terminate()
  writeFileSync(join(folder.path, 'go'), '')
  await until('the end on disk', () => existsSync(join(worker.stateDir, 'tasks', execution_id, 'end.json')))
  const dials = cp.state.requests.length
  await until('a while', () => cp.state.requests.length > dials + 20)
  expect(worker.events.some(({ type }) => type === 'task_ended')).toBe(false)
  cp.state.takesEvents = true
  await until('the events', () => cp.state.events.length === 1)
  cp.state.refusal = undefined
  await cp.outcome(execution_id)
  await worker.leavesNothing()
})

test('what a killed worker’s dead agent left is saved once there is a control plane, however long that takes', async () => {
  using folder = createFolder()
  await using cp = await startControlPlane()
  const out = join(folder.path, 'tries')
  mkdirSync(out, { mode: 0o777 })
  spawnSync('chmod', ['777', out])
  const saver = `[ "$2" != save-work ] || { mktemp ${out}/XXXXXX; [ -e ${folder.path}/back ] || exit 75; rm -r "$OZ_SPOOL_DIR/kept"; exit 0; }`
  await using worker = startWorker(cp, folder.path, {
    oz: `${saver}\nmkdir "$OZ_SPOOL_DIR/kept"; ${waiting(folder.path)}; kill -KILL $$`,
    timing: { savingTimeoutMs: 60_000, connection: { backoffBaseMs: 20, backoffMaxMs: 50, pingEveryMs: 200 } },
  })
  await worker.listening()
  const { execution_id, task_id } = cp.assign()
  await cp.message('task_step', ({ step, status }) => step === 'start' && status === 'completed')
  cp.state.refusal = { code: 'server_draining', details: {} }
  cp.socket().terminate()
  writeFileSync(join(folder.path, 'go'), '')
  await until('a try', () => readdirSync(out).length > 0)
  expect(existsSync(join(worker.workspaceRoot, task_id))).toBe(true)
  cp.state.refusal = undefined
  await until('another try', () => readdirSync(out).length > 1)
  writeFileSync(join(folder.path, 'back'), '')
  const { data } = await cp.outcome(execution_id)
  expect(data.message).not.toContain('are lost')
  await worker.leavesNothing()
})

test('on a network where no connection lasts the end is told at last, without what could not be delivered', async () => {
  using folder = createFolder()
  await using cp = await startControlPlane()
  const ready = await prepareEvents(folder.path)
  cp.state.takesEvents = false
  await using worker = startWorker(cp, folder.path, {
    oz: `cp ${ready}/* "$OZ_SPOOL_DIR"; exit 3`,
    timing: { deliveryTimeoutMs: 2_000, unsteadyTimeoutMs: 2_500, sweepEveryMs: 100 },
  })
  await worker.listening()
  const { execution_id } = cp.assign()
  await cp.message('task_step', ({ step, status }) => step === 'start' && status === 'completed')
  const breaking = setInterval(() => {
    for (const socket of cp.state.sockets) socket.terminate()
  }, 1_000)
  try {
    expect(await cp.outcome(execution_id)).toMatchObject({ data: { failure_reason: 'container_exit', exit_code: 3 } })
  } finally {
    clearInterval(breaking)
  }
  expect(worker.log()).toContain('they are kept and tried again')
  cp.state.takesEvents = true
  await worker.leavesNothing()
})
