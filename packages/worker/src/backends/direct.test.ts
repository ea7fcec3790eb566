import { spawn, spawnSync } from 'node:child_process'
import { chownSync, existsSync, mkdirSync, readdirSync, readFileSync, statSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'
import { openSpool } from '@openoz/machine'
import { expect, test } from 'vitest'
import { limitMemory, memoryHog } from '../../../../test/support/memory-limit.ts'
import { makeSilent } from '../test-support/child-worker.ts'
import { createAssignment, startControlPlane } from '../test-support/control-plane.ts'
import { until } from '../test-support/until.ts'
import { createFolder, startWorker, type TestWorkerOptions, workerKey } from '../test-support/worker.ts'

const isRoot = process.getuid?.() === 0

/** One task on a worker with these options, until its outcome. */
async function runTask(options: TestWorkerOptions, assignment = createAssignment()) {
  using folder = createFolder()
  await using cp = await startControlPlane()
  await using worker = startWorker(cp, folder.path, options)
  await worker.listening()
  cp.send({ type: 'task_assignment', data: assignment })
  const outcome = await cp.outcome(assignment.execution_id)
  await until('the end', () => [...worker.leftovers().tasks, ...worker.leftovers().users].length === 0)
  const workspace = join(worker.workspaceRoot, assignment.task_id)
  const read = (name: string) => readFileSync(join(workspace, name), 'utf8')
  const kept = existsSync(workspace) ? Object.fromEntries(readdirSync(workspace).map((name) => [name, read(name)])) : {}
  return {
    outcome,
    kept,
    steps: cp.messagesOf('task_step').map(({ data }) => data),
    leftovers: worker.leftovers(),
    log: worker.log(),
  }
}

test.each([
  ['exit 7', 'container_exit', 7],
  ['kill -KILL $$', 'agent_invocation', 137],
  ['kill -SEGV $$', 'agent_invocation', 139],
  ['exec /no/such/program', 'agent_invocation', 127],
])('an agent that does %j fails as %s with exit code %i', async (oz, reason, exitCode) => {
  const { outcome, leftovers } = await runTask({ oz: `echo 'last words' >&2; ${oz}` })
  expect(outcome).toMatchObject({
    type: 'task_failed',
    data: { failure_reason: reason, exit_code: exitCode, message: expect.stringContaining('last words') },
  })
  expect(leftovers).toEqual({ tasks: [], workspaces: [], users: [] })
})

test('an agent that the kernel ended for memory is named as that', async (context) => {
  using limit = limitMemory(40_000_000)
  if (!limit) return context.skip('no control group can be made here')
  const { outcome } = await runTask({ oz: `sh -c '${memoryHog(limit)}'; exit $?` })
  expect(outcome.data).toMatchObject({ failure_reason: 'agent_invocation', exit_code: 137 })
  expect(outcome.data.message).toContain('The kernel ended it: memory ran out')
  expect(outcome.data.message).toContain('--max-concurrent-tasks')
})

test('a cancelled agent that ignores SIGTERM is killed, with the tools that left it', async () => {
  using folder = createFolder()
  await using cp = await startControlPlane()
  const marker = `oz-test-daemon-${process.pid}`
  await using worker = startWorker(cp, folder.path, {
    oz: `trap '' TERM; setsid sh -c 'sleep 601; : ${marker}' >/dev/null 2>&1 & touch "$OZ_WORKSPACE_ROOT/ready"; while :; do sleep 0.1; done`,
  })
  await worker.listening()
  const { execution_id, task_id } = cp.assign()
  await until('the agent', () => existsSync(join(worker.workspaceRoot, task_id, 'ready')))
  expect(spawnSync('pgrep', ['-f', marker]).status).toBe(0)
  cp.send({ type: 'task_cancellation', data: { task_id, execution_id } })
  expect(await cp.outcome(execution_id)).toMatchObject({ type: 'task_completed', data: { task_state: 'CANCELLED' } })
  expect(spawnSync('pgrep', ['-f', marker]).status).toBe(1)
  await worker.leavesNothing()
})

test('the agent of a stopping worker may clean up after SIGTERM', async () => {
  using folder = createFolder()
  await using cp = await startControlPlane()
  await using worker = startWorker(cp, folder.path, {
    cleanup: false,
    oz: `trap 'echo polite > bye; exit 0' TERM; touch ready; while :; do sleep 0.05; done`,
  })
  await worker.listening()
  const { execution_id, task_id } = cp.assign()
  const workspace = join(worker.workspaceRoot, task_id)
  await until('the agent', () => existsSync(join(workspace, 'ready')))
  worker.stop()
  await cp.outcome(execution_id)
  expect(readFileSync(join(workspace, 'bye'), 'utf8')).toBe('polite\n')
})

test('what a finished agent left running is ended before the outcome is told', async () => {
  const marker = `oz-test-left-${process.pid}`
  const { outcome } = await runTask({ oz: `setsid sh -c 'sleep 602; : ${marker}' >/dev/null 2>&1 & exit 0` })
  expect(outcome.type).toBe('task_completed')
  expect(spawnSync('pgrep', ['-f', marker]).status).toBe(1)
})

test('an agent starts in its workspace with a minimal environment and everything that it is told', async () => {
  const assignment = createAssignment({
    env_vars: { GITHUB_ACCESS_TOKEN: `it's "secret" $HOME`, OZ_EXECUTION_ID: 'forged' },
  })
  const { kept } = await runTask(
    {
      cleanup: false,
      taskEnvironment: { FROM_CONFIG: 'yes' },
      env: { PATH: process.env.PATH, HOME: '/root', OZ_API_KEY: workerKey, SECRET_OF_WORKER: 'x' },
      oz: 'env > seen; pwd > folder; printf "%s\\n" "$@" > args; git config --get safe.directory > safe; node -e 0 && echo ok > node',
    },
    assignment,
  )
  const seen = Object.fromEntries((kept.seen ?? '').split('\n').map((line) => line.split(/=(.*)/s).slice(0, 2)))
  const { task_id, execution_id } = assignment
  expect(seen).toMatchObject({
    TASK_ID: task_id,
    OZ_RUN_ID: task_id,
    OZ_EXECUTION_ID: execution_id,
    OZ_WORKER_BACKEND: 'direct',
    GIT_TERMINAL_PROMPT: '0',
    GH_PROMPT_DISABLED: '1',
    FROM_CONFIG: 'yes',
    GITHUB_ACCESS_TOKEN: `it's "secret" $HOME`,
  })
  expect(seen.WARP_SERVER_ROOT_URL).toMatch(/^http:\/\/127/)
  expect(seen.OZ_EXECUTION_TOKEN_FILE).toContain(execution_id)
  expect(seen.OZ_SPOOL_DIR).toContain(execution_id)
  expect(seen).not.toHaveProperty('OZ_API_KEY')
  expect(seen).not.toHaveProperty('WARP_API_KEY')
  expect(seen).not.toHaveProperty('SECRET_OF_WORKER')
  expect(kept.folder?.trim()).toBe(seen.OZ_WORKSPACE_ROOT)
  expect(kept.args).toContain(`agent\nrun\n--task-id\n${task_id}\n`)
  expect(kept.safe).toBe('*\n')
  expect(kept.node).toBe('ok\n')
})

test('the setup command sees none of the worker’s secrets, and its file becomes the agent’s environment', async () => {
  const { kept, steps } = await runTask({
    cleanup: false,
    env: { PATH: process.env.PATH, HOME: process.env.HOME, OZ_API_KEY: workerKey },
    taskEnvironment: { CHOSEN: 'by config' },
    direct: {
      setupCommand: `env > setup-saw; printf '# comment\\nexport CHOSEN="by setup"\\nbad line\\nTWO=a=b\\n' > "$OZ_ENVIRONMENT_FILE"`,
      teardownCommand: 'env > teardown-saw',
    },
    oz: 'env > agent-saw',
  })
  const names = (text: string | undefined) => (text ?? '').split('\n').map((line) => line.split('=')[0])
  const allowed = ['HOME', 'TMPDIR', 'PATH', 'PWD', 'OLDPWD', '_', 'SHLVL', '']
  const marks = ['OZ_EXECUTION_ID', 'OZ_WORKER_STATE', 'OZ_RUN_ID', 'OZ_WORKER_BACKEND', 'OZ_WORKSPACE_ROOT']
  for (const name of names(kept['setup-saw'])) expect([...allowed, ...marks, 'OZ_ENVIRONMENT_FILE']).toContain(name)
  for (const name of names(kept['teardown-saw'])) expect([...allowed, ...marks]).toContain(name)
  expect(kept['agent-saw']).toContain('CHOSEN=by setup\n')
  expect(kept['agent-saw']).toContain('TWO=a=b\n')
  expect(steps.map(({ step, status }) => `${step} ${status}`)).toContain('teardown completed')
})

test.each([
  ['echo broken >&2; exit 4', 'exit code 4', 4],
  ['kill -9 $$', 'ended', undefined],
  ['sleep 600 & sleep 600', 'did not end within', undefined],
])('a setup command that does %j fails the task before the agent starts', async (setupCommand, words, exitCode) => {
  const { outcome, leftovers, steps } = await runTask({ direct: { setupCommand, hookTimeoutMs: 1_000 } })
  expect(outcome).toMatchObject({
    type: 'task_failed',
    data: { failure_reason: 'setup_command', message: expect.stringContaining(words) },
  })
  if (exitCode !== undefined)
    expect(outcome.data).toMatchObject({ exit_code: exitCode, message: expect.stringContaining('broken') })
  expect(steps.map(({ step, status }) => `${step} ${status}`)).toEqual(['worker_setup started', 'worker_setup failed'])
  expect(leftovers).toEqual({ tasks: [], workspaces: [], users: [] })
})

test('a teardown command that fails is told as a step and changes no outcome', async () => {
  const { outcome, steps } = await runTask({ direct: { teardownCommand: 'echo oops; exit 1' } })
  expect(outcome.type).toBe('task_completed')
  expect(steps.at(-1)).toMatchObject({ step: 'teardown', status: 'failed', detail: expect.stringContaining('oops') })
})

test('with --no-cleanup the workspace stays, nothing runs in it, and the log says where it is', async () => {
  const marker = `oz-test-kept-${process.pid}`
  const { kept, leftovers, log } = await runTask({
    cleanup: false,
    oz: `echo work > result; setsid sh -c 'sleep 603; : ${marker}' >/dev/null 2>&1 &`,
  })
  expect(kept.result).toBe('work\n')
  expect(leftovers.tasks).toEqual([])
  expect(log).toContain('The workspace is kept')
  expect(spawnSync('pgrep', ['-f', marker]).status).toBe(1)
})

test('tasks share a target directory, which is never deleted', async () => {
  using target = createFolder()
  writeFileSync(join(target.path, 'mine'), 'precious')
  if (isRoot) chownSync(target.path, 1234, 1234)
  const { outcome, leftovers } = await runTask({ direct: { targetDir: target.path }, oz: 'id -u > user; pwd > folder' })
  expect(outcome.type).toBe('task_completed')
  expect(readFileSync(join(target.path, 'mine'), 'utf8')).toBe('precious')
  expect(readFileSync(join(target.path, 'folder'), 'utf8').trim()).toBe(target.path)
  if (isRoot) expect(readFileSync(join(target.path, 'user'), 'utf8').trim()).toBe('1234')
  expect(leftovers).toEqual({ tasks: [], workspaces: [], users: [] })
})

test.skipIf(!isRoot)(
  'a target directory of root is used as root, without capabilities and without sight of others',
  async () => {
    using target = createFolder()
    const { outcome } = await runTask({
      direct: { targetDir: target.path },
      oz: 'id -u > user; grep CapEff /proc/self/status > caps; ls /proc | grep -c "^[0-9]" > processes',
    })
    expect(outcome, JSON.stringify(outcome)).toMatchObject({ type: 'task_completed' })
    expect(readFileSync(join(target.path, 'user'), 'utf8').trim()).toBe('0')
    expect(readFileSync(join(target.path, 'caps'), 'utf8')).toMatch(/0000000000000000/)
    expect(Number(readFileSync(join(target.path, 'processes'), 'utf8'))).toBeLessThan(10)
  },
)

test('what an ended agent had not sent is delivered with its token before the outcome is told', async () => {
  using folder = createFolder()
  await using cp = await startControlPlane()
  await using worker = startWorker(cp, folder.path, { oz: `cp ${folder.path}/ready/* "$OZ_SPOOL_DIR"; kill -9 $$` })
  await worker.listening()
  const ready = join(folder.path, 'ready')
  {
    using spool = await openSpool(ready)
    spool.append([{ type: 'notice', data: { level: 'info', text: 'said before it died' } }])
  }
  spawnSync('chmod', ['-R', 'a+rX', ready])
  const { execution_id, execution_token } = cp.assign()
  await cp.outcome(execution_id)
  const [sent] = cp.state.events
  expect(sent).toMatchObject({ token: execution_token, batch: { events: [{ n: 1, type: 'notice' }] } })
  await worker.leavesNothing()
})

test('a spool that cannot be delivered is kept, and delivered after a reconnect', async () => {
  using folder = createFolder()
  await using cp = await startControlPlane()
  cp.state.takesEvents = false
  const ready = join(folder.path, 'ready')
  {
    using spool = await openSpool(ready)
    spool.append([{ type: 'notice', data: { level: 'info', text: 'late' } }])
  }
  spawnSync('chmod', ['-R', 'a+rX', ready])
  await using worker = startWorker(cp, folder.path, {
    oz: `cp ${ready}/* "$OZ_SPOOL_DIR"`,
    timing: { deliveryTimeoutMs: 300 },
  })
  await worker.listening()
  const { execution_id } = cp.assign()
  await cp.outcome(execution_id)
  await until('the rest to be removed', () => worker.leftovers().workspaces.length === 0)
  expect(worker.leftovers().tasks).toEqual([execution_id])
  cp.state.takesEvents = true
  cp.socket().terminate()
  await until('the sweep', () => worker.leftovers().tasks.length === 0)
  expect(cp.state.events).toHaveLength(1)
})

test.each([
  ['larger than memory', 'truncate -s 3G "$OZ_SPOOL_DIR/events-000000000001.jsonl"'],
  ['no spool at all', `head -c 100000 /dev/zero | tr '\\0' '\\n' > "$OZ_SPOOL_DIR/events-000000000001.jsonl"`],
])('a spool that is %s holds neither folder nor user', async (_what, oz) => {
  const { outcome, leftovers } = await runTask({ oz })
  expect(outcome.type).toBe('task_completed')
  expect(leftovers).toEqual({ tasks: [], workspaces: [], users: [] })
})

test('a spool that could not be delivered for a week is given up', async () => {
  using folder = createFolder()
  await using cp = await startControlPlane()
  cp.state.takesEvents = false
  const ready = join(folder.path, 'ready')
  {
    using spool = await openSpool(ready)
    spool.append([{ type: 'notice', data: { level: 'info', text: 'too late' } }])
  }
  spawnSync('chmod', ['-R', 'a+rX', ready])
  await using worker = startWorker(cp, folder.path, {
    oz: `cp ${ready}/* "$OZ_SPOOL_DIR"`,
    timing: { deliveryTimeoutMs: 300, sweepEveryMs: 100 },
  })
  await worker.listening()
  const { execution_id } = cp.assign()
  await cp.outcome(execution_id)
  const file = join(worker.stateDir, 'tasks', execution_id, 'end.json')
  const end = await until('the end to be told', () => {
    const read = JSON.parse(readFileSync(file, 'utf8'))
    return read.is_reported ? read : undefined
  })
  expect(Date.now() - Date.parse(end.ended_at)).toBeLessThan(60_000)
  expect(worker.leftovers().tasks).toEqual([execution_id])

  const tooLate = new Date(Date.now() - 8 * 24 * 60 * 60_000).toISOString()
  writeFileSync(file, JSON.stringify({ ...end, ended_at: tooLate }))
  await until('the sweep', () => worker.leftovers().tasks.length === 0)
  expect(worker.log()).toContain('given up')
  await until('the user', () => worker.leftovers().users.length === 0)
})

test('an agent whose shim was killed is reported as killed, so that the run is tried again', async () => {
  using folder = createFolder()
  await using cp = await startControlPlane()
  await using worker = startWorker(cp, folder.path, { oz: 'sleep 600' })
  await worker.listening()
  const { execution_id } = cp.assign()
  const { pid } = await worker.event('task_started')
  process.kill(pid, 'SIGKILL')
  expect(await cp.outcome(execution_id)).toMatchObject({
    type: 'task_failed',
    data: { failure_reason: 'agent_invocation', exit_code: 137, message: expect.stringContaining('disappeared') },
  })
  await worker.leavesNothing()
})

test.skipIf(!isRoot)('a link that a task puts into its spool is not followed', async () => {
  using folder = createFolder()
  const victim = join(folder.path, 'victim')
  writeFileSync(victim, 'untouched')
  await runTask({
    oz: `printf '{"n":1,"type":"notice","at":"","data":{}}\\n' > "$OZ_SPOOL_DIR/events-000000000001.jsonl"; ln -s ${victim} "$OZ_SPOOL_DIR/.acked.tmp"; ln -s ${victim} "$OZ_SPOOL_DIR/acked"`,
  })
  expect(readFileSync(victim, 'utf8')).toBe('untouched')
})

test('what a worker that died left is swept: processes, folders, users', async () => {
  using folder = createFolder()
  await using cp = await startControlPlane()
  const assignment = createAssignment()
  const { execution_id, task_id } = assignment
  const stateDir = join(folder.path, 'state')
  const paths = { control: join(stateDir, 'tasks', execution_id), workspace: join(stateDir, 'workspaces', task_id) }
  for (const path of [join(paths.control, 'agent'), join(paths.control, 'spool'), paths.workspace])
    mkdirSync(path, { recursive: true })
  const gone = { pid: 4_000_000, startedAt: 'gone' }
  const record = {
    ...{ version: 1, worker_id: 'w', server_url: cp.url, task_id, execution_id, workspace: paths.workspace },
    ...{ removes_workspace: true, worker: gone, process: gone, started_at: new Date().toISOString() },
  }
  writeFileSync(join(paths.control, 'task.json'), JSON.stringify(record))
  const orphan = spawn('sleep', ['604'], {
    env: { PATH: process.env.PATH, OZ_EXECUTION_ID: execution_id },
    detached: true,
  })
  const hasEnded = new Promise((resolve) => orphan.once('exit', resolve))

  await using worker = startWorker(cp, folder.path, { timing: { sweepEveryMs: 100 } })
  await hasEnded
  // Its own worker may come back for the rest.
  expect(worker.leftovers().tasks).toEqual([execution_id])
  makeSilent(stateDir, execution_id, 20 * 60_000)
  await until('the sweep', () => worker.leftovers().tasks.length === 0)
  await worker.leavesNothing()
})

test.skipIf(!isRoot)(
  'a workspace root below a closed folder works, and the rest of that folder stays closed',
  async () => {
    using folder = createFolder()
    const closed = join(folder.path, 'closed')
    mkdirSync(closed, { mode: 0o700 })
    writeFileSync(join(closed, 'public-by-mode'), 'hidden by the folder', { mode: 0o644 })
    const { outcome, kept } = await runTask({
      cleanup: false,
      direct: { workspaceRoot: join(closed, 'workspaces') },
      oz: `ls ${closed} > seen; cat ${closed}/public-by-mode >> seen 2>&1; true`,
    })
    expect(outcome.type, JSON.stringify(outcome)).toBe('task_completed')
    expect(statSync(closed).mode & 0o777).toBe(0o700)
    expect(kept.seen ?? '').not.toContain('hidden by the folder')
  },
)
