import { existsSync, readFileSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'
import { findProcesses } from '@openoz/machine'
import type { SavedRepository } from '@openoz/protocol'
import { expect, test } from 'vitest'
import {
  type AgentFixture,
  type AgentFixtureOptions,
  makeRepository,
  startAgentFixture,
} from '../../../test/support/agent-fixture.ts'

const minute = 60_000
const command = (text: string, more: object = {}) => ({
  toolCalls: [{ name: 'run_command', arguments: { command: text, ...more } }],
})
const cancel = () => ({ id: crypto.randomUUID(), type: 'cancel' as const, payload: { reason: 'user' } })
const endIdle = () => ({ id: crypto.randomUUID(), type: 'end_idle' as const, payload: { reason: 'slot needed' } })

async function startResting(options: AgentFixtureOptions): Promise<AgentFixture> {
  return startAgentFixture({ ...options, hello: { idle_timeout_ms: 10 * minute, ...options.hello } })
}

/** Until the agent has asked `count` times, and was told each time that there is nothing. */
async function rested({ server }: AgentFixture, count = 1): Promise<void> {
  const answers = () => server.questions.filter(({ turnId }) => turnId === undefined).length
  await expect.poll(answers, { timeout: 20_000, interval: 10 }).toBeGreaterThanOrEqual(count)
}

function outcomes({ server }: AgentFixture) {
  return server.eventsOf('turn_outcome').map(({ data }) => `${data.outcome}: ${data.message}`)
}

function questions({ server }: AgentFixture) {
  return server.questions.map(({ isLast, turnId }) => `${isLast ? 'last' : 'next'}: ${turnId ?? 'none'}`)
}

/** What people and the model said, in the order in which the model is told. */
function conversation(agent: AgentFixture, request: number): string[] {
  const { messages } = agent.model.requests[request]?.body ?? { messages: [] }
  return messages.slice(1).map(({ content }: { content: string }) => content)
}

function leftOver({ server }: AgentFixture) {
  return findProcesses({ marker: `OZ_EXECUTION_ID=${server.hello.execution_id}` })
}

async function endByCommand(agent: AgentFixture, running: ReturnType<AgentFixture['run']>) {
  agent.server.send(endIdle())
  const ended = await running
  expect(agent.server.lateRequests).toEqual([])
  expect(await leftOver(agent)).toEqual([])
  return ended
}

test('a follow-up in the idle window is a second turn of the same conversation, in the same workspace', async () => {
  await using agent = await startResting({
    message: 'Begin.',
    steps: [
      command('echo one > one.txt; git add -A; git commit -qm One'),
      { text: 'Begun.' },
      command('echo two > two.txt; ls'),
      { text: 'Gone on.' },
    ],
  })
  const { server } = agent
  const origin = makeRepository(join(agent.folder, 'origin'), { 'zero.txt': '' })
  const environment = { source_repos: [{ url: `file://${origin}` }], setup_commands: ['echo setup'] }
  server.hello.config = { environment }
  const running = agent.run()
  await rested(agent)
  expect(outcomes(agent)).toEqual(['SUCCEEDED: Begun.'])
  const setupSteps = server.eventsOf('setup_step').length

  const turn = server.queueTurn('Go on.')
  await rested(agent, 2)
  expect(await endByCommand(agent, running)).toEqual({ exitCode: 0 })

  expect(outcomes(agent)).toEqual(['SUCCEEDED: Begun.', 'SUCCEEDED: Gone on.'])
  expect(server.eventsOf('turn_outcome').map(({ data }) => data.turn_id)).toEqual([
    server.hello.turn.turn_id,
    turn.turn_id,
  ])
  expect(questions(agent)).toEqual(['next: none', `next: ${turn.turn_id}`, 'next: none', 'last: none'])
  expect(conversation(agent, 2).at(-1)).toBe('Go on.')
  expect(conversation(agent, 2)[0]).toBe('Begin.')
  expect(JSON.stringify(server.events)).toContain('one.txt\\ntwo.txt\\nzero.txt')
  // The second turn prepares nothing; after it only the teardown follows.
  expect(server.eventsOf('setup_step').length).toBe(setupSteps + 2)
  const saved = server.eventsOf('workspace_saved').map(({ data }) => (data.repositories as SavedRepository[])[0])
  expect(saved).toMatchObject([
    { commits: 1, files_changed: 1, uncommitted: false },
    { commits: 1, files_changed: 2, uncommitted: true },
  ])
  expect(saved[1]?.base).toBe(saved[0]?.base)
  expect(existsSync(join(agent.spool, 'kept'))).toBe(false)
})

test('a turn that was queued while the first one works follows it at once', async () => {
  await using agent = await startResting({
    steps: [command('echo begun; until [ -e go ]; do sleep 0.02; done'), { text: 'First.' }, { text: 'Second.' }],
  })
  const running = agent.run()
  await agent.server.waitFor(({ type }) => type === 'terminal_output')
  const turn = agent.server.queueTurn('And then?')
  writeFileSync(join(agent.workspace, 'go'), '')
  await rested(agent)
  expect(questions(agent)[0]).toBe(`next: ${turn.turn_id}`)
  expect(await endByCommand(agent, running)).toEqual({ exitCode: 0 })
  expect(outcomes(agent)).toEqual(['SUCCEEDED: First.', 'SUCCEEDED: Second.'])
})

test('an idle window that ends is the end: processes first, then everything that was said, then the goodbye', async () => {
  await using agent = await startAgentFixture({
    hello: { idle_timeout_ms: 400 },
    steps: [command('setsid sleep 1000 >/dev/null 2>&1 & echo started'), { text: 'Done.' }],
  })
  const running = agent.run()
  await rested(agent)
  expect((await leftOver(agent)).length).toBe(1)
  expect(await running).toEqual({ exitCode: 0 })
  expect(questions(agent)).toEqual(['next: none', 'last: none'])
  const [first, last] = agent.server.questions.map(({ at }) => at)
  expect((last ?? 0) - (first ?? 0)).toBeGreaterThan(390)
  expect(agent.server.events.at(-1)?.data).toMatchObject({ step: 'teardown', status: 'completed' })
  expect(agent.server.lateRequests).toEqual([])
  expect(await leftOver(agent)).toEqual([])
})

test('without an idle window the first question is the goodbye', async () => {
  await using agent = await startAgentFixture({ steps: [{ text: 'Done.' }] })
  expect(await agent.run()).toEqual({ exitCode: 0 })
  expect(questions(agent)).toEqual(['last: none'])
})

test('a turn that failed is not rested after, but one that waits is performed', async () => {
  await using agent = await startResting({
    limits: { max_steps: 1 },
    steps: [command('echo again'), { text: 'Better.' }],
  })
  const turn = agent.server.queueTurn('Try this.', { isQuiet: true })
  const running = agent.run()
  await rested(agent)
  expect(questions(agent)).toEqual([`last: ${turn.turn_id}`, 'next: none'])
  expect(await endByCommand(agent, running)).toEqual({ exitCode: 0 })
  expect(outcomes(agent)).toEqual([expect.stringMatching(/^FAILED/), 'SUCCEEDED: Better.'])
})

test('a message that comes just as the agent says goodbye is worked on, with tools as before', async () => {
  await using agent = await startAgentFixture({
    hello: { idle_timeout_ms: 300 },
    steps: [{ text: 'First.' }, command('echo still here'), { text: 'Second.' }],
  })
  const running = agent.run()
  await rested(agent)
  const turn = agent.server.queueTurn('Wait!', { isQuiet: true })
  expect(await running).toEqual({ exitCode: 0 })
  expect(questions(agent)).toEqual(['next: none', `last: ${turn.turn_id}`, 'next: none', 'last: none'])
  expect(agent.server.eventsOf('terminal_output').at(-1)?.data.text).toBe('still here\n')
  expect(outcomes(agent)).toEqual(['SUCCEEDED: First.', 'SUCCEEDED: Second.'])
})

test('a call to leave is for an agent at rest: one at work goes on', async () => {
  await using agent = await startResting({
    steps: [command('echo begun; until [ -e go ]; do sleep 0.02; done'), { text: 'Done.' }],
  })
  const running = agent.run()
  await agent.server.waitFor(({ type }) => type === 'terminal_output')
  agent.server.send(endIdle())
  await expect.poll(() => agent.server.acknowledgedCommands.length).toBe(1)
  writeFileSync(join(agent.workspace, 'go'), '')
  await rested(agent)
  expect(questions(agent)).toEqual(['next: none'])
  expect(await endByCommand(agent, running)).toEqual({ exitCode: 0 })
})

test('an agent that is given the turn it has just ended stops instead of doing it again', async () => {
  const turn = { turn_id: crypto.randomUUID(), number: 1, message: 'Do it.', messages: [] }
  await using agent = await startResting({ hello: { turn }, nextTurn: () => turn, steps: [{ text: 'Done.' }] })
  expect(await agent.run()).toMatchObject({ exitCode: 1 })
  expect(agent.model.requests.length).toBe(1)
})

test('what is said while the workspace is prepared is part of the first request', async () => {
  await using agent = await startResting({
    message: 'Do it.',
    hello: { config: { environment: { setup_commands: ['until [ -e go ]; do sleep 0.02; done'] } } },
    steps: [{ text: 'Both.' }],
  })
  const running = agent.run()
  await agent.server.waitFor(({ data }) => data.step === 'setup_command')
  const message = agent.server.say(agent.server.hello.turn.turn_id, 'steer', 'And that.')
  await expect.poll(() => agent.server.acknowledgedCommands.length).toBe(1)
  writeFileSync(join(agent.workspace, 'go'), '')
  await rested(agent)
  expect(conversation(agent, 0).join('\n')).toMatch(/Do it\.(.|\n)*And that\./)
  expect(agent.server.eventsOf('turn_outcome')[0]?.data.taken_message_ids).toEqual([message.message_id])
  expect(agent.server.eventsOf('message_delivered').map(({ data }) => data)).toEqual([
    { message_id: message.message_id },
  ])
  await endByCommand(agent, running)
})

test('a steer goes into the next request of the turn at work, and the outcome says that it was taken', async () => {
  await using agent = await startResting({
    steps: [command('echo begun; until [ -e go ]; do sleep 0.02; done'), { text: 'Steered.' }],
  })
  const running = agent.run()
  await agent.server.waitFor(({ type }) => type === 'terminal_output')
  const turnId = agent.server.hello.turn.turn_id
  const said = ['This.', 'And this.'].map((text) => agent.server.say(turnId, 'steer', text))
  await expect.poll(() => agent.server.acknowledgedCommands.length).toBe(2)
  writeFileSync(join(agent.workspace, 'go'), '')
  await rested(agent)
  expect(JSON.stringify(conversation(agent, 1))).toMatch(/begun.*This\..*And this\./)
  const ids = said.map(({ message_id }) => message_id)
  expect(agent.server.eventsOf('turn_outcome')[0]?.data.taken_message_ids).toEqual(ids)
  expect(agent.server.eventsOf('checkpoint').at(-1)?.data.taken_message_ids).toEqual(ids)
  expect(outcomes(agent)).toEqual(['SUCCEEDED: Steered.'])
  await endByCommand(agent, running)
})

test('a message to a turn that has ended is left to the control plane', async () => {
  await using agent = await startResting({ steps: [{ text: 'Done.' }] })
  const running = agent.run()
  await rested(agent)
  agent.server.say(agent.server.hello.turn.turn_id, 'steer', 'Too late.')
  await expect.poll(() => agent.server.acknowledgedCommands.length).toBe(1)
  await endByCommand(agent, running)
  expect(agent.model.requests.length).toBe(1)
  expect(agent.server.eventsOf('message_delivered')).toEqual([])
})

test('an interrupt stops a running command within a second and goes into the same turn', async () => {
  await using agent = await startResting({ steps: [command('echo begun; sleep 60'), { text: 'Stopped.' }] })
  const running = agent.run()
  await agent.server.waitFor(({ type }) => type === 'terminal_output')
  const start = performance.now()
  agent.server.say(agent.server.hello.turn.turn_id, 'interrupt', 'Not that.')
  await expect.poll(() => agent.model.requests.length, { interval: 10 }).toBe(2)
  expect(performance.now() - start).toBeLessThan(1_000)
  await rested(agent)
  expect(conversation(agent, 1).at(-1)).toContain('Not that.')
  expect(outcomes(agent)).toEqual(['SUCCEEDED: Stopped.'])
  expect(await leftOver(agent)).toEqual([])
  await endByCommand(agent, running)
})

const question = { toolCalls: [{ name: 'ask', arguments: { question: 'Which one?' } }] }

test('a question ends the turn as BLOCKED, and its answer goes on from there', async () => {
  await using agent = await startResting({ steps: [question, { text: 'The left one it is.' }] })
  const running = agent.run()
  await rested(agent)
  expect(outcomes(agent)).toEqual(['BLOCKED: Which one?'])
  agent.server.queueTurn('The left one.')
  await rested(agent, 2)
  expect(outcomes(agent)).toEqual(['BLOCKED: Which one?', 'SUCCEEDED: The left one it is.'])
  expect(conversation(agent, 1).at(-1)).toContain('The left one.')
  expect(await endByCommand(agent, running)).toEqual({ exitCode: 0 })
})

test('a cancel while a question waits for its answer ends the execution, and the turn keeps its outcome', async () => {
  await using agent = await startResting({ steps: [question] })
  const running = agent.run()
  await rested(agent)
  agent.server.send(cancel())
  expect(await running).toEqual({ exitCode: 1 })
  expect(outcomes(agent)).toEqual(['BLOCKED: Which one?'])
  expect(questions(agent)).toEqual(['next: none'])
  expect(await leftOver(agent)).toEqual([])
})

test('a cancelled turn is the last one', async () => {
  await using agent = await startResting({ steps: [command('echo begun; sleep 1000')] })
  agent.server.queueTurn('More.', { isQuiet: true })
  const running = agent.run()
  await agent.server.waitFor(({ type }) => type === 'terminal_output')
  agent.server.send(cancel())
  expect(await running).toEqual({ exitCode: 1 })
  expect(outcomes(agent)).toEqual(['CANCELLED: Cancelled by user'])
  expect(questions(agent)).toEqual([])
})

test('an agent at rest that is asked to stop saves what went on in the background, and exits with 143', async () => {
  const background = 'nohup sh -c "sleep 0.2; echo late > late.txt; sleep 1000" >/dev/null 2>&1 & echo started'
  await using agent = await startResting({ steps: [command(background), { text: 'Done.' }] })
  const origin = makeRepository(join(agent.folder, 'origin'), {})
  agent.server.hello.config = { environment: { source_repos: [{ url: `file://${origin}` }] } }
  const running = agent.run()
  await rested(agent)
  const late = join(agent.workspace, 'origin', 'late.txt')
  await expect.poll(() => existsSync(late) && readFileSync(late, 'utf8')).toBe('late\n')
  expect((await leftOver(agent)).length).toBeGreaterThan(0)
  agent.stop.abort()
  expect(await running).toEqual({ exitCode: 143 })
  expect(outcomes(agent)).toEqual(['SUCCEEDED: Done.'])
  expect(questions(agent)).toEqual(['next: none'])
  const saved = agent.server.eventsOf('workspace_saved').at(-1)?.data.repositories
  expect(saved).toMatchObject([{ uncommitted: true, files_changed: 1 }])
  expect(await leftOver(agent)).toEqual([])
})

test('a command in the background goes on while the agent rests, can be read by the next turn, and ends with the execution', async () => {
  const script = 'i=0; while :; do i=$((i+1)); echo "line $i"; echo $i > count.txt; sleep 0.05; done'
  await using agent = await startResting({
    handler: ({ number, body }) => {
      if (number === 0) return command(script, { background: true })
      if (number === 1) return { text: 'It runs.' }
      if (number === 3) return { text: 'It still runs.' }
      const [id] = /"command_id\\?":\\?"([^"\\]+)/.exec(JSON.stringify(body.messages))?.slice(1) ?? []
      return { toolCalls: [{ name: 'read_command', arguments: { command_id: id } }] }
    },
  })
  const running = agent.run()
  await rested(agent)
  const count = () => Number(readFileSync(join(agent.workspace, 'count.txt'), 'utf8'))
  const before = count()
  await expect.poll(count).toBeGreaterThan(before + 3)
  agent.server.queueTurn('Does it still run?')
  await rested(agent, 2)
  expect(conversation(agent, 3).at(-1)).toMatch(/line \d+/)
  expect(await endByCommand(agent, running)).toEqual({ exitCode: 0 })
  expect(outcomes(agent)).toEqual(['SUCCEEDED: It runs.', 'SUCCEEDED: It still runs.'])
})

test('a control plane that is away while the agent rests is waited for', async () => {
  await using agent = await startResting({ steps: [{ text: 'First.' }, { text: 'Second.' }] })
  const running = agent.run()
  await rested(agent)
  agent.server.setAway(true)
  agent.server.queueTurn('Still there?')
  await new Promise((resolve) => setTimeout(resolve, 1_000))
  agent.server.setAway(false)
  await rested(agent, 2)
  expect(outcomes(agent)).toEqual(['SUCCEEDED: First.', 'SUCCEEDED: Second.'])
  expect(await endByCommand(agent, running)).toEqual({ exitCode: 0 })
})

test('an agent at rest that loses its lease ends its processes and leaves', async () => {
  await using agent = await startResting({
    limits: { stop_after_ms: 1_000 },
    steps: [command('setsid sleep 1000 >/dev/null 2>&1 & echo started'), { text: 'Done.' }],
  })
  const running = agent.run()
  await rested(agent)
  agent.server.setAway(true)
  await running
  expect(await leftOver(agent)).toEqual([])
})

test('an agent at rest whose execution was taken over leaves without a word', async () => {
  await using agent = await startResting({ steps: [{ text: 'Done.' }] })
  const running = agent.run()
  await rested(agent)
  const said = agent.server.events.length
  agent.server.refuseWith('execution_superseded')
  await running
  expect(agent.server.events.length).toBe(said)
  expect(questions(agent)).toEqual(['next: none'])
})
