import { writeFileSync } from 'node:fs'
import { join } from 'node:path'
import type { AmbientAgentConfig } from '@openoz/protocol'
import { expect, test } from 'vitest'
import {
  type AgentFixture,
  type AgentFixtureOptions,
  startAgentFixture,
  startNextAgent,
} from '../../../test/support/agent-fixture.ts'

const cancel = () => ({ id: crypto.randomUUID(), type: 'cancel' as const, payload: { reason: 'user' } })
const waits = 'echo begun; until [ -e go ]; do sleep 0.02; done'
const waitingCommand = { toolCalls: [{ name: 'run_command', arguments: { command: waits } }] }

/** What people said and what the model answered, as the model is told it; our own notes are left out. */
function said(agent: AgentFixture, request = 0): string[] {
  const messages: { role: string; content: string | null }[] = agent.model.requests[request]?.body.messages ?? []
  const texts = messages
    .filter(({ role }) => role === 'user' || role === 'assistant')
    .map(({ content }) => content ?? '')
  return texts.filter((text) => !text.startsWith('Note from openoz:'))
}

/** After a first execution that ended early: somebody mends what was wrong and writes again. */
async function followUp(first: AgentFixture, options: AgentFixtureOptions = {}): Promise<AgentFixture> {
  const hello = { config: {}, ...options.hello }
  return startNextAgent(
    first,
    { reason: 'follow_up' },
    { message: 'Try again.', handler: () => ({ text: 'Done.' }), ...options, hello },
  )
}

const failing: [string, AmbientAgentConfig][] = [
  ['a clone', { environment: { source_repos: [{ url: 'file:///nowhere/at-all.git' }] } }],
  ['a setup command', { environment: { setup_commands: ['exit 3'] } }],
]

test.each(failing)(
  'after %s that failed, a follow-up goes on from the prompt that was never asked',
  async (_, config) => {
    await using first = await startAgentFixture({ message: 'Write a poem.', hello: { config } })
    expect(await first.run()).toEqual({ exitCode: 1 })
    expect(first.model.requests).toEqual([])
    expect(first.server.eventsOf('turn_outcome')[0]?.data).toMatchObject({ outcome: 'FAILED' })
    // The conversation knows of no work, so that none can be missing.
    expect(first.server.eventsOf('checkpoint').map(({ data }) => data)).toMatchObject([
      { harness: 'oz', step: 0, is_work_saved: true, taken_message_ids: [] },
    ])
    await using second = await followUp(first)
    expect(await second.run()).toEqual({ exitCode: 0 })
    expect(said(second)).toEqual(['Write a poem.', 'Try again.'])
  },
)

test('several turns that came to nothing are all remembered, behind what there was', async () => {
  const config = { environment: { setup_commands: ['exit 3'] } }
  await using first = await startAgentFixture({ message: 'Begin.', steps: [{ text: 'Begun.' }] })
  await first.run()
  await using second = await followUp(first, { message: 'Go on.', hello: { config } })
  const last = second.server.queueTurn('And on.', { isQuiet: true })
  expect(await second.run()).toEqual({ exitCode: 1 })
  expect(second.server.eventsOf('turn_outcome').at(-1)?.data.turn_id).toBe(last.turn_id)
  await using third = await followUp(second)
  expect(await third.run()).toEqual({ exitCode: 0 })
  expect(said(third)).toEqual(['Begin.', 'Begun.', 'Go on.', 'And on.', 'Try again.'])
})

test('a turn that follows a failed preparation in the same execution knows of the one before', async () => {
  await using agent = await startAgentFixture({ message: 'Write a poem.', steps: [{ text: 'Done.' }] })
  // It works the second time.
  const command = `[ -e ${agent.folder}/tried ] || ! touch ${agent.folder}/tried`
  agent.server.hello.config = { environment: { setup_commands: [command] } }
  agent.server.queueTurn('Try again.', { isQuiet: true })
  expect(await agent.run()).toEqual({ exitCode: 0 })
  expect(said(agent)).toEqual(['Write a poem.', 'Try again.'])
})

test('a turn that was cancelled while its workspace was prepared is remembered', async () => {
  const config = { environment: { setup_commands: [waits] } }
  await using first = await startAgentFixture({ message: 'Write a poem.', hello: { config } })
  const running = first.run()
  await first.server.waitFor(({ type }) => type === 'terminal_output')
  first.server.send(cancel())
  expect(await running).toEqual({ exitCode: 1 })
  await using second = await followUp(first)
  expect(await second.run()).toEqual({ exitCode: 0 })
  expect(said(second)).toEqual(['Write a poem.', 'Try again.'])
})

test('files that were lost stay lost when the next preparation fails', async () => {
  await using first = await startAgentFixture({ message: 'Begin.', steps: [{ text: 'Begun.' }] })
  await first.run()
  const continues = { reason: 'follow_up' as const, is_workspace_stale: true }
  const config = { environment: { setup_commands: ['exit 3'] } }
  await using second = await followUp(first, { hello: { config, continues } })
  await second.run()
  expect(second.server.eventsOf('checkpoint').at(-1)?.data).not.toHaveProperty('is_work_saved')
})

test('a turn that failed at the model is remembered with its prompt', async () => {
  const refusal = { status: 401, body: { error: { message: 'invalid key', type: 'authentication_error' } } }
  await using first = await startAgentFixture({ message: 'Write a poem.', steps: [refusal] })
  expect(await first.run()).toEqual({ exitCode: 1 })
  expect(first.server.eventsOf('checkpoint')).toHaveLength(1)
  await using second = await followUp(first)
  expect(await second.run()).toEqual({ exitCode: 0 })
  expect(said(second)).toEqual(['Write a poem.', 'Try again.'])
})

test.each([
  [1, 'is in the next one that is sent'],
  [10, 'is left to the control plane'],
])('a message in a checkpoint that was refused (%i times) %s', async (refusals, _) => {
  await using agent = await startAgentFixture({ steps: [waitingCommand, { text: 'Done.' }] })
  const running = agent.run()
  await agent.server.waitFor(({ type }) => type === 'terminal_output')
  const message = agent.server.say(agent.server.hello.turn.turn_id, 'steer', 'Be brief.')
  await expect.poll(() => agent.server.acknowledgedCommands.length).toBe(1)
  // The step at work goes through: the message is not in it yet.
  agent.server.blobTrouble.push(undefined, ...Array<'refuse'>(refusals).fill('refuse'))
  writeFileSync(join(agent.workspace, 'go'), '')
  await running
  expect(said(agent, 1)).toContain('Be brief.')
  const isTaken = refusals === 1
  const taken = agent.server.eventsOf('turn_outcome')[0]?.data.taken_message_ids
  expect(taken).toEqual(isTaken ? [message.message_id] : [])
  const sent = agent.server.eventsOf('checkpoint').flatMap(({ data }) => data.taken_message_ids)
  expect(sent).toEqual(taken)
})
