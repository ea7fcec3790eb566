import { expect, test } from 'vitest'
import { startHarnessFixture, turn } from '../../../../test/support/harness-fixture.ts'
import { decodeCheckpoint, encodeCheckpoint } from './checkpoint.ts'
import { newConversation, userMessage } from './conversation.ts'

/** As the first version of the harness wrote it, in the middle of a turn. */
const first =
  '{"turnId":"5f0c3a52-7a1e-4f6d-9d5e-2f6a8b1c0d3e","turnSteps":1,"step":3,"isAnswered":false,"messages":[' +
  '{"role":"user","content":"say hi"},' +
  '{"role":"assistant","content":[{"type":"text","text":"Look:"},{"type":"tool-call","toolCallId":"call_1","toolName":"run_command","input":{"command":"echo hi"}}]},' +
  '{"role":"tool","content":[{"type":"tool-result","toolCallId":"call_1","toolName":"run_command","output":{"type":"text","value":"{\\"status\\":\\"complete\\",\\"exit_code\\":0,\\"output\\":\\"hi\\\\n\\"}"}}]}]}'

test('a conversation that the first version kept is gone on with, in the same turn', async () => {
  await using oz = await startHarnessFixture({ steps: [{ text: 'I said hi.' }] })
  const checkpoint = { format: 'oz-messages-1', step: 3, data: Buffer.from(first), takenMessageIds: [] }
  const session = await oz.open({ checkpoint })
  const input = turn('say hi', { turn_id: '5f0c3a52-7a1e-4f6d-9d5e-2f6a8b1c0d3e' })
  const result = await session.prompt(input, new AbortController().signal)
  expect(result).toMatchObject({ outcome: 'SUCCEEDED', message: 'I said hi.' })
  const roles = oz.model.requests[0]?.body.messages.map(({ role }: { role: string }) => role)
  expect(roles).toEqual(['system', 'user', 'assistant', 'tool'])
  expect(await session.checkpoint()).toMatchObject({ format: 'oz-messages-2', step: 4 })
})

test.each([
  ['oz-messages-3', '{}', 'an unknown format'],
  ['oz-messages-2', '{"turnId":1}', 'turnId'],
  ['oz-messages-2', '{"turnId"', 'no JSON'],
])('a conversation in the form %s with %s is refused in words', async (format, data, problem) => {
  await using oz = await startHarnessFixture({})
  const checkpoint = { format, step: 1, data: Buffer.from(data), takenMessageIds: [] }
  await expect(oz.open({ checkpoint })).rejects.toMatchObject({
    code: 'conversation_unreadable',
    message: expect.stringContaining(problem),
  })
})

test('a conversation is read as it was written', () => {
  const conversation = {
    ...newConversation(),
    turnId: '1',
    takenMessageIds: ['2'],
    question: 'Which?',
    compacted: { said: ['a'], summary: 'b' },
    reported: { tokens: 1, messages: 1 },
    messages: [userMessage('hi'), userMessage('“\u2028”')],
    unfinished: {
      answer: [{ role: 'assistant' as const, content: 'x' }],
      calls: [{ id: '1', tool: 't', input: {} }],
      results: [
        { id: '1', tool: 't', result: { a: 1 }, isError: true, images: [{ mediaType: 'image/png', data: 'AA==' }] },
      ],
    },
  }
  expect(decodeCheckpoint(encodeCheckpoint(conversation))).toEqual(conversation)
})
