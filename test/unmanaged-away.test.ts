import { existsSync, readFileSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'
import { expect, test } from 'vitest'
import { command, isRunning, runIdLine, startPersonAtWork } from './support/person-at-work.ts'
import { until } from './support/poll.ts'

/** Leases of seconds: silent for 7 s, a run is lost, unless the whole control plane was away. */
const serverEnv = {
  OZ_LEASE_UNREACHABLE: '500ms',
  OZ_LEASE_STOP: '4s',
  OZ_LEASE_LOST: '7s',
  OZ_LEASE_SETTLED: '4s',
  OZ_LEASE_OUTAGE: '3s',
}

const waiting = command('echo $$ > waiting; until [ -e go ]; do sleep 0.05; done; echo written > result')

const pidIn = (file: string) => until(() => (existsSync(file) ? Number(readFileSync(file, 'utf8')) : 0))

test('a local run goes on while the control plane is away, for longer than any lease', async () => {
  await using person = await startPersonAtWork({ steps: [waiting, { text: 'Done.' }], serverEnv })
  const { cp, workspace } = person
  const run = person.oz(['agent', 'run', '-p', 'Wait.'])
  const runId = await run.says(runIdLine)
  const pid = await pidIn(join(workspace, 'waiting'))
  const port = Number(new URL(cp.url).port)
  await cp.stop()
  const stoppedAt = performance.now()
  await until(() => performance.now() - stoppedAt > 8_000, Boolean, { everyMs: 100 })
  expect(isRunning(pid)).toBe(true)
  await cp.addServer({ port })
  writeFileSync(join(workspace, 'go'), '')
  expect((await run.ended).exitCode).toBe(0)
  expect(await cp.client.runs.get(runId)).toMatchObject({ state: 'SUCCEEDED' })
  expect((await cp.client.runs.executions(runId)).executions).toHaveLength(1)
})

test('a local run that slept for longer than its lease is over when it wakes, with what it had started; its files stay', async () => {
  await using person = await startPersonAtWork({ steps: [waiting], serverEnv })
  const { cp, workspace } = person
  const run = person.oz(['agent', 'run', '-p', 'Wait.'])
  const runId = await run.says(runIdLine)
  const pid = await pidIn(join(workspace, 'waiting'))
  run.child.kill('SIGSTOP')
  const lost = await cp.waitFor(runId, 'ERROR', 15_000)
  expect(lost.status_message?.message).toContain('was not heard of since')
  // Frozen is not dead: what it had started goes on.
  expect(isRunning(pid)).toBe(true)
  run.child.kill('SIGCONT')
  const { exitCode, stderr } = await run.ended
  expect(exitCode).toBe(1)
  expect(stderr).toContain('this execution ends: ')
  expect(isRunning(pid)).toBe(false)
  expect(existsSync(join(workspace, 'waiting'))).toBe(true)
  expect((await cp.client.runs.executions(runId)).executions).toHaveLength(1)
})
