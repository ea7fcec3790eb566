import { execFile } from 'node:child_process'
import { mkdtempSync, rmSync } from 'node:fs'
import { join } from 'node:path'
import { fileURLToPath } from 'node:url'
import { promisify } from 'node:util'
import { packBundle, readBundle } from '@openoz/worker'
import pg from 'pg'
import { afterAll, beforeAll, expect, type TestContext, test } from 'vitest'
import { agentBundles } from '../packages/cli/src/stack/agent-bundles.ts'
import { createAgentArchives } from '../packages/server/src/agent-archives.ts'
import { type ControlPlane, type ControlPlaneOptions, startControlPlane } from './support/control-plane.ts'
import { otherBundle } from './support/other-bundle.ts'
import { until } from './support/poll.ts'
import { bootScratchMachine } from './support/scratch-machine.ts'
import { startScriptedModel } from './support/scripted-model.ts'
import { bootSystemd } from './support/systemd-machine.ts'

/**
 * `install.sh` from a real control plane on a machine that has nothing of ours, as root and as a user: joined, at work, updated, removed. The machine has
 * no systemd, and no network but the control plane. Skipped, and says so, where no such machine can be made.
 */
const execute = promisify(execFile)
const root = fileURLToPath(new URL('../', import.meta.url))
const folder = mkdtempSync(join(root, 'node_modules', '.cache', 'oz-machine-install-'))
const dist = join(folder, 'dist')
const bundles = agentBundles({ OZ_AGENT_BUNDLE: join(dist, 'agent') })

beforeAll(async () => {
  await execute(process.execPath, [join(root, 'scripts', 'build.ts'), '--into', dist], { cwd: root })
  // Each control plane would compress it once.
  const archives = createAgentArchives({ bundles, folder: join(folder, 'install') })
  await archives.find(process.arch === 'arm64' ? 'linux/arm64' : 'linux/amd64')
}, 300_000)
afterAll(() => rmSync(folder, { recursive: true, force: true, maxRetries: 5 }))

async function startPlane(options: ControlPlaneOptions = {}): Promise<ControlPlane> {
  const cp = await startControlPlane({ bundles, ...options })
  await execute('cp', ['-a', join(folder, 'install'), join(cp.folder, 'server-0')])
  return cp
}

/** Skips the test, and says so, where no such machine can be made. */
async function made<T extends object>(context: TestContext, making: Promise<T | { problem: string }>): Promise<T> {
  const machine = await making
  if (!('problem' in machine)) return machine
  console.error(`NOT TESTED: ${machine.problem}`)
  return context.skip(machine.problem)
}

const boot = (context: TestContext, cp: ControlPlane) => made(context, bootScratchMachine(cp.url))
const commandLines = 'cat /proc/[0-9]*/cmdline 2>/dev/null | tr "\\0" " "'
const script = (cp: ControlPlane) => `curl -fsS ${cp.url}/install.sh`
const newToken = async (cp: ControlPlane, workerId?: string) =>
  (await cp.client.workers.createJoinToken({ worker_id: workerId })).token
const connected = async (cp: ControlPlane) =>
  (await cp.client.workers.list()).workers.map(({ worker_id, backend }) => ({ worker_id, backend }))

const owners = [
  {
    of: 'root',
    user: undefined,
    bin: '/usr/local/bin',
    key: '/etc/openoz/oz-agent-worker.json',
    state: '/var/lib/oz',
  },
  {
    of: 'a user',
    user: 'ada',
    bin: '/home/ada/.local/bin',
    key: '/home/ada/.config/openoz/oz-agent-worker.json',
    state: '/home/ada/.local/state/openoz',
  },
] as const

test.for(owners)(
  'as $of a machine joins with one line, works, and `--uninstall` leaves nothing',
  { timeout: 240_000 },
  async (owner, context) => {
    const { user, key, state } = owner
    await using model = await startScriptedModel({
      steps: [
        { toolCalls: [{ name: 'run_command', arguments: { command: 'echo "[$OZ_JOIN_TOKEN$OZ_API_KEY]"' } }] },
        { text: 'Done.' },
      ],
    })
    await using cp = await startPlane({
      env: { OPENAI_API_KEY: 'sk-test', OPENAI_BASE_URL: `${model.url}/v1` },
    })
    await using machine = await boot(context, cp)
    const before = await machine.additions()
    const token = await newToken(cp)
    const from = performance.now()
    // A log that says nothing does not keep the worker from being seen connected, nor does an engine that is away.
    const line = `${script(cp)} | sh -s -- --join ${token} --worker-id build-9 -- --log-level error`
    const joined = await machine.run(line, { user, env: { DOCKER_HOST: 'unix:///nowhere.sock' } })
    expect([joined.exitCode, joined.stderr]).toEqual([0, ''])
    expect(performance.now() - from).toBeLessThan(20_000)
    expect(joined.stdout).toContain(`This machine has joined ${cp.url} as worker build-9.`)
    expect(joined.stdout).toContain('backend  direct')
    expect(joined.stdout).toContain(`${key}, mode 0600`)
    expect(joined.stdout).toContain('oz-agent-worker leave --stop')
    expect(await connected(cp)).toEqual([{ worker_id: 'build-9', backend: 'direct' }])
    expect((await machine.run(`stat -c '%a %u' ${key}`)).stdout).toBe(user === undefined ? '600 0\n' : '600 64123\n')
    const installation = (await machine.run(`cat ${key.replace('oz-agent-worker', 'installation')}`)).stdout
    expect(JSON.parse(installation).worker.engine).toEqual({ DOCKER_HOST: 'unix:///nowhere.sock' })
    const processes = (await machine.run(commandLines)).stdout
    expect(processes).toContain('oz-agent-worker.mjs')
    expect(processes).not.toMatch(/jt-|wk-/)
    expect(
      (await machine.run('oz-agent-worker --version; ls /tmp', { user, env: { PATH: `${owner.bin}:/usr/bin:/bin` } }))
        .stdout,
    ).toMatch(/^0\.\d+\.\d+\n$/)

    const runId = await cp.createRun({ config: { worker_host: 'build-9', idle_timeout_minutes: 0 } })
    await cp.waitFor(runId, 'SUCCEEDED', 60_000)
    expect(JSON.stringify(await cp.eventsOf(runId))).toContain('[]')

    const removed = await machine.run(`${script(cp)} | sh -s -- --uninstall`, { user })
    expect([removed.exitCode, removed.stderr]).toEqual([0, ''])
    expect(await machine.additions()).toEqual(before)
    expect(removed.stdout).toContain('Removed.')
    expect((await machine.run(`ls ${state}`)).exitCode).not.toBe(0)
    expect((await cp.client.apiKeys.list()).api_keys.map(({ scope }) => scope)).toEqual(['user'])
    expect(await machine.packetsOut()).toBe(0)
  },
)

test('a token that is used, over, or none, ends it with the reason, and nothing is there', {
  timeout: 240_000,
}, async (context) => {
  await using cp = await startPlane()
  await using machine = await boot(context, cp)
  const before = await machine.additions()
  const used = await newToken(cp)
  const request = { host: 'h', platform: 'p', nonce: 'a'.repeat(32) }
  await cp.clientFor(used).workers.join({ ...request, worker_id: 'w' })
  const late = await newToken(cp)
  const other = await newToken(cp, 'build-2')
  await cp.advanceDatabaseClock({ seconds: 3601 })
  const cases: [string, string][] = [
    [used, 'The join token was used at'],
    [late, 'The join token was good until'],
    [`jt-${'x'.repeat(43)}`, 'No join token matches'],
    ['wk-key', 'This is no join token'],
    ["jt-x'; touch /oops; '", 'This is no join token'],
  ]
  for (const [token, reason] of cases) {
    // Without curl the program that was downloaded asks, before anything is installed.
    const shells = ['sh', 'busybox sh']
    for (const shell of token.startsWith('jt-x') ? shells.slice(0, 1) : shells) {
      const { exitCode, stderr } = await machine.run(`${script(cp)} | ${shell} -s -- --join "$TOKEN"`, {
        env: { TOKEN: token },
      })
      expect([token, exitCode, stderr]).toEqual([token, 1, expect.stringContaining(reason)])
    }
  }
  const fresh = await newToken(cp, 'build-2')
  const { exitCode, stderr } = await machine.run(`${script(cp)} | sh -s -- --join ${fresh} --worker-id build-1`)
  expect([exitCode, stderr]).toEqual([1, expect.stringContaining('was made for worker build-2 only')])
  expect(other).not.toBe(fresh)
  expect((await machine.run(`${script(cp)} | sh -s -- --join`)).exitCode).toBe(2)
  expect(await machine.additions()).toEqual(before)
  expect(await cp.clientFor(fresh).workers.checkJoinToken()).toMatchObject({ worker_id: 'build-2' })
})

test('one that is stopped is undone, one that is killed goes on or is removed, and of two at once one is refused', {
  timeout: 240_000,
}, async (context) => {
  await using cp = await startPlane()
  await using machine = await boot(context, cp)
  const before = await machine.additions()
  const workerKeys = async () =>
    (await cp.client.apiKeys.list()).api_keys.filter(({ scope }) => scope === 'worker').length
  const install = (token: string) => machine.run(`${script(cp)} | sh -s -- --join ${token} --worker-id build-6`)
  /** Up to where the control plane is asked for the key and does not answer; `meanwhile` ends with what the program is to be told. */
  const cutShort = async (token: string, signal: string, meanwhile = async () => {}) => {
    const client = new pg.Client({ connectionString: cp.database.url })
    await client.connect()
    try {
      await client.query('begin')
      await client.query('select id from join_tokens for update')
      const installing = install(token)
      await until(
        () =>
          client.query(
            `select 1 from pg_stat_activity where datname = current_database() and wait_event_type = 'Lock'`,
          ),
        ({ rows }) => rows.length > 0,
        { timeoutMs: 20_000 },
      )
      await meanwhile()
      await machine.run(`pkill -${signal} -f 'oz-agent-worker.mjs [s]et-up'`)
      await client.query('commit')
      return await installing
    } finally {
      await client.end()
    }
  }

  const other = await newToken(cp)
  const stopped = await cutShort(await newToken(cp), 'INT', async () => {
    const refused = await install(other)
    expect([refused.exitCode, refused.stderr]).toEqual([1, expect.stringMatching(/Process \d+ is setting up/)])
  })
  expect(stopped.stderr).toContain('what was begun is undone. The join token is used up')
  expect(await machine.additions()).toEqual(before)
  expect(await workerKeys()).toBe(0)

  await cutShort(other, 'KILL')
  await until(workerKeys, (count) => count === 1)
  const again = await install(other)
  expect([again.exitCode, again.stderr]).toEqual([0, ''])
  expect(await connected(cp)).toEqual([{ worker_id: 'build-6', backend: 'direct' }])
  expect(await workerKeys()).toBe(1)
  expect((await machine.run('ls -A /etc/openoz')).stdout).toBe('installation.json\noz-agent-worker.json\n')
  expect((await machine.run(`${script(cp)} | sh -s -- --uninstall`)).exitCode).toBe(0)
  expect(await machine.additions()).toEqual(before)

  await cutShort(await newToken(cp), 'KILL')
  // As if it had been killed while the programs were put into place.
  await machine.run('rm /opt/openoz/current')
  const removed = await machine.run(`${script(cp)} | sh -s -- --uninstall`)
  expect([removed.exitCode, removed.stderr]).toEqual([0, ''])
  expect(removed.stdout).toContain('A join as build-6 was cut short.')
  expect(await machine.additions()).toEqual(before)
})

test('the token is in no program’s arguments, and nothing of it stays on the machine', async (context) => {
  await using cp = await startPlane()
  await using machine = await boot(context, cp)
  const token = await newToken(cp)
  const watch = 'while :; do cat /proc/[0-9]*/cmdline; done >/run/seen 2>/dev/null & watch=$!'
  const join = `${watch}; ${script(cp)} | sh; code=$?; kill $watch; exit $code`
  const { exitCode } = await machine.run(join, { env: { OZ_JOIN_TOKEN: token } })
  expect(exitCode).toBe(0)
  expect((await machine.run('grep -c set-up /run/seen')).stdout).not.toBe('0\n')
  expect((await machine.run(`grep -c -e jt- -e wk- /run/seen`)).stdout).toBe('0\n')
  const places = '/etc/openoz /var/lib/oz /opt/openoz /usr/local/bin /tmp /var/tmp'
  expect((await machine.run(`grep -rl ${token} ${places}`)).stdout).toBe('')
  expect((await machine.run(`cat /proc/[0-9]*/environ | grep -c ${token}`)).stdout).toBe('0\n')
})

test('the line without a token updates what is there: the worker goes on with the new programs, and its run with it', {
  timeout: 240_000,
}, async (context) => {
  const first = await readBundle(join(dist, 'agent'))
  if (!first) throw new Error('no bundle was built')
  const second = await otherBundle(first, join(folder, 'other'))
  let served = first
  const find = async () => ({ hash: served.manifest.hash, pack: () => packBundle(served) })
  await using model = await startScriptedModel({
    steps: [
      { toolCalls: [{ name: 'run_command', arguments: { command: 'until [ -e go ]; do sleep 0.1; done' } }] },
      { text: 'Done.' },
    ],
  })
  const providers = { OPENAI_API_KEY: 'sk-test', OPENAI_BASE_URL: `${model.url}/v1` }
  await using cp = await startPlane({ bundles: { find }, env: providers })
  await using machine = await boot(context, cp)
  const must = async (command: string) => {
    const { exitCode, stdout, stderr } = await machine.run(command)
    expect([command, exitCode, stderr]).toEqual([command, 0, ''])
    return stdout
  }
  const pid = async () => (await must('head -1 /var/lib/oz/worker.pid')).trim()
  await must(`${script(cp)} | sh -s -- --join ${await newToken(cp, 'build-3')}`)
  const before = await pid()
  const runId = await cp.createRun({ config: { worker_host: 'build-3', idle_timeout_minutes: 0 } })
  await until(
    () => must(commandLines),
    (text) => text.includes('until [ -e go ]'),
    { timeoutMs: 20_000 },
  )

  served = second
  const older = `/opt/openoz/${'0'.repeat(64)}`
  await must(`mkdir ${older}; ${script(cp)} | sh`)
  expect(await must('readlink /opt/openoz/current')).toBe(`${second.manifest.hash}\n`)
  expect(await pid()).not.toBe(before)
  expect((await must('ls /opt/openoz')).split('\n')).toContain(first.manifest.hash)
  await must(`touch /var/lib/oz/workspaces/${runId}/go`)
  await cp.waitFor(runId, 'SUCCEEDED', 30_000)
  const { executions } = await cp.client.runs.executions(runId)
  expect(executions).toHaveLength(1)

  // The one before goes with the update after that, and the same programs once more are none.
  await must(`! test -e ${older}; ${script(cp)} | sh`)
  expect((await must('ls /opt/openoz')).split('\n')).toContain(first.manifest.hash)
  // A machine that was started again has no process any more.
  await must('oz-agent-worker leave --stop')
  await until(
    () => connected(cp),
    (workers) => workers.length === 0,
  )
  expect(await must('oz-agent-worker join')).toMatch(/^Worker build-3 runs: process \d+\.\n$/)
  expect(await must('oz-agent-worker join')).toMatch(/^Worker build-3 runs already: process \d+\.\n$/)

  // With another token it gets another key, also for the name that is its own, and what it had elsewhere goes.
  await must(`printf 'backend:\\n  direct:\\n    state_dir: /var/lib/oz-b\\n' >/etc/worker.yaml`)
  const oldKeys = (await cp.client.apiKeys.list()).api_keys.map(({ uid }) => uid)
  const words = `join --worker-id build-3 --server-url ${cp.url} --config-file /etc/worker.yaml`
  expect(await must(`OZ_JOIN_TOKEN=${await newToken(cp)} oz-agent-worker ${words}`)).toContain('as worker build-3.')
  await until(
    () => connected(cp),
    (workers) => workers.length === 1 && workers[0]?.worker_id === 'build-3',
  )
  const { api_keys } = await cp.client.apiKeys.list()
  expect(api_keys.map(({ worker_id }) => worker_id)).toEqual([null, 'build-3'])
  expect(oldKeys).not.toContain(api_keys[1]?.uid)
  expect((await machine.run('ls /var/lib/oz')).exitCode).not.toBe(0)

  await must('mkdir -p /var/lib/oz-b/saved-workspaces/1')
  expect(await must('oz-agent-worker leave')).toContain('/var/lib/oz-b/saved-workspaces stays: it holds work')
  expect(await must('ls /var/lib/oz-b')).toBe('saved-workspaces\n')
  expect((await machine.run('ls /opt/openoz /etc/openoz')).exitCode).not.toBe(0)
})

test('a program of the same name that is not ours is not replaced', async (context) => {
  await using cp = await startPlane()
  await using machine = await boot(context, cp)
  await machine.run('echo mine >/usr/local/bin/oz')
  const before = await machine.additions()
  const token = await newToken(cp)
  const { exitCode, stderr } = await machine.run(`${script(cp)} | sh -s -- --join ${token}`)
  expect([exitCode, stderr]).toEqual([1, expect.stringContaining('There is another program in /usr/local/bin/oz')])
  expect(await machine.additions()).toEqual(before)
  await cp.clientFor(token).workers.checkJoinToken()
})

test('where a machine has wget or BusyBox alone, the script does the same', { timeout: 240_000 }, async (context) => {
  await using cp = await startPlane()
  await using machine = await boot(context, cp)
  const before = await machine.additions()
  const tools = 'sh cat uname id mktemp sed tar gzip wget rm mkdir chmod head sleep ls readlink'
  const links = `mkdir -p /run/box; for tool in ${tools}; do ln -s /bin/busybox /run/box/$tool; done`
  expect((await machine.run(`busybox true && ${links}`)).exitCode).toBe(0)
  const env = { PATH: '/run/box' }
  const refused = await machine.run(`wget -qO- ${cp.url}/install.sh | sh -s -- --join jt-unknown`, { env })
  expect([refused.exitCode, refused.stderr]).toEqual([1, expect.stringContaining('No join token matches')])
  expect(await machine.additions()).toEqual(before)
  const joined = await machine.run(`wget -qO- ${cp.url}/install.sh | sh -s -- --join ${await newToken(cp, 'b')}`, {
    env,
  })
  expect([joined.exitCode, joined.stderr]).toEqual([0, ''])
  expect(await connected(cp)).toEqual([{ worker_id: 'b', backend: 'direct' }])
  expect((await machine.run(`wget -qO- ${cp.url}/install.sh | sh -s -- --uninstall`, { env })).exitCode).toBe(0)
  expect(await machine.additions()).toEqual(before)
})

test('under systemd the worker is a service, and goes with it', { timeout: 240_000 }, async (context) => {
  await using cp = await startPlane()
  await using machine = await made(context, bootSystemd())
  const inside = (command: string) =>
    machine.run(['sh', '-c', command], { PATH: '/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin' })
  const joined = await inside(`rm -rf /var/lib/oz; ${script(cp)} | sh -s -- --join ${await newToken(cp, 'build-5')}`)
  expect([joined.exitCode, joined.stderr]).toEqual([0, ''])
  expect(joined.stdout).toContain('/etc/openoz/oz-agent-worker.env, mode 0600')
  expect(joined.stdout).toContain('systemctl stop oz-agent-worker')
  await until(
    () => connected(cp),
    (workers) => workers.length === 1,
    { timeoutMs: 20_000 },
  )
  expect((await inside('systemctl is-enabled oz-agent-worker')).stdout).toBe('enabled\n')
  const removed = await inside(`${script(cp)} | sh -s -- --uninstall`)
  expect([removed.exitCode, removed.stderr]).toEqual([0, ''])
  const left =
    'ls -d /opt/openoz /etc/openoz /var/lib/oz /usr/local/bin/oz* /etc/systemd/system/oz-agent-worker* 2>/dev/null'
  expect((await inside(left)).stdout).toBe('')

  // A user's systemd is found without the variable that sessions have, and one that does not answer is not taken for a worker that has stopped.
  await inside('useradd --create-home --uid 64123 ada; loginctl enable-linger ada')
  await until(
    () => inside('systemctl is-active user@64123.service'),
    ({ exitCode }) => exitCode === 0,
  )
  const ada = (command: string, variables = '') =>
    inside(`setpriv --reuid 64123 --regid 64123 --clear-groups env HOME=/home/ada ${variables} sh -c '${command}'`)
  const join = async () => `${script(cp)} | sh -s -- --join ${await newToken(cp, 'build-6')}`
  const own = await ada(await join())
  expect([own.exitCode, own.stderr]).toEqual([0, ''])
  expect(own.stdout).toContain('journalctl --user -u oz-agent-worker')
  await inside('chmod 0 /run/user/64123')
  const refused = await ada('~/.local/bin/oz-agent-worker leave')
  expect([refused.exitCode, refused.stderr]).toEqual([1, expect.stringContaining('Nothing was removed')])
  expect(await connected(cp)).toEqual([{ worker_id: 'build-6', backend: 'direct' }])
  await inside('chmod 700 /run/user/64123')
  const systemctl = 'XDG_RUNTIME_DIR=/run/user/64123 systemctl --user'
  // Gone by hand, and the worker with it.
  await ada(`${systemctl} stop oz-agent-worker; rm ~/.config/systemd/user/*.service; ${systemctl} daemon-reload`)
  const gone = await ada(`${script(cp)} | sh -s -- --uninstall`)
  expect([gone.exitCode, gone.stderr]).toEqual([0, ''])
  expect(gone.stdout).toContain('Worker build-6 does not run.')
  expect((await ada('cd; find .local .config')).stdout).toBe('')

  // Its systemd does not answer from the beginning.
  await inside('chmod 0 /run/user/64123')
  const alone = await ada(await join(), 'XDG_RUNTIME_DIR=/run/user/64123')
  expect([alone.exitCode, alone.stderr]).toEqual([0, ''])
  expect(alone.stdout).toContain('in the background, process')
  expect((await ada('~/.local/bin/oz-agent-worker leave')).exitCode).toBe(0)
})
