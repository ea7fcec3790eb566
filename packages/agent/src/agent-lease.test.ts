import { once } from 'node:events'
import { existsSync, readdirSync, readFileSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'
import { bootClockMs, findProcesses } from '@openoz/machine'
import { type HelloResponse, leaseLostExitCode } from '@openoz/protocol'
import { expect, test } from 'vitest'
import { type AgentFixture, type AgentFixtureOptions, startAgentFixture } from '../../../test/support/agent-fixture.ts'
import type { ScriptedStep } from '../../../test/support/scripted-model.ts'

/** Dead after 7 s without a word; no shorter, for machines on which much else runs. */
const shortLease = { renew_every_ms: 200, stop_after_ms: 6_000, lost_after_ms: 8_000, settled_stop_after_ms: 3_000 }
/** For an agent at rest, dead after 3.5 s. */
const shortRest = { ...shortLease, stop_after_ms: 60_000, lost_after_ms: 65_000 }

const command = (text: string, more: Record<string, unknown> = {}): ScriptedStep => ({
  toolCalls: [{ name: 'run_command', arguments: { command: text, ...more } }],
})
/** Writes when it lives into a file, and takes no hint. */
const beat = (file: string) => `trap "" TERM; while :; do cut -d" " -f1 /proc/uptime >> ${file}; sleep 0.05; done`

const start = (options: AgentFixtureOptions) => startAgentFixture({ hello: { config: {} }, ...options })

function leftOver(agent: AgentFixture) {
  return findProcesses({ marker: `OZ_EXECUTION_ID=${agent.server.hello.execution_id}` })
}

function lastBeatMs(agent: AgentFixture): number {
  const lines = readFileSync(join(agent.workspace, 'beats'), 'utf8').trim().split('\n')
  return Number(lines.at(-1)) * 1000
}

function leaseOf(agent: AgentFixture): number {
  return Number(readFileSync(join(agent.spool, 'lease'), 'utf8'))
}

/** The last renewal may be younger than the file by the second in which it is written once. */
async function sleepOverLease(agent: AgentFixture): Promise<void> {
  await expect.poll(() => bootClockMs() - leaseOf(agent), { timeout: 20_000 }).toBeGreaterThan(2_000)
}

const isBeating = (agent: AgentFixture) => existsSync(join(agent.workspace, 'beats'))

/** What an agent finds that wakes. Where both tell it that it is over, either may be first. */
const wakings: [string, (agent: AgentFixture) => void, number[]][] = [
  ['to a control plane that is away', ({ server }) => server.setAway(true), [leaseLostExitCode]],
  ['when its execution was given up', ({ server }) => server.supersede(), [leaseLostExitCode, 1]],
]

test.each(wakings)('an agent that wakes %s kills all that it had started, at once', async (_, meanwhile, codes) => {
  // A daemon, too, that has left its parents; politely, ending it takes seconds.
  const daemon = `setsid -f sh -c '${beat('beats')}'; ${beat('own')}`
  await using agent = await start({ steps: [command(daemon)], limits: shortLease })
  const child = agent.spawn()
  await expect.poll(() => isBeating(agent), { timeout: 40_000 }).toBe(true)
  const deadline = leaseOf(agent)
  child.kill('SIGSTOP')
  meanwhile(agent)
  // Half of what is between stopping and being lost: until then it may still be ending.
  expect(deadline - bootClockMs()).toBeLessThanOrEqual(7_000)
  await sleepOverLease(agent)
  const wokenAt = bootClockMs()
  // Frozen, it could do nothing about its tools: whoever reads the lease file must.
  expect(lastBeatMs(agent)).toBeGreaterThan(wokenAt - 400)
  child.kill('SIGCONT')
  const [exitCode] = await once(child, 'exit')
  expect(codes).toContain(exitCode)
  expect(lastBeatMs(agent) - wokenAt).toBeLessThan(1_500)
  expect(await leftOver(agent)).toEqual([])
  expect(existsSync(join(agent.spool, 'lease'))).toBe(false)
  // There was no time to save anything, so what is kept is the worker's to save.
  expect(readdirSync(agent.spool)).toContain('kept')
  expect(readdirSync(agent.spool)).not.toContain('saved-workspace')
})

test('what the model asked for while the machine slept is not begun', async () => {
  const held = Promise.withResolvers<ScriptedStep>()
  await using agent = await start({ handler: () => held.promise, limits: shortLease })
  const child = agent.spawn()
  await expect.poll(() => agent.model.requests.length, { timeout: 20_000 }).toBe(1)
  child.kill('SIGSTOP')
  held.resolve(command('echo done >> done'))
  // Renewing takes longer than reading what has come already.
  agent.server.supersede()
  await sleepOverLease(agent)
  child.kill('SIGCONT')
  // Whichever it found first.
  expect([leaseLostExitCode, 1]).toContain((await once(child, 'exit'))[0])
  expect(existsSync(join(agent.workspace, 'done'))).toBe(false)
})

test('a lease that ended before the first word was heard is over as well', async () => {
  await using agent = await start({ steps: [command('echo done >> done')], limits: shortLease })
  const hello = agent.server.holdHello()
  const child = agent.spawn()
  await hello.asked
  const askedAt = bootClockMs()
  child.kill('SIGSTOP')
  hello.answer()
  await expect.poll(() => bootClockMs() - askedAt, { timeout: 20_000 }).toBeGreaterThan(7_000)
  child.kill('SIGCONT')
  expect(await once(child, 'exit')).toEqual([leaseLostExitCode, null])
  expect(agent.model.requests).toEqual([])
})

test('while it works, a file says by when it must be dead; it follows the renewals and ends with the agent', async () => {
  await using agent = await start({ steps: [command('until [ -e go ]; do sleep 0.05; done'), { text: 'Done.' }] })
  const running = agent.run()
  await agent.server.waitFor(({ type }) => type === 'tool_call')
  const first = leaseOf(agent)
  // (60 + 65) / 2 s after the last renewal.
  expect(first - bootClockMs()).toBeGreaterThan(60_000)
  expect(first - bootClockMs()).toBeLessThanOrEqual(62_500)
  await expect.poll(() => leaseOf(agent) - first, { timeout: 20_000 }).toBeGreaterThanOrEqual(900)
  writeFileSync(join(agent.workspace, 'go'), '')
  expect(await running).toEqual({ exitCode: 0 })
  expect(existsSync(join(agent.spool, 'lease'))).toBe(false)
})

test('an agent whose hello nobody answers ends as one that may be tried again', async () => {
  await using agent = await start({})
  agent.server.setAway(true)
  expect(await agent.run({ helloPatienceMs: 300 })).toMatchObject({ exitCode: leaseLostExitCode })
})

test('an agent at rest leaves sooner when nothing is acknowledged, and owes nothing', async () => {
  await using agent = await start({
    steps: [{ text: 'Done.' }],
    hello: { config: {}, idle_timeout_ms: 60_000 },
    limits: shortRest,
  })
  const running = agent.run()
  await expect.poll(() => agent.server.questions.length, { timeout: 20_000 }).toBe(1)
  // A follow-up may begin elsewhere soon: the deadline is a nearer one.
  expect(leaseOf(agent) - bootClockMs()).toBeLessThanOrEqual(3_500)
  const restedAt = bootClockMs()
  await expect.poll(() => bootClockMs() - restedAt, { timeout: 20_000 }).toBeGreaterThan(4_000)
  // As long as it is answered it stays.
  expect(agent.server.questions.length).toBe(1)
  agent.server.setAway(true)
  const awayAt = performance.now()
  expect(await running).toEqual({ exitCode: 0 })
  expect(performance.now() - awayAt).toBeLessThan(8_000)
})

test('what an agent at rest still has running ends with it, and what that did is kept for its worker', async () => {
  const steps = [command(beat('beats'), { background: true }), { text: 'It runs.' }]
  await using agent = await start({ steps, hello: { config: {}, idle_timeout_ms: 60_000 }, limits: shortRest })
  const running = agent.run()
  await expect.poll(() => agent.server.questions.length, { timeout: 20_000 }).toBe(1)
  agent.server.setAway(true)
  expect(await running).toEqual({ exitCode: leaseLostExitCode })
  expect(await leftOver(agent)).toEqual([])
  expect(readdirSync(agent.spool)).toContain('kept')
})

test('a turn that was given and never heard of is owed', async () => {
  await using agent = await start({
    steps: [{ text: 'Done.' }],
    hello: { config: {}, idle_timeout_ms: 60_000 },
    limits: shortRest,
  })
  const running = agent.run()
  await expect.poll(() => agent.server.questions.length, { timeout: 20_000 }).toBe(1)
  agent.server.loseAnswersAboutTurns()
  agent.server.queueTurn('More.')
  await expect.poll(() => agent.server.questions.length, { timeout: 20_000 }).toBeGreaterThan(1)
  agent.server.setAway(true)
  expect(await running).toEqual({ exitCode: leaseLostExitCode })
})

test('a control plane of an earlier version says fewer limits, a later one says more', async () => {
  const earlier = { lost_after_ms: undefined, settled_stop_after_ms: undefined } as Partial<HelloResponse['limits']>
  await using first = await start({ steps: [{ text: 'Done.' }], limits: earlier })
  expect(await first.run()).toEqual({ exitCode: 0 })
  const more = { moon_phase: 'full', acknowledged_by: { server: 'b' } }
  await using second = await start({ steps: [{ text: 'Done.' }], more })
  expect(await second.run()).toEqual({ exitCode: 0 })
})

test('a run of a person’s own machine is tried nowhere else: it goes on without its control plane', async () => {
  const hello: Partial<HelloResponse> = { config: {}, execution_location: 'LOCAL' }
  const steps = [command('until [ -e go ]; do sleep 0.05; done'), { text: 'Done.' }]
  await using agent = await start({ steps, hello, limits: shortLease })
  const running = agent.run()
  await agent.server.waitFor(({ type }) => type === 'tool_call')
  agent.server.setAway(true)
  const awayAt = bootClockMs()
  await expect.poll(() => bootClockMs() - awayAt, { timeout: 20_000 }).toBeGreaterThan(9_000)
  expect(existsSync(join(agent.spool, 'lease'))).toBe(false)
  writeFileSync(join(agent.workspace, 'go'), '')
  agent.server.setAway(false)
  expect(await running).toMatchObject({ exitCode: 0, local: { isDelivered: true } })
})
