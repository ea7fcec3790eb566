import { readFileSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'
import { expect, test } from 'vitest'
import { modelAccesses, said, startHarnessFixture, turn } from '../../../../test/support/harness-fixture.ts'
import { until } from '../../../../test/support/poll.ts'

const never = () => new AbortController().signal

const command = (text: string) => ({ toolCalls: [{ name: 'run_command', arguments: { command: text } }] })
const ask = { toolCalls: [{ name: 'ask', arguments: { question: 'Blue or red?' } }] }

/** What people and tools say in a request, on the Chat wire. */
function messagesOf(request: { body: { messages: { role: string; content: unknown }[] } } | undefined) {
  return (request?.body.messages ?? [])
    .filter(({ role }) => role !== 'system')
    .map(({ role, content }) => `${role}: ${content}`)
}

test('turns follow one another in one conversation', async () => {
  await using oz = await startHarnessFixture({ steps: [{ text: 'One.' }, { text: 'Two.' }] })
  const session = await oz.open()
  expect(await session.prompt(turn('first'), never())).toMatchObject({ outcome: 'SUCCEEDED', message: 'One.' })
  expect(await session.prompt(turn('second'), never())).toMatchObject({ outcome: 'SUCCEEDED', message: 'Two.' })
  expect(messagesOf(oz.model.requests[1])).toEqual(['user: first', 'assistant: One.', 'user: second'])
})

test.each(modelAccesses)('a call and its result go over the wire $wire, and the model is named', async (access) => {
  await using oz = await startHarnessFixture({
    access,
    steps: [{ reasoning: 'Hm.', text: 'Look:', ...command('echo hi > f; cat f') }, { text: 'Done.' }],
  })
  const session = await oz.open()
  expect(await session.prompt(turn('go'), never())).toMatchObject({ outcome: 'SUCCEEDED', message: 'Done.' })
  expect(oz.model.requests.map(({ model }) => model)).toEqual([access.id, access.id])
  const second = JSON.stringify(oz.model.requests[1]?.body)
  expect(second).toContain('exit_code')
  expect(readFileSync(join(oz.folder, 'f'), 'utf8')).toBe('hi\n')
  if (access.wire === 'anthropic-messages') {
    expect(second).toContain('c2lnbmF0dXJl')
    expect(second).toContain('cache_control')
  }
  if (access.wire !== 'openai-responses') expect(oz.eventsOf('agent_thought_chunk')[0]?.content.text).toBe('Hm.')
})

test('what is said before a request goes into it, all of it, in order and once', async () => {
  await using oz = await startHarnessFixture({ steps: [command('sleep 0.3'), { text: 'Done.' }] })
  const session = await oz.open()
  const before = said('said before')
  const input = turn('go', { messages: [before] })
  const ended = session.prompt(input, never())
  await until(() => oz.eventsOf('tool_call').length > 0)
  const [one, two] = [said('one'), said('two')]
  for (const message of [one, two, one, before]) session.steer(message)
  await ended
  const taken = (await session.checkpoint())?.takenMessageIds
  expect(taken).toEqual([before, one, two].map(({ message_id }) => message_id))
  expect(oz.eventsOf('message_delivered').map(({ message_id }) => message_id)).toEqual(taken)
  expect(messagesOf(oz.model.requests[0])).toEqual(['user: go', 'user: said before'])
  expect(messagesOf(oz.model.requests[1]).slice(-2)).toEqual(['user: one', 'user: two'])
})

test('a message that comes while the last answer streams is answered in the same turn', async () => {
  await using oz = await startHarnessFixture({
    steps: [{ text: ['Almost', ' done.'], pieceDelayMs: 100 }, { text: 'Both done.' }],
  })
  const session = await oz.open()
  const ended = session.prompt(turn('go'), never())
  await until(() => oz.eventsOf('agent_message_chunk').length > 0)
  session.steer(said('and that'))
  expect(await ended).toMatchObject({ outcome: 'SUCCEEDED', message: 'Both done.' })
  expect(messagesOf(oz.model.requests[1])).toEqual(['user: go', 'assistant: Almost done.', 'user: and that'])
  session.steer(said('too late'))
  expect(oz.eventsOf('message_delivered').length).toBe(1)
})

test('an interruption stops the answer, keeps what was said, and the turn goes on', async () => {
  await using oz = await startHarnessFixture({
    steps: [{ text: ['I will', ' never'], hangAfterPieces: 2 }, { text: 'Stopped.' }],
  })
  const session = await oz.open()
  const ended = session.prompt(turn('go'), never())
  await until(() => oz.eventsOf('agent_message_chunk').length > 0)
  const start = performance.now()
  session.interrupt(said('stop that', 'interrupt'))
  expect(await ended).toMatchObject({ outcome: 'SUCCEEDED', message: 'Stopped.' })
  expect(performance.now() - start).toBeLessThan(1_000)
  expect(oz.model.requests[0]?.wasAborted).toBe(true)
  expect(messagesOf(oz.model.requests[1])).toEqual(['user: go', 'assistant: I will', 'user: stop that'])
})

test('an interruption stops tools within a second, also those that do not want to, and answers their calls', async () => {
  const stubborn = { name: 'run_command', arguments: { command: 'trap "" TERM; echo up; sleep 30; sleep 30' } }
  const next = { name: 'run_command', arguments: { command: 'touch never' } }
  await using oz = await startHarnessFixture({ steps: [{ toolCalls: [stubborn, next] }, { text: 'Stopped.' }] })
  const session = await oz.open()
  const ended = session.prompt(turn('go'), never())
  await until(() => oz.eventsOf('terminal_output').length > 0)
  const start = performance.now()
  session.interrupt(said('stop that', 'interrupt'))
  expect(await ended).toMatchObject({ outcome: 'SUCCEEDED' })
  expect(performance.now() - start).toBeLessThan(1_000)
  const last = messagesOf(oz.model.requests[1])
  expect(last.filter((text) => text.startsWith('tool:') && text.includes('was stopped')).length).toBe(2)
  expect(last.at(-1)).toBe('user: stop that')
})

test('an interruption ends the wait for a model that refuses', async () => {
  const busy = { status: 429, headers: { 'retry-after': '5' }, body: { error: { message: 'slow down' } } }
  await using oz = await startHarnessFixture({ steps: [busy, { text: 'Hello.' }] })
  const session = await oz.open()
  const ended = session.prompt(turn('go'), never())
  await until(() => oz.eventsOf('model_wait').length > 0)
  expect(oz.eventsOf('model_wait')[0]).toMatchObject({ attempt: 1, reason: expect.stringContaining('rate is limited') })
  const start = performance.now()
  session.interrupt(said('now', 'interrupt'))
  expect(await ended).toMatchObject({ outcome: 'SUCCEEDED' })
  expect(performance.now() - start).toBeLessThan(1_000)
  expect(messagesOf(oz.model.requests[1])).toEqual(['user: go', 'user: now'])
})

test('cancelling while the model is waited for is quick, and the conversation stays usable', async () => {
  const busy = { status: 503, headers: { 'retry-after': '5' }, body: {} }
  await using oz = await startHarnessFixture({ steps: [busy, { text: 'Hello.' }] })
  const session = await oz.open()
  const stop = new AbortController()
  const ended = session.prompt(turn('go'), stop.signal)
  const refused = expect(ended).rejects.toThrow('enough')
  await until(() => oz.eventsOf('model_wait').length > 0)
  const start = performance.now()
  stop.abort(new Error('enough'))
  await refused
  expect(performance.now() - start).toBeLessThan(500)
  expect(await session.prompt(turn('again'), never())).toMatchObject({ outcome: 'SUCCEEDED', message: 'Hello.' })
})

test('a question ends the turn, and the answer to it goes on there, also in another process', async () => {
  await using oz = await startHarnessFixture({
    steps: [{ toolCalls: [...command('echo once >> log').toolCalls, ...ask.toolCalls] }, { text: 'Red it is.' }],
  })
  const first = await oz.open()
  const input = turn('paint')
  const blocked = { outcome: 'BLOCKED', message: 'Blue or red?' }
  expect(await first.prompt(input, never())).toMatchObject(blocked)
  const checkpoint = (await first.checkpoint()) ?? undefined
  await first.close()
  const second = await oz.open({ checkpoint })
  expect(await second.prompt(input, never())).toMatchObject(blocked)
  expect(await second.prompt(turn('red'), never())).toMatchObject({ outcome: 'SUCCEEDED', message: 'Red it is.' })
  expect(oz.model.requests.length).toBe(2)
  expect(messagesOf(oz.model.requests[1]).at(-1)).toBe('user: red')
  expect(readFileSync(join(oz.folder, 'log'), 'utf8')).toBe('once\n')
})

test('what a person says while a question is being asked is heard first', async () => {
  await using oz = await startHarnessFixture({
    steps: [{ toolCalls: [...command('sleep 0.3').toolCalls, ...ask.toolCalls] }, { text: 'Green.' }],
  })
  const session = await oz.open()
  const ended = session.prompt(turn('paint'), never())
  await until(() => oz.eventsOf('tool_call').length > 0)
  session.steer(said('make it green'))
  expect(await ended).toMatchObject({ outcome: 'SUCCEEDED', message: 'Green.' })
})

test('notes about the machine stand before the next question to the model', async () => {
  await using oz = await startHarnessFixture({ steps: [{ text: 'ok' }] })
  const session = await oz.open({ notes: ['Note from openoz: the machine is a new one.'] })
  await session.prompt(turn('go'), never())
  expect(messagesOf(oz.model.requests[0])).toEqual(['user: Note from openoz: the machine is a new one.', 'user: go'])
})

test('Claude thinks where it decides by itself how long', async () => {
  for (const [name, thinking] of [
    ['claude-sonnet-4-6', { type: 'adaptive', display: 'summarized' }],
    ['claude-opus-5', { type: 'adaptive', display: 'summarized' }],
    ['claude-sonnet-4-5', undefined],
    ['claude-sonnet-4-20250514', undefined],
    ['claude-3-5-haiku-latest', undefined],
  ] as const) {
    const access = { id: `anthropic/${name}`, wire: 'anthropic-messages', base_path: '/llm/anthropic/v1' } as const
    await using oz = await startHarnessFixture({ access, steps: [{ text: 'ok' }] })
    const session = await oz.open()
    await session.prompt(turn('go'), never())
    expect(oz.model.requests[0]?.body.thinking).toEqual(thinking)
  }
})

const picture = 'iVBORw0KGgoAAAANSUhEUgAAAAEAAAABCAYAAAAfFcSJAAAADUlEQVR42mNk+M9QDwADhgGAWjR9awAAAABJRU5ErkJggg=='

test.each(modelAccesses)(
  'pictures go to models that see, and are named to those that do not ($wire)',
  async (access) => {
    const read = { toolCalls: [{ name: 'read_files', arguments: { files: [{ path: 'dot.png' }] } }] }
    for (const vision of [true, false]) {
      await using oz = await startHarnessFixture({ access: { ...access, vision }, steps: [read, { text: 'A dot.' }] })
      writeFileSync(join(oz.folder, 'dot.png'), Buffer.from(picture, 'base64'))
      const session = await oz.open()
      expect(await session.prompt(turn('look'), never())).toMatchObject({ outcome: 'SUCCEEDED' })
      const body = JSON.stringify(oz.model.requests[1]?.body)
      expect(body.includes(picture.slice(0, 60))).toBe(vision)
      expect(body.includes('does not see pictures')).toBe(!vision)
    }
  },
)
