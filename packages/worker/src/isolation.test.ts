import { type ChildProcess, spawn, spawnSync } from 'node:child_process'
import { chmodSync, chownSync, mkdirSync, readFileSync, readlinkSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'
import { fileURLToPath } from 'node:url'
import { expect, test } from 'vitest'
import { describeIsolation } from './isolation.ts'
import { type ControlPlane, startControlPlane } from './test-support/control-plane.ts'
import { createFolder, startWorker, workerKey, writeOz } from './test-support/worker.ts'

const isRoot = process.getuid?.() === 0
const ordinaryUser = 1234
const serverKey = 'sk-server-secret-0123456789'
const dataSecret = 'wk-admin-key-of-the-server-42'
const loginSecret = 'wk-saved-login-of-the-user-42'
const secrets = [workerKey, serverKey, dataSecret, loginSecret]

/** Looks everywhere that a curious tool looks, and tries to undo what hides things. */
const curious = `
out="$OZ_WORKSPACE_ROOT/found"
{
  ps auxewww; cat /proc/*/environ /proc/*/cmdline /proc/*/task/*/environ
  for pass in 1 2; do
    cat "$DATA/admin-api-key" "$LOGIN/config.json" "$STATE"/tasks/*/token "$STATE"/tasks/*/task.json
    grep -r . "$DATA" "$LOGIN" "$STATE" /proc/1/root"$DATA" /proc/1/root"$LOGIN"
    umount -l "$DATA"; umount -l "$LOGIN"; umount -l "$STATE"
    # Only in a mount namespace of its own: where the isolation under test is broken, this must not take /proc from the machine.
    [ "$(readlink /proc/self/ns/mnt)" = "$MACHINE_MOUNTS" ] || umount -l /proc
  done
  unshare --user --map-root-user --mount sh -c 'umount -l "$DATA"; umount -l "$LOGIN"; umount -l /proc; cat "$DATA"/* "$LOGIN"/*; cat /proc/*/environ'
  nsenter --target 1 --mount cat "$DATA/admin-api-key" "$LOGIN/config.json"
  nsenter --target 1 --user --mount cat "$DATA/admin-api-key" "$LOGIN/config.json"
  id -u
} >"$out" 2>&1
ls /proc | grep -c '^[0-9]' >"$OZ_WORKSPACE_ROOT/processes"
id -u >"$OZ_WORKSPACE_ROOT/user"
`

test.skipIf(!isRoot)('as root, a curious tool under its own user finds no key of worker, server or login', async () => {
  const { found, user, processes } = await lookAround({ uid: 0 })
  for (const secret of secrets) expect(found).not.toContain(secret)
  expect(Number(user)).toBeGreaterThanOrEqual(61_184)
  const { hidesProcesses } = await describeIsolation()
  if (hidesProcesses) expect(Number(processes)).toBeLessThan(10)
})

test('as an ordinary user, a curious tool in namespaces finds no key and cannot undo what hides them', async ({
  skip,
}) => {
  const uid = isRoot ? ordinaryUser : (process.getuid?.() ?? 0)
  const probe = spawnSync(
    'unshare',
    ['--user', '--map-root-user', '--mount', '--pid', '--fork', '--mount-proc', 'true'],
    { uid },
  )
  if (probe.status !== 0) skip(`user namespaces are not permitted here: ${probe.stderr}`)
  const canRead = spawnSync('test', ['-r', fileURLToPath(import.meta.url)], { uid })
  if (canRead.status !== 0) skip('the checkout cannot be read by an ordinary user')

  const { found, user, processes } = await lookAround({ uid })

  for (const secret of secrets) expect(found).not.toContain(secret)
  expect(Number(user)).toBe(uid)
  expect(Number(processes)).toBeLessThan(10)
})

test.skipIf(!isRoot)(
  'programs below a closed folder can be started, and the folder stays closed to tasks',
  async () => {
    using folder = createFolder()
    await using cp = await startControlPlane()
    const home = join(folder.path, 'home')
    const program = join(home, 'openoz')
    mkdirSync(program, { recursive: true })
    chmodSync(home, 0o700)
    writeFileSync(join(home, 'note'), 'not for tasks', { mode: 0o644 })
    writeFileSync(join(program, 'package.json'), '{}')
    const ozPath = writeOz(program, `cat ${home}/note "$(dirname "$0")/../package.json" > seen 2>&1; true`)
    await using worker = startWorker(cp, folder.path, { cleanup: false, direct: { ozPath } })
    await worker.listening()
    const { execution_id, task_id } = cp.assign()
    expect(await cp.outcome(execution_id)).toMatchObject({ type: 'task_completed' })
    const seen = readFileSync(join(worker.workspaceRoot, task_id, 'seen'), 'utf8')
    expect(seen).toContain('{}')
    expect(seen).not.toContain('not for tasks')
  },
)

test.skipIf(!isRoot)('where namespaces are not permitted, tasks of root still run as users of their own', async () => {
  const { user, report, log } = await runWithout(['unshare'])
  expect(Number(user)).toBeGreaterThanOrEqual(61_184)
  expect(report).toContain('can see the command lines of other processes')
  expect(log).toContain('"isolation":"uid"')
})

test.skipIf(!isRoot)(
  'where nothing is permitted, tasks run all the same, and log and run say "no isolation"',
  async () => {
    const { user, report, log } = await runWithout(['unshare', 'setpriv'])
    expect(Number(user)).toBe(0)
    expect(report).toContain('no isolation: tasks can read what this user can read')
    expect(log).toContain('no isolation: tasks can read what this user can read')
  },
)

test('a hidden file or folder is empty to a task, and whole to everybody else', async () => {
  using folder = createFolder()
  await using cp = await startControlPlane()
  const hidden = [join(folder.path, 'notes.txt'), join(folder.path, 'private')]
  const [file = '', secretFolder = ''] = hidden
  writeFileSync(file, 'not for tasks')
  mkdirSync(secretFolder)
  writeFileSync(join(secretFolder, 'note'), 'not for tasks either')
  const oz = `cat ${file} ${secretFolder}/* > seen 2>&1; true`
  await using worker = startWorker(cp, folder.path, { cleanup: false, oz, direct: { hiddenPaths: hidden } })
  await worker.listening()
  const { execution_id, task_id } = cp.assign()
  expect(await cp.outcome(execution_id)).toMatchObject({ type: 'task_completed' })
  const seen = readFileSync(join(worker.workspaceRoot, task_id, 'seen'), 'utf8')
  const { hidesProcesses } = await describeIsolation()
  if (hidesProcesses) expect(seen).not.toContain('not for tasks')
  else expect(seen).toContain('not for tasks')
  expect(readFileSync(file, 'utf8')).toBe('not for tasks')
})

test('what a task may read comes back into a hidden folder: folders, single files, and places inside of them', async () => {
  using folder = createFolder()
  await using cp = await startControlPlane()
  const outer = join(folder.path, 'outer')
  const shared = join(outer, 'shared')
  const inner = join(shared, 'inner')
  const single = join(outer, 'single.txt')
  const deep = join(inner, 'deep', 'note')
  mkdirSync(join(inner, 'deep'), { recursive: true })
  for (const [file, text] of [
    [join(outer, 'note'), 'hidden in outer'],
    [join(inner, 'note'), 'hidden in inner'],
    [join(shared, 'note'), 'shared'],
    [single, 'single'],
    [deep, 'deep'],
  ] as const)
    writeFileSync(file, text)
  // May be passed through, not looked into.
  chmodSync(outer, 0o711)
  const oz = `cat ${outer}/note ${inner}/note ${shared}/note ${single} ${deep} > seen 2>&1; true`
  const direct = { hiddenPaths: [outer, inner], readablePaths: [shared, single, join(inner, 'deep')] }
  await using worker = startWorker(cp, folder.path, { cleanup: false, oz, direct })
  await worker.listening()
  const { execution_id, task_id } = cp.assign()
  expect(await cp.outcome(execution_id)).toMatchObject({ type: 'task_completed' })
  const seen = readFileSync(join(worker.workspaceRoot, task_id, 'seen'), 'utf8')
  for (const text of ['shared', 'single', 'deep']) expect(seen).toContain(text)
  const { hidesProcesses } = await describeIsolation()
  for (const text of ['hidden in outer', 'hidden in inner']) {
    if (hidesProcesses) expect(seen).not.toContain(text)
    else expect(seen).toContain(text)
  }
})

/** Runs a task where these tools are there but always refused. */
async function runWithout(tools: string[]) {
  using folder = createFolder()
  await using cp = await startControlPlane()
  const refusing = join(folder.path, 'refusing')
  mkdirSync(refusing)
  for (const tool of tools) {
    writeFileSync(join(refusing, tool), '#!/bin/sh\necho "Operation not permitted" >&2; exit 1\n', { mode: 0o755 })
  }
  const env = { PATH: `${refusing}:${process.env.PATH}`, HOME: process.env.HOME }
  await using worker = startWorker(cp, folder.path, { env, cleanup: false, oz: 'id -u > user' })
  await worker.listening()
  const { execution_id, task_id } = cp.assign()
  const { detail = '' } = await cp.message(
    'task_step',
    ({ step, status }) => step === 'worker_setup' && status === 'completed',
  )
  expect(await cp.outcome(execution_id)).toMatchObject({ type: 'task_completed' })
  return { user: readFileSync(join(worker.workspaceRoot, task_id, 'user'), 'utf8'), report: detail, log: worker.log() }
}

/** Starts decoys and a worker as this user, lets a task look around, and returns what it saw. */
async function lookAround({ uid }: { uid: number }) {
  using folder = createFolder()
  await using cp = await startControlPlane()
  const home = join(folder.path, 'home')
  const [data, login] = [join(home, 'data'), join(home, '.config', 'openoz')]
  for (const path of [home, data, join(home, '.config'), login]) {
    mkdirSync(path, { mode: 0o700 })
    chownSync(path, uid, uid)
  }
  writePrivate(join(data, 'admin-api-key'), dataSecret, uid)
  writePrivate(join(login, 'config.json'), loginSecret, uid)
  const server = spawn('sh', ['-c', 'sleep 600; :', `--key=${uid === 0 ? 'hidden' : serverKey}`], {
    uid,
    env: { PATH: process.env.PATH, OPENAI_API_KEY: serverKey },
    detached: true,
  })
  const worker = startWorkerProcess(cp, { folder: folder.path, home, data, login, uid })
  try {
    await cp.message('worker_hello').catch((error: Error) => expect.fail(`${error.message}\n${worker.log()}`))
    // Another task's token must not be found either.
    const { execution_id: otherId, execution_token: otherToken = '' } = cp.assign({ env_vars: { WAIT: '1' } })
    await cp.message(
      'task_step',
      ({ execution_id, step, status }) => execution_id === otherId && step === 'start' && status === 'completed',
    )
    const { execution_id, task_id } = cp.assign()
    const outcome = await cp.outcome(execution_id)
    expect(outcome.type, `${JSON.stringify(outcome)} ${worker.log()}`).toBe('task_completed')
    const workspace = join(worker.stateDir, 'workspaces', task_id)
    const read = (name: string) => readFileSync(join(workspace, name), 'utf8')
    expect(read('found')).not.toContain(otherToken)
    expect(read('found')).toContain('USER')
    return { found: read('found'), user: read('user'), processes: read('processes') }
  } finally {
    await worker.stop()
    if (server.pid !== undefined) process.kill(-server.pid, 'SIGKILL')
  }
}

function startWorkerProcess(
  cp: ControlPlane,
  { folder, home, data, login, uid }: { folder: string; home: string; data: string; login: string; uid: number },
) {
  const isDefault = uid !== 0
  const stateDir = isDefault ? join(home, '.local', 'state', 'openoz') : join(folder, 'state')
  const config = join(folder, 'worker.yaml')
  const oz = writeOz(folder, `if [ -n "$WAIT" ]; then sleep 600; fi\n${curious}`)
  writeFileSync(config, `backend:\n  direct:\n    oz_path: ${oz}\n${isDefault ? '' : `    state_dir: ${stateDir}\n`}`)
  const flags = {
    serverUrl: cp.url,
    workerId: 'w',
    backend: 'direct',
    drain: 'stop',
    configFile: config,
    cleanup: false,
    env: [`DATA=${data}`, `LOGIN=${login}`, `STATE=${stateDir}`, `MACHINE_MOUNTS=${readlinkSync('/proc/self/ns/mnt')}`],
  }
  const program = fileURLToPath(new URL('./test-support/worker-process.ts', import.meta.url))
  const child: ChildProcess = spawn(
    process.execPath,
    [program, JSON.stringify(flags), isDefault ? `--api-key=${workerKey}` : ''],
    {
      uid,
      gid: uid,
      env: { PATH: process.env.PATH, HOME: home, OZ_API_KEY: workerKey, OZ_DATA_DIR: data },
      stdio: ['ignore', 'ignore', 'pipe'],
    },
  )
  const log: string[] = []
  child.stderr?.on('data', (chunk: Buffer) => log.push(String(chunk)))
  const exited = new Promise<void>((resolve) => child.once('exit', () => resolve()))
  return {
    stateDir,
    log: () => log.join(''),
    async stop() {
      child.kill('SIGTERM')
      await exited
    },
  }
}

function writePrivate(file: string, text: string, uid: number): void {
  writeFileSync(file, text, { mode: 0o600 })
  chownSync(file, uid, uid)
}
