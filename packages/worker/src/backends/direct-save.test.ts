import { spawn } from 'node:child_process'
import { randomUUID } from 'node:crypto'
import { once } from 'node:events'
import { chmodSync, existsSync, mkdirSync, readFileSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'
import { fileURLToPath } from 'node:url'
import { findProcesses, identifyProcess, lockFolder, openSpool } from '@openoz/machine'
import { expect, test } from 'vitest'
import { markedWith, readInstallationId } from '../installation.ts'
import { makeSilent, spawnWorker } from '../test-support/child-worker.ts'
import { type ControlPlane, startControlPlane } from '../test-support/control-plane.ts'
import { until } from '../test-support/until.ts'
import { createFolder, startWorker, type TestWorkerOptions, workerKey, writeOz } from '../test-support/worker.ts'

/** The agent: leaves work that is not saved, and dies. `save` is what the same program does when it is asked to save. */
const agent = (save: string, die = 'kill -KILL $$') => `
if [ "$2" = save-work ]; then
${save}
fi
mkdir -p "$OZ_SPOOL_DIR/kept" && echo '{}' >"$OZ_SPOOL_DIR/kept/workspace.json"
rm "$OZ_EXECUTION_TOKEN_FILE"
echo unsaved >"$OZ_WORKSPACE_ROOT/file"
${die}`

const look = (folder: string) => `
{ echo "arguments: $*"; id -u; cat "$OZ_EXECUTION_TOKEN_FILE" "$OZ_WORKSPACE_ROOT/file"; echo; stat -c %u "$OZ_SPOOL_DIR"; env; } >"$OZ_WORKSPACE_ROOT/seen"
cp ${folder}/ready/* "$OZ_SPOOL_DIR"; rm -r "$OZ_SPOOL_DIR/kept"; exit 0`

const lost = 'Files that it had changed since they were last saved are lost.'

/** Events for a saver to leave. */
async function prepareEvents(folder: string): Promise<void> {
  {
    using spool = await openSpool(join(folder, 'ready'))
    spool.append([{ type: 'notice', data: { level: 'info', text: 'saved' } }])
  }
  await once(spawn('chmod', ['-R', 'a+rX', join(folder, 'ready')]), 'exit')
}

async function runTask(folder: string, options: TestWorkerOptions) {
  await using cp = await startControlPlane()
  await using worker = startWorker(cp, folder, options)
  await worker.listening()
  const assignment = cp.assign()
  const outcome = await cp.outcome(assignment.execution_id)
  await until('the end', () => [...worker.leftovers().tasks, ...worker.leftovers().users].length === 0)
  return { outcome, assignment, cp, log: worker.log(), leftovers: worker.leftovers() }
}

test('what a killed agent left is saved by the same program as the same task, delivered, and only then reported', async () => {
  using folder = createFolder()
  await prepareEvents(folder.path)
  const teardownCommand = `cp "$OZ_WORKSPACE_ROOT/seen" ${folder.path}/out/seen`
  const out = join(folder.path, 'out')
  mkdirSync(out)
  chmodSync(out, 0o777)
  const { outcome, assignment, cp, log, leftovers } = await runTask(folder.path, {
    oz: agent(look(folder.path)),
    direct: { teardownCommand },
    taskEnvironment: { MINE: 'from the configuration' },
  })
  expect(outcome).toMatchObject({ type: 'task_failed', data: { failure_reason: 'agent_invocation', exit_code: 137 } })
  expect(outcome.data.message).not.toContain(lost)
  const events = cp.state.events.flatMap(({ batch }) => batch.events.map(({ data }) => data.text))
  expect(events).toEqual(['saved'])
  expect(cp.state.events[0]?.token).toBe(assignment.execution_token)
  const seen = readFileSync(join(out, 'seen'), 'utf8')
  expect(seen).toContain(`arguments: agent save-work --server-root-url ${cp.url}`)
  expect(seen).toContain(`${assignment.execution_token}`)
  expect(seen).toContain('unsaved')
  expect(seen).toContain('MINE=from the configuration')
  expect(seen).toContain(`OZ_EXECUTION_ID=${assignment.execution_id}`)
  expect(seen).not.toContain(workerKey)
  const [, uid, ...rest] = seen.split('\n')
  if (process.getuid?.() === 0) {
    expect(uid).not.toBe('0')
    expect(rest).toContain(uid)
  }
  expect(log).toContain('what it had done was saved')
  expect(leftovers).toEqual({ tasks: [], workspaces: [], users: [] })
})

test.each([
  ['does not know how', 'echo "unknown command" >&2; exit 2'],
  ['fails', 'exit 1'],
  ['hangs', 'sleep 600'],
  ['is killed', 'kill -KILL $$'],
])('where the saver %s, the end is reported with what is lost', async (_, save) => {
  using folder = createFolder()
  const { outcome, log, leftovers } = await runTask(folder.path, {
    oz: agent(save, 'echo "last words" >&2; exit 3'),
    timing: { savingTimeoutMs: 500 },
  })
  expect(outcome).toMatchObject({ type: 'task_failed', data: { failure_reason: 'container_exit', exit_code: 3 } })
  expect(outcome.data.message).toContain(lost)
  expect(outcome.data.message).toContain('last words')
  expect(log).toContain('its files since the last save are lost')
  expect(leftovers).toEqual({ tasks: [], workspaces: [], users: [] })
})

test('an agent that left nothing is not saved', async () => {
  using folder = createFolder()
  const { log } = await runTask(folder.path, {
    oz: `[ "$2" = save-work ] && touch ${folder.path}/asked; kill -KILL $$`,
  })
  expect(existsSync(join(folder.path, 'asked'))).toBe(false)
  expect(log).not.toContain('saved')
})

/** A worker process that is killed, and then its agent: nobody is there when it ends. */
async function endedUnseen(cp: ControlPlane, folder: string, oz: string) {
  const stateDir = join(folder, 'state')
  const config = join(folder, 'worker.yaml')
  writeFileSync(config, `backend:\n  direct:\n    oz_path: ${writeOz(folder, oz)}\n    state_dir: ${stateDir}\n`)
  const flags = { serverUrl: cp.url, workerId: 'test-worker', backend: 'direct', configFile: config }
  const program = fileURLToPath(new URL('../test-support/worker-process.ts', import.meta.url))
  const child = spawn(process.execPath, [program, JSON.stringify(flags)], {
    env: { PATH: process.env.PATH, HOME: folder, OZ_API_KEY: workerKey },
    stdio: 'ignore',
  })
  await cp.message('worker_hello')
  const assignment = cp.assign()
  await until('the agent', () => existsSync(join(stateDir, 'workspaces', assignment.task_id, 'file')))
  await cp.message('task_step', ({ step, status }) => step === 'start' && status === 'completed')
  child.kill('SIGKILL')
  await once(child, 'exit')
  writeFileSync(join(folder, 'go'), '')
  const exit = join(stateDir, 'tasks', assignment.execution_id, 'exit')
  await until('the end of the agent', () => existsSync(exit))
  return assignment
}

/** Without a task's folder: a sweep that has ended it has looked at all tasks before. */
function spawnMarked(installation: string, executionId: string) {
  const env = { PATH: process.env.PATH, ...markedWith(installation, executionId) }
  const child = spawn('sleep', ['613'], { env, detached: true, stdio: 'ignore' })
  return {
    gone: once(child, 'exit'),
    identity: identifyProcess(child.pid ?? 0),
    [Symbol.dispose]: () => child.kill('SIGKILL'),
  }
}

const waiting = (folder: string) =>
  `until [ -e "${folder}/go" ] || ! [ -e "${folder}/ready" ]; do sleep 0.05; done; kill -KILL $$`

test('an agent that ended while no worker was there is saved, delivered and reported by the next one', async () => {
  using folder = createFolder()
  await prepareEvents(folder.path)
  await using cp = await startControlPlane()
  const oz = agent(look(folder.path), waiting(folder.path))
  const { execution_id, execution_token } = await endedUnseen(cp, folder.path, oz)
  await using worker = startWorker(cp, folder.path, { oz })
  await worker.listening()
  expect(await cp.outcome(execution_id)).toMatchObject({
    type: 'task_failed',
    data: { failure_reason: 'agent_invocation', exit_code: 137 },
  })
  expect(cp.state.events).toMatchObject([{ token: execution_token, batch: { events: [{ data: { text: 'saved' } }] } }])
  await worker.leavesNothing()
})

test('of another worker id it is saved too, and left to that one’s lease to report', async () => {
  using folder = createFolder()
  await prepareEvents(folder.path)
  await using cp = await startControlPlane()
  const oz = agent(look(folder.path), waiting(folder.path))
  const { execution_id } = await endedUnseen(cp, folder.path, oz)
  await using worker = startWorker(cp, folder.path, { oz, workerId: 'other-worker', timing: { sweepEveryMs: 100 } })
  await worker.listening()
  // Until its lease is over it is its worker's, should that come back.
  using stray = spawnMarked(await readInstallationId(worker.stateDir), randomUUID())
  await stray.gone
  await until('a free lock', () => {
    const lock = lockFolder(join(worker.stateDir, 'tasks', execution_id, 'owner'))
    if (!('release' in lock)) return false
    lock.release()
    return true
  })
  expect(worker.log()).not.toContain('what it had done was saved')
  makeSilent(worker.stateDir, execution_id, 20 * 60_000)
  await until('the sweep', () => worker.log().includes('Swept what an ended task had left'))
  expect(cp.state.events).toMatchObject([{ batch: { events: [{ data: { text: 'saved' } }] } }])
  expect(cp.messagesOf('task_failed').filter(({ data }) => data.execution_id === execution_id)).toEqual([])
  await worker.leavesNothing()
})

test('what an earlier execution left is saved before a newer one, of another worker id, gets the workspace', async () => {
  using folder = createFolder()
  await prepareEvents(folder.path)
  await using cp = await startControlPlane()
  // Slow enough for some sweeps, which must not take what it is about to save.
  const oz = agent(`sleep 0.5; ${look(folder.path)}`, waiting(folder.path))
  await using dead = spawnWorker(cp, folder.path, { oz, flags: { workerId: 'dead-worker' } })
  await cp.message('worker_hello')
  const { task_id, execution_token } = cp.assign()
  await until('the agent', () => existsSync(join(dead.stateDir, 'workspaces', task_id, 'file')))
  await dead.kill()
  await using worker = startWorker(cp, folder.path, { oz, timing: { sweepEveryMs: 1 } })
  await worker.listening()
  const next = cp.assign({ task_id })
  await cp.message('task_step', (step) => step.execution_id === next.execution_id && step.step === 'start')
  expect(worker.log()).toContain('what it had done was saved')
  const events = await until('the events', () => cp.state.events.length > 0 && cp.state.events)
  expect(events).toMatchObject([{ token: execution_token, batch: { events: [{ data: { text: 'saved' } }] } }])
})

test('an execution that was fenced off, and whose spool waits, is not called running by its own worker', async () => {
  using folder = createFolder()
  await prepareEvents(folder.path)
  await using cp = await startControlPlane()
  const oz = `cp ${folder.path}/ready/* "$OZ_SPOOL_DIR"; touch begun; ${waiting(folder.path)}`
  await using dead = spawnWorker(cp, folder.path, { oz, flags: { workerId: 'dead-worker' } })
  await cp.message('worker_hello')
  const { task_id, execution_id } = cp.assign()
  await until('the agent', () => existsSync(join(dead.stateDir, 'workspaces', task_id, 'begun')))
  await dead.kill()
  cp.state.takesEvents = false
  {
    await using worker = startWorker(cp, folder.path, { oz: 'exit 0', workerId: 'other-worker' })
    await worker.listening()
    const next = cp.assign({ task_id })
    await cp.outcome(next.execution_id)
    await until('the end', () => worker.leftovers().tasks.length === 1)
    expect(worker.leftovers().tasks).toEqual([execution_id])
  }
  const hellos = cp.messagesOf('worker_hello').length
  await using again = startWorker(cp, folder.path, { workerId: 'dead-worker', timing: { sweepEveryMs: 100 } })
  await again.listening()
  expect(await until('the hello', () => cp.messagesOf('worker_hello')[hellos]?.data)).toMatchObject({
    running: [],
    finishing: [],
  })
  cp.state.takesEvents = true
  await again.leavesNothing()
  expect(cp.messagesOf('task_failed').filter(({ data }) => data.execution_id === execution_id)).toEqual([])
})

test('while a sweep delivers what one agent of another worker id left, that worker comes back to its others', async () => {
  using folder = createFolder()
  await using cp = await startControlPlane()
  const oz = agent('sleep 600', waiting(folder.path))
  await prepareEvents(folder.path)
  const first = await endedUnseen(cp, folder.path, oz)
  makeSilent(join(folder.path, 'state'), first.execution_id, 20 * 60_000)
  // As a sibling that runs: the same worker's, under the same instance.
  const tasks = join(folder.path, 'state', 'tasks')
  const sibling = randomUUID()
  using running = spawnMarked(await readInstallationId(join(folder.path, 'state')), sibling)
  const record = JSON.parse(readFileSync(join(tasks, first.execution_id, 'task.json'), 'utf8'))
  mkdirSync(join(tasks, sibling, 'spool'), { recursive: true })
  writeFileSync(
    join(tasks, sibling, 'task.json'),
    JSON.stringify({
      ...record,
      execution_id: sibling,
      task_id: randomUUID(),
      uid: undefined,
      process: running.identity,
    }),
  )
  await using worker = startWorker(cp, folder.path, { oz, workerId: 'other-worker' })
  await worker.listening()
  await until(
    'the saver',
    async () => (await findProcesses({ marker: `OZ_EXECUTION_ID=${first.execution_id}` })).length > 0,
  )
  const hellos = cp.messagesOf('worker_hello').length
  await using again = startWorker(cp, folder.path, { oz })
  await again.listening()
  expect(await until('the hello', () => cp.messagesOf('worker_hello')[hellos]?.data)).toMatchObject({
    running: [{ execution_id: sibling }],
    instances: [expect.any(String), record.instance],
  })
})

test('a saver that is at work when a newer execution comes is ended before the workspace becomes that one’s', async () => {
  using folder = createFolder()
  await prepareEvents(folder.path)
  await using cp = await startControlPlane()
  const oz = agent(
    `[ -e ${folder.path}/open/saving ] && exit 0; touch ${folder.path}/open/saving; sleep 600`,
    waiting(folder.path),
  )
  mkdirSync(join(folder.path, 'open'))
  chmodSync(join(folder.path, 'open'), 0o777)
  const { task_id, execution_id } = await endedUnseen(cp, folder.path, oz)
  makeSilent(join(folder.path, 'state'), execution_id, 20 * 60_000)
  await using worker = startWorker(cp, folder.path, { oz, workerId: 'other-worker' })
  await worker.listening()
  await until('the saver', () => existsSync(join(folder.path, 'open', 'saving')))
  const next = cp.assign({ task_id })
  await cp.message('task_step', (step) => step.execution_id === next.execution_id && step.step === 'start')
  expect(await findProcesses({ marker: `OZ_EXECUTION_ID=${execution_id}` })).toEqual([])
})
