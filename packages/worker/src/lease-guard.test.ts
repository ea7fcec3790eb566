import { spawn, spawnSync } from 'node:child_process'
import { randomUUID } from 'node:crypto'
import { once } from 'node:events'
import { chmodSync, existsSync, mkdirSync, readFileSync, statSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'
import { bootClockMs, endProcessTree, findProcesses, identifyProcess } from '@openoz/machine'
import { expect, test } from 'vitest'
import { shim } from './shell-text.ts'
import { taskFolder } from './task-folder.ts'
import { watchLease } from './task-lease.ts'
import { spawnWorker } from './test-support/child-worker.ts'
import { type ControlPlane, startControlPlane } from './test-support/control-plane.ts'
import { until } from './test-support/until.ts'
import { createFolder, startWorker } from './test-support/worker.ts'

/**
 * An agent that stops (`kill -STOP`) a moment after it has written its lease, with a command of its own that goes on: who ends that one, and when? Some
 * of the commands have left the agent as far as they can.
 */
const leaseMs = 3_000

const beat = (file: string) => `while :; do echo >>${file}; sleep 0.05; done`

function frozenAgent(out: string, { leaving = '' } = {}): string {
  return `read -r up rest </proc/uptime
${leaving} sh -c '${beat(join(out, 'beats'))}' &
printf '%s\\n' "$((\${up%.*}\${up#*.}0 + ${leaseMs}))" >"$OZ_SPOOL_DIR/lease"
cp "$OZ_SPOOL_DIR/lease" ${out}/lease; touch ${out}/frozen; kill -STOP $$`
}

function openOut(folder: string): string {
  const out = join(folder, 'out')
  mkdirSync(out)
  chmodSync(out, 0o777)
  return out
}

const beats = (out: string) => statSync(join(out, 'beats'), { throwIfNoEntry: false })?.size ?? 0

/** Resolves with how long after the deadline the last of them was gone. */
async function untilDead(executionId: string, out: string): Promise<number> {
  await until('the frozen agent', () => existsSync(join(out, 'frozen')))
  await until('the command to go on', () => beats(out) > 5)
  await until(
    'the end of everything',
    async () => (await findProcesses({ marker: `OZ_EXECUTION_ID=${executionId}` })).length === 0,
  )
  const late = bootClockMs() - Number(readFileSync(join(out, 'lease'), 'utf8'))
  const last = beats(out)
  await until('no more beats', () => beats(out) === last)
  return late
}

/** The shim may not have come to it yet. */
const guardOf = (executionId: string, shimPid: number) =>
  until('the guard', async () =>
    (await findProcesses({ marker: `OZ_EXECUTION_ID=${executionId}` })).find(
      ({ ppid, command }) => ppid === shimPid && command === 'sh',
    ),
  )

async function assigned(cp: ControlPlane, stateDir: string) {
  await cp.message('worker_hello')
  const assignment = cp.assign()
  await cp.message('task_step', ({ step, status }) => step === 'start' && status === 'completed')
  const file = join(stateDir, 'tasks', assignment.execution_id, 'task.json')
  const shimPid = JSON.parse(readFileSync(file, 'utf8')).process.pid as number
  return { ...assignment, shimPid }
}

test.each([
  ['in its group', ''],
  ['in a session of its own', 'setsid'],
])(
  'with the worker killed, the shim ends a frozen agent by its deadline, and a command %s with it',
  async (_, leaving) => {
    using folder = createFolder()
    const out = openOut(folder.path)
    await using cp = await startControlPlane()
    await using former = spawnWorker(cp, folder.path, { oz: frozenAgent(out, { leaving }) })
    const { execution_id, task_id } = await assigned(cp, former.stateDir)
    await former.kill()
    const late = await untilDead(execution_id, out)
    expect(late).toBeGreaterThan(-200)
    expect(late).toBeLessThan(1_500)

    await using worker = startWorker(cp, folder.path)
    expect(await cp.outcome(execution_id)).toMatchObject({
      type: 'task_failed',
      data: { task_id, failure_reason: 'lease_lost', exit_code: 75 },
    })
    await worker.leavesNothing()
  },
)

test('with the guard killed, the worker ends a frozen agent by its deadline', async () => {
  using folder = createFolder()
  const out = openOut(folder.path)
  await using cp = await startControlPlane()
  await using worker = startWorker(cp, folder.path, { oz: frozenAgent(out, { leaving: 'setsid' }) })
  const { execution_id, shimPid } = await assigned(cp, worker.stateDir)
  const guard = await guardOf(execution_id, shimPid)
  process.kill(guard.pid, 'SIGKILL')
  const late = await untilDead(execution_id, out)
  expect(late).toBeGreaterThan(900)
  expect(late).toBeLessThan(3_000)
  expect(await cp.outcome(execution_id)).toMatchObject({ data: { failure_reason: 'lease_lost', exit_code: 75 } })
  await worker.leavesNothing()
})

test('an agent that moves its deadline in time lives on, and leaves no guard when it ends', async () => {
  using folder = createFolder()
  const out = openOut(folder.path)
  await using cp = await startControlPlane()
  const renew = `read -r up rest </proc/uptime; printf '%s\\n' "$((\${up%.*}\${up#*.}0 + 1000))" >"$OZ_SPOOL_DIR/lease.tmp"; mv "$OZ_SPOOL_DIR/lease.tmp" "$OZ_SPOOL_DIR/lease"`
  await using worker = startWorker(cp, folder.path, {
    oz: `i=0; while [ $i -lt 30 ]; do ${renew}; sleep 0.1; i=$((i + 1)); done; rm "$OZ_SPOOL_DIR/lease"; touch ${out}/done`,
  })
  const { execution_id, shimPid } = await assigned(cp, worker.stateDir)
  const guard = await guardOf(execution_id, shimPid)
  expect((await cp.outcome(execution_id)).type).toBe('task_completed')
  expect(existsSync(join(out, 'done'))).toBe(true)
  expect(identifyProcess(guard.pid)).toBeUndefined()
})

/** The shim by itself: nobody but its guard can end what it starts. */
function runShim(
  control: string,
  agent: string,
  {
    shell = ['sh'],
    user = '',
    state = randomUUID(),
    path = process.env.PATH,
    text = shim,
  }: { shell?: string[]; user?: string; state?: string; path?: string; text?: string } = {},
) {
  mkdirSync(join(control, 'spool'), { recursive: true })
  const id = randomUUID()
  const [program = 'sh', ...args] = shell
  const child = spawn(program, [...args, '-c', text, 'oz-shim', control, user, 'sh', '-c', agent], {
    env: { PATH: path, OZ_EXECUTION_ID: id, OZ_WORKER_STATE: `${state}/${id}` },
    // A group of its own, as the worker gives it.
    detached: true,
    stdio: 'ignore',
  })
  const ended = once(child, 'exit')
  return {
    id,
    pid: child.pid ?? 0,
    ended,
    exit: () => readFileSync(join(control, 'exit'), 'utf8'),
    async [Symbol.asyncDispose]() {
      await endProcessTree({ marker: `OZ_EXECUTION_ID=${id}` }, 0)
      await ended
    },
  }
}

/** What an agent says to be dead by then. */
const deadlineIn = (ms: number) => `read -r up rest </proc/uptime; echo "$((\${up%.*}\${up#*.}0 + ${ms}))"`

test.each([
  ['nothing', ': >LEASE'],
  ['a word', 'echo soon >LEASE'],
  ['too many digits', 'echo 99999999999999999999 >LEASE'],
  ['a negative number', 'echo -5 >LEASE'],
  ['what a shell takes for octal', 'echo 0900000000 >LEASE'],
  ['what a shell takes for octal, and passed', 'echo 0100 >LEASE'],
  ['one long line', 'head -c 20000000 /dev/zero | tr "\\0" 1 >LEASE'],
  ['a link to a deadline that has passed', 'echo 1 >OTHER; ln -s OTHER LEASE'],
  ['a pipe', 'mkfifo LEASE'],
])('a lease file that is %s is no deadline, and the next one that is one counts', async (_, write) => {
  using folder = createFolder()
  const lease = join(folder.path, 'spool', 'lease')
  const words = write.replaceAll('LEASE', lease).replaceAll('OTHER', join(folder.path, 'other'))
  await using run = runShim(
    folder.path,
    `${words}; sleep 1.5; touch ${folder.path}/alive; ${deadlineIn(300)} >${lease}.tmp; mv ${lease}.tmp ${lease}; sleep 600`,
  )
  await run.ended
  expect(existsSync(join(folder.path, 'alive'))).toBe(true)
  expect(run.exit()).toBe('075\n')
})

test('a date that is further away than the first one was ends what is frozen all the same, from when it was seen', async () => {
  using folder = createFolder()
  const lease = join(folder.path, 'spool', 'lease')
  const put = (words: string) => `${words} >${lease}.tmp; mv ${lease}.tmp ${lease}`
  const agent = `${put(deadlineIn(2_000))}; sleep 1; ${put('echo 999999999999999')}; date +%s%N >${folder.path}/at; kill -STOP $$`
  // 12 s after the first look in the place of 15 min.
  await using run = runShim(folder.path, agent, {
    text: shim.replaceAll('900000', '3000').replace('left + 10000', 'left'),
  })
  await run.ended
  expect(run.exit()).toBe('075\n')
  expect(readFileSync(join(folder.path, 'longest-lease'), 'utf8')).toBe('3000\n')
  const at = Number(readFileSync(join(folder.path, 'at'), 'utf8')) / 1e6
  expect(Date.now() - at).toBeGreaterThan(2_500)
})

test('how long leases are at most is what the agent said first, and never less than a usual one', async () => {
  using folder = createFolder()
  await using run = runShim(folder.path, `${deadlineIn(4_000_000)} >${folder.path}/spool/lease; sleep 3`)
  await run.ended
  const longest = Number(readFileSync(join(folder.path, 'longest-lease'), 'utf8'))
  expect(longest).toBeGreaterThan(4_000_000)
  expect(longest).toBeLessThanOrEqual(4_010_000)
  expect(run.exit()).toBe('000\n')
})

test('the worker believes a lease as its shim does', async () => {
  using folder = createFolder()
  const paths = taskFolder(folder.path, randomUUID())
  mkdirSync(paths.spool, { recursive: true })
  const read = (text: string) => {
    writeFileSync(join(paths.spool, 'lease'), text)
    return watchLease(paths)()
  }
  const no = ['', 'soon', '-5', '0900000000', ' 7', '7 ', '7\n7', '9'.repeat(16)]
  for (const text of no) expect(await read(text)).toBeUndefined()
  for (const text of ['0', '7', '7\n', '9'.repeat(15)]) expect(await read(text)).toBe(Number(text))

  writeFileSync(paths.longestLease, '5000\n')
  const watch = watchLease(paths)
  const before = bootClockMs()
  writeFileSync(join(paths.spool, 'lease'), '999999999999999\n')
  const seen = (await watch()) ?? 0
  expect(seen).toBeGreaterThanOrEqual(before + 5_000)
  expect(seen).toBeLessThanOrEqual(bootClockMs() + 5_000)
  await new Promise((resolve) => setTimeout(resolve, 50))
  expect(await watch()).toBe(seen)
})

test('a guard that is asked to go while it ends everything finishes that', async () => {
  using folder = createFolder()
  const bin = join(folder.path, 'bin')
  mkdirSync(bin)
  const [within, go] = [join(folder.path, 'within'), join(folder.path, 'go')]
  const waiting = `touch ${within}; until [ -e ${go} ]; do sleep 0.05; done`
  writeFileSync(join(bin, 'grep'), `#!/bin/sh\n${waiting}\nexec /bin/grep "$@"\n`, { mode: 0o755 })
  await using run = runShim(folder.path, `${deadlineIn(0)} >${folder.path}/spool/lease; sleep 600`, {
    path: `${bin}:${process.env.PATH}`,
  })
  await until('the guard at work', () => existsSync(within))
  process.kill((await guardOf(run.id, run.pid)).pid, 'SIGTERM')
  writeFileSync(go, '')
  await run.ended
  expect(run.exit()).toBe('075\n')
})

test('what has neither environment, group nor session of the task is found below what has', async () => {
  using folder = createFolder()
  const file = join(folder.path, 'beats')
  await using run = runShim(
    folder.path,
    `setsid env -i sh -c 'echo $$ >${folder.path}/pid; ${beat(file)}' & ${deadlineIn(1_500)} >${folder.path}/spool/lease; kill -STOP $$`,
  )
  const pid = Number(
    await until(
      'its pid',
      () => existsSync(join(folder.path, 'pid')) && readFileSync(join(folder.path, 'pid'), 'utf8').trim(),
    ),
  )
  await run.ended
  await until('its end', () => identifyProcess(pid) === undefined)
})

test.skipIf(process.getuid?.() !== 0)(
  'a task of another installation that has the same user is left alone',
  async () => {
    using folder = createFolder()
    const uid = 65_503
    const sleeper = (env: NodeJS.ProcessEnv) =>
      spawn('sleep', ['613'], { uid, env: { PATH: process.env.PATH, ...env }, detached: true, stdio: 'ignore' })
    const theirs = sleeper({ OZ_WORKER_STATE: `${randomUUID()}/${randomUUID()}` })
    const ours = sleeper({})
    const gone = once(ours, 'exit')
    await using run = runShim(folder.path, `${deadlineIn(500)} >${folder.path}/spool/lease; sleep 600`, {
      user: String(uid),
    })
    await Promise.all([run.ended, gone])
    try {
      expect([theirs.exitCode, theirs.signalCode]).toEqual([null, null])
      expect(readFileSync(`/proc/${theirs.pid}/stat`, 'utf8')).not.toContain(') T ')
    } finally {
      theirs.kill('SIGKILL')
    }
  },
)

test('the shell of this machine that is not dash guards as well', async ({ skip }) => {
  if (spawnSync('bash', ['-c', 'exit 0']).status !== 0) skip('there is no bash here')
  using folder = createFolder()
  const startedAt = performance.now()
  await using run = runShim(folder.path, `${deadlineIn(500)} >${folder.path}/spool/lease; sleep 600`, {
    shell: ['bash', '--posix'],
  })
  await run.ended
  expect(performance.now() - startedAt).toBeLessThan(10_000)
  expect(run.exit()).toBe('075\n')
  await until('the end of all', async () => (await findProcesses({ marker: `OZ_EXECUTION_ID=${run.id}` })).length === 0)
})
