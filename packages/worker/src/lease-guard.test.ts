import { spawn, spawnSync } from 'node:child_process'
import { once } from 'node:events'
import { chmodSync, existsSync, mkdirSync, readFileSync, statSync } from 'node:fs'
import { join } from 'node:path'
import { bootClockMs, findProcesses, identifyProcess } from '@openoz/machine'
import { expect, test } from 'vitest'
import { shim } from './shell-text.ts'
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

const guardOf = async (executionId: string, shimPid: number) =>
  (await findProcesses({ marker: `OZ_EXECUTION_ID=${executionId}` })).filter(
    ({ ppid, command }) => ppid === shimPid && command === 'sh',
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
  const [guard] = await guardOf(execution_id, shimPid)
  process.kill(guard?.pid ?? 0, 'SIGKILL')
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
  const [guard] = await guardOf(execution_id, shimPid)
  expect(guard).toBeDefined()
  expect((await cp.outcome(execution_id)).type).toBe('task_completed')
  expect(existsSync(join(out, 'done'))).toBe(true)
  expect(identifyProcess(guard?.pid ?? 0)).toBeUndefined()
})

test.each(['', 'soon', '99999999999999999999', '-5'])('a lease file that says %j is no deadline', async (text) => {
  using folder = createFolder()
  await using cp = await startControlPlane()
  await using worker = startWorker(cp, folder.path, {
    oz: `echo '${text}' >"$OZ_SPOOL_DIR/lease"; sleep 2.5; exit 0`,
  })
  const { execution_id } = await assigned(cp, worker.stateDir)
  expect((await cp.outcome(execution_id)).type).toBe('task_completed')
})

test('the shell of this machine that is not dash guards as well', async ({ skip }) => {
  if (spawnSync('bash', ['-c', 'exit 0']).status !== 0) skip('there is no bash here')
  using folder = createFolder()
  const control = join(folder.path, 'control')
  mkdirSync(join(control, 'spool'), { recursive: true })
  const id = `guard-test-${process.pid}`
  const agent = `read -r up rest </proc/uptime; printf '%s\\n' "$((\${up%.*}\${up#*.}0 + 500))" >${control}/spool/lease; sleep 600`
  const startedAt = performance.now()
  const shell = spawn('bash', ['--posix', '-c', shim, 'oz-shim', control, '', 'sh', '-c', agent], {
    env: { PATH: process.env.PATH, OZ_EXECUTION_ID: id },
    // A group of its own, as the worker gives it.
    detached: true,
    stdio: 'ignore',
  })
  await once(shell, 'exit')
  expect(performance.now() - startedAt).toBeLessThan(10_000)
  expect(readFileSync(join(control, 'exit'), 'utf8')).toBe('75\n')
  await until('the end of all', async () => (await findProcesses({ marker: `OZ_EXECUTION_ID=${id}` })).length === 0)
})
