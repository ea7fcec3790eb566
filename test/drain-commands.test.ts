import { mkdtempSync, rmSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { afterAll, expect, test } from 'vitest'
import { type ProgramEnd, runOz, startOz } from '../packages/cli/src/test-support/run-program.ts'
import { type ControlPlane, startControlPlane } from './support/control-plane.ts'
import { until } from './support/poll.ts'

/** `oz worker drain` and `oz run attempts` as operators use them. */
const home = mkdtempSync(join(tmpdir(), 'oz-drain-'))
afterAll(() => rmSync(home, { recursive: true, force: true }))

const as = (cp: ControlPlane) => ({
  PATH: process.env.PATH,
  HOME: home,
  XDG_CONFIG_HOME: home,
  OZ_SERVER_URL: cp.url,
  OZ_API_KEY: cp.adminKey,
})
const oz = (cp: ControlPlane, ...args: string[]): Promise<ProgramEnd> => runOz(args, as(cp))

test('a drained worker is offered nothing while its run goes on, and takes runs again once the drain is ended', async () => {
  await using cp = await startControlPlane()
  const { worker, agent, assignment } = await cp.startAgent({}, { maxConcurrentTasks: 2 })
  const drained = await oz(cp, 'worker', 'drain', 'w1')
  expect(drained).toMatchObject({ exitCode: 0, stderr: '' })
  expect(drained.stdout).toMatch(
    /^w1 is drained \(.+, \d s ago\): nothing new is offered to it\.\n1 run there goes on\.\n$/,
  )
  expect(await worker.drains.next()).toBe(true)
  const list = await oz(cp, 'worker', 'list', '--output-format', 'text')
  expect(list.stdout).toMatch(/^WORKER +STATE +DRAINED BY .*CHANNEL/)
  expect(list.stdout).toMatch(/^w1 +draining +\S.*, \d s ago .* websocket /m)

  const waiting = await cp.createRun()
  expect((await oz(cp, 'run', 'why', waiting)).stdout).toMatch(/\[worker_draining\]\n.*oz worker drain NAME --off/)
  await agent.end('SUCCEEDED')
  await agent.nextTurn(true)
  worker.complete(assignment)
  expect((await cp.client.runs.get(waiting)).state).toBe('QUEUED')

  expect((await oz(cp, 'worker', 'drain', 'w1', '--off')).stdout).toBe('w1 takes runs again.\n')
  expect(await worker.nextAssignment()).toMatchObject({ task_id: waiting })
})

test('who waits for a drain is told when nothing runs there any more, also of a worker that is away meanwhile', async () => {
  await using cp = await startControlPlane()
  const { worker, agent, assignment } = await cp.startAgent()
  const waiter = startOz(['worker', 'drain', 'w1', '--wait', '--output-format', 'ndjson'], as(cp))
  await until(
    () => cp.client.workers.list(),
    ({ drains }) => drains[0]?.active === 1,
  )
  await worker.disconnect()
  const list = await oz(cp, 'worker', 'list')
  expect(list.stderr).toMatch(/w1 is drained \(.*\), and not connected\.\n/)
  expect(waiter.child.exitCode).toBe(null)

  const back = await cp.connectWorker({
    running: [{ task_id: assignment.task_id, execution_id: assignment.execution_id }],
  })
  await agent.end('SUCCEEDED')
  await agent.nextTurn(true)
  back.complete(assignment)
  const { exitCode, stdout } = await waiter.ended
  expect(exitCode).toBe(0)
  expect(JSON.parse(stdout)).toMatchObject({ worker_id: 'w1', active: 0, drain: { requested_by: expect.any(String) } })
})

test('who waits for a drain that somebody else ends is told so, and Ctrl-C ends the waiting, not the drain', async () => {
  await using cp = await startControlPlane()
  await cp.startAgent()
  const first = startOz(['worker', 'drain', 'w1', '--wait'], as(cp))
  await first.line(/1 run there goes on/)
  expect((await oz(cp, 'worker', 'drain', 'w1', '--off')).exitCode).toBe(0)
  expect(await first.ended).toMatchObject({ exitCode: 1, stderr: expect.stringContaining('worker_not_drained') })

  const second = startOz(['worker', 'drain', 'w1', '--wait'], as(cp))
  await second.line(/1 run there goes on/)
  second.child.kill('SIGINT')
  expect(await second.ended).toMatchObject({ exitCode: 130, stderr: expect.stringContaining('stays drained') })
  expect((await cp.client.workers.list()).drains).toMatchObject([{ worker_id: 'w1', active: 1 }])
})

test('an id that nobody has is drained for whoever connects under it', async () => {
  await using cp = await startControlPlane()
  const drained = await oz(cp, 'worker', 'drain', 'build-9', '--wait')
  expect(drained.stdout).toContain('No worker of this id is connected; whoever connects under it is drained too.')
  const worker = await cp.connectWorker({ workerId: 'build-9' })
  expect(await worker.drains.next()).toBe(true)
  expect((await oz(cp, 'worker', 'drain', 'warp-1')).stderr).toContain('worker_id_reserved')
})

test('the attempts of a run are listed with the reason of each and what it means, and told where it is watched', async () => {
  await using cp = await startControlPlane()
  const { worker, runId, assignment } = await cp.startAgent()
  worker.fail(assignment, { failure_reason: 'agent_invocation', exit_code: 137, message: 'killed' })
  await cp.waitFor(runId, 'QUEUED')
  await cp.advanceDatabaseClock({ seconds: 3 })
  const second = await worker.claimNext()
  const agent = cp.agentFor(second)
  await agent.hello()
  await agent.end('SUCCEEDED')
  await agent.nextTurn(true)
  worker.complete(second)
  await cp.waitFor(runId, 'SUCCEEDED')

  const meaning = 'The agent could not be started, or was killed.'
  const { stdout: table } = await oz(cp, 'run', 'attempts', runId, '--output-format', 'text')
  expect(table.split('\n')).toEqual([
    expect.stringMatching(/^ATTEMPT +RETRY OF +WORKER +STATE +OUTCOME +EXIT CODE +BEGAN +TOOK +REASON$/),
    expect.stringMatching(new RegExp(`^1 +- +w1 +ended +- +137 .* agent_invocation: ${meaning}$`)),
    expect.stringMatching(/^2 +1 +w1 +ended +SUCCEEDED +- .* -$/),
    '',
  ])
  const { stdout: json } = await oz(cp, 'run', 'attempts', runId, '--output-format', 'json')
  expect(JSON.parse(json)).toMatchObject([
    { number: 1, execution_id: assignment.execution_id, retry_of: null, reason_meaning: meaning },
    { number: 2, retry_of: assignment.execution_id, failure_reason: null, reason_meaning: null },
  ])
  expect((await oz(cp, 'run', 'get', runId)).stdout).toMatch(/^Attempts +2 \(oz run attempts /m)
  const watched = (await oz(cp, 'run', 'watch', runId)).stdout
  expect(watched).toMatch(new RegExp(`on w1, attempt 1:\\n[^]*  ended badly  agent_invocation: ${meaning}\\n`))
})

test('how often a turn is tried can be said with the run, and 1 means never again', async () => {
  await using cp = await startControlPlane()
  const worker = await cp.connectWorker()
  const args = ['agent', 'run-cloud', '-p', 'x', '--host', 'w1', '--output-format', 'json']
  expect((await oz(cp, ...args, '--max-attempts', '11')).exitCode).toBe(2)
  const { stdout } = await oz(cp, ...args, '--max-attempts', '1')
  const { run_id: runId } = JSON.parse(stdout)
  worker.fail(await worker.claimNext(), { failure_reason: 'agent_invocation', exit_code: 137 })
  await cp.waitFor(runId, 'ERROR')
  expect((await oz(cp, 'run', 'get', runId)).stdout).toMatch(
    /^Reason +agent_invocation: The agent could not be started, or was killed\.$/m,
  )
})
