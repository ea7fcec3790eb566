import { expect, test } from 'vitest'
import { modelAccesses, said, startHarnessFixture, turn } from '../../../../test/support/harness-fixture.ts'
import type { ModelRequest, ScriptedStep } from '../../../../test/support/scripted-model.ts'
import { decodeCheckpoint } from './checkpoint.ts'

const never = () => new AbortController().signal

interface ChatMessage {
  role: string
  content: string | null
  tool_call_id?: string
  tool_calls?: { id: string }[]
}

const isSummary = ({ body }: ModelRequest) => JSON.stringify(body).includes('You sum up the work')
const messagesOf = ({ body }: ModelRequest) => body.messages as ChatMessage[]
const sizeOf = ({ body }: ModelRequest) => Math.ceil(JSON.stringify(body).length / 4)

/** Writes so many characters with each step, and then says that it is done. The step's number stands at both ends. */
function talkative(steps: number, characters: number, summary: ScriptedStep) {
  let step = 0
  return (request: ModelRequest): ScriptedStep => {
    if (isSummary(request)) return summary
    if (step === steps) return { text: 'All done.' }
    step++
    const command = `echo begin-${step}; head -c ${characters} /dev/zero | tr '\\0' x; echo; echo end-${step}`
    return { toolCalls: [{ id: `call_${step}`, name: 'run_command', arguments: { command } }] }
  }
}

/** Each call has its result right after it, and nothing else has one. */
function expectPaired(request: ModelRequest): void {
  const messages = messagesOf(request)
  const open = new Set<string>()
  for (const { role, tool_calls = [], tool_call_id = '' } of messages) {
    if (role === 'tool') expect(open.delete(tool_call_id)).toBe(true)
    else expect(open.size).toBe(0)
    for (const { id } of tool_calls) open.add(id)
  }
  expect(open.size).toBe(0)
}

const window = 24_000

test('a conversation is shortened before the window is full: the task stays, the newest steps stay as they were', async () => {
  await using oz = await startHarnessFixture({
    access: { context_window: window },
    limits: { max_output_tokens: 2_000 },
    handler: talkative(30, 12_000, { text: 'SUMMARY: begin-1 and more were printed.' }),
  })
  const session = await oz.open()
  const extra = said('and print it twice')
  const result = await session.prompt(turn('print a lot', { messages: [extra] }), never())
  expect(result).toMatchObject({ outcome: 'SUCCEEDED', message: 'All done.' })
  expect((await session.checkpoint())?.takenMessageIds).toEqual([extra.message_id])
  const asked = oz.model.requests.filter((request) => !isSummary(request))
  expect(asked.length).toBe(31)
  for (const [index, request] of asked.entries()) {
    expect(sizeOf(request)).toBeLessThan(window)
    expectPaired(request)
    const text = JSON.stringify(messagesOf(request).slice(1))
    expect(text).toContain('print a lot')
    expect(text).toContain('and print it twice')
    for (const part of index > 0 ? [`begin-${index}`, 'x'.repeat(11_000), `end-${index}`] : [])
      expect(text.includes(part)).toBe(true)
  }
  expect(JSON.stringify(asked.at(-1)?.body)).toContain('SUMMARY: begin-1')
  const notices = oz.eventsOf('notice').map(({ text }) => text)
  expect(notices.some((text) => text.includes('summed up'))).toBe(true)
  // Viewers do not see the summary as if the agent had said it.
  expect(oz.eventsOf('agent_message_chunk').map(({ content }) => content.text)).toEqual(['All done.'])

  const checkpoint = (await session.checkpoint()) ?? undefined
  expect(checkpoint && decodeCheckpoint(checkpoint).compacted?.said).toEqual(['print a lot', 'and print it twice'])
  const next = await oz.open({ checkpoint })
  expect(await next.prompt(turn('go on'), never())).toMatchObject({ outcome: 'SUCCEEDED' })
  expect(JSON.stringify(oz.model.requests.at(-1)?.body)).toContain('SUMMARY: begin-1')
})

test('where no summary can be had the older part is cut, and the work goes on', async () => {
  await using oz = await startHarnessFixture({
    access: { context_window: window },
    limits: { max_output_tokens: 2_000 },
    handler: talkative(20, 12_000, { status: 400, body: { error: { message: 'no summaries' } } }),
  })
  const session = await oz.open()
  expect(await session.prompt(turn('print a lot'), never())).toMatchObject({
    outcome: 'SUCCEEDED',
    message: 'All done.',
  })
  for (const request of oz.model.requests) expect(sizeOf(request)).toBeLessThan(window)
  expect(oz.eventsOf('notice').some(({ text }) => text.includes('without a summary'))).toBe(true)
  expect(JSON.stringify(oz.model.requests.at(-1)?.body)).toContain('print a lot')
})

test.each([
  ['its key is wrong', 401, 'invalid x-api-key', 'model_provider_rejected'],
  ['it has no credit left', 402, 'payment required', 'model_quota_exhausted'],
  ['it is overloaded for long', 529, 'overloaded', 'model_overloaded'],
])('nothing is given up when no summary can be had because %s', async (_, status, message, errorCode) => {
  const talk = talkative(30, 12_000, { status, body: { error: { message } } })
  await using oz = await startHarnessFixture({
    access: { context_window: window },
    limits: { max_output_tokens: 2_000, llm_retry_for_ms: 100 },
    handler: talk,
  })
  const session = await oz.open()
  expect(await session.prompt(turn('print a lot'), never())).toMatchObject({ errorCode })
  const checkpoint = (await session.checkpoint()) ?? undefined
  const conversation = checkpoint && decodeCheckpoint(checkpoint)
  const steps = oz.model.requests.filter((request) => !isSummary(request)).length
  expect(oz.model.requests.some(isSummary)).toBe(true)
  expect(conversation?.compacted).toBeUndefined()
  for (let step = 1; step <= steps; step++) {
    expect(JSON.stringify(conversation?.messages)).toContain(`begin-${step}\\\\n`)
    expect(JSON.stringify(conversation?.messages)).toContain(`end-${step}\\\\n`)
  }
})

const refusals: [provider: string, status: number, body: unknown][] = [
  [
    'OpenAI',
    400,
    { error: { code: 'context_length_exceeded', message: "This model's maximum context length is 30000 tokens." } },
  ],
  [
    'Anthropic',
    400,
    {
      type: 'error',
      error: { type: 'invalid_request_error', message: 'prompt is too long: 40000 tokens > 30000 maximum' },
    },
  ],
  [
    'Google',
    400,
    {
      error: {
        code: 400,
        status: 'INVALID_ARGUMENT',
        message: 'The input token count (40000) exceeds the maximum number of tokens allowed (30000).',
      },
    },
  ],
  ['Bedrock', 400, { message: 'Input is too long for requested model.' }],
  [
    'vLLM',
    400,
    {
      object: 'error',
      message: 'You passed 40000 input tokens. However, the model’s context length is only 30000 tokens.',
    },
  ],
  [
    'llama.cpp',
    400,
    {
      error: {
        code: 400,
        type: 'exceed_context_size_error',
        message: 'the request exceeds the available context size',
      },
    },
  ],
  ['a gateway', 413, { error: { message: 'The body is too large.' } }],
]

test.each(refusals)(
  'a refusal of too long a conversation in the words of %s makes it shorter',
  async (_, status, body) => {
    const talk = talkative(12, 24_000, { text: 'SUMMARY' })
    const handler = (request: ModelRequest) =>
      sizeOf(request) > 30_000 && !isSummary(request) ? { status, body } : talk(request)
    await using oz = await startHarnessFixture({ handler })
    const session = await oz.open()
    expect(await session.prompt(turn('print a lot'), never())).toMatchObject({
      outcome: 'SUCCEEDED',
      message: 'All done.',
    })
    for (const request of oz.model.requests) expectPaired(request)
  },
)

test.each(modelAccesses)('a conversation that does not fit however short it is fails ($wire)', async (access) => {
  const handler = (request: ModelRequest) =>
    isSummary(request) ? { text: 'SUMMARY' } : { status: 400, body: { error: { message: 'prompt is too long' } } }
  await using oz = await startHarnessFixture({ access, handler })
  const session = await oz.open()
  const result = await session.prompt(turn('x'.repeat(5_000)), never())
  expect(result).toMatchObject({ outcome: 'FAILED', errorCode: 'context_window_exceeded' })
  expect(oz.model.requests.length).toBeLessThan(6)
})

test('one huge output is cut where nothing else can be', async () => {
  const content = 'y'.repeat(1024 * 1024)
  const edit = { name: 'edit_files', arguments: { edits: [{ type: 'create', path: 'big', content }] } }
  await using oz = await startHarnessFixture({
    access: { context_window: 100_000 },
    steps: [{ toolCalls: [edit] }, { text: 'Written.' }],
  })
  const session = await oz.open()
  expect(await session.prompt(turn('write'), never())).toMatchObject({ outcome: 'SUCCEEDED', message: 'Written.' })
  const last = oz.model.requests.at(-1)
  expect(last && sizeOf(last)).toBeLessThan(100_000)
})

test('the provider’s own count is believed before the estimate', async () => {
  const talk = talkative(6, 100, { text: 'SUMMARY' })
  const handler = (request: ModelRequest) => ({ ...talk(request), usage: { input: 22_500, output: 100 } })
  await using oz = await startHarnessFixture({
    access: { context_window: window },
    limits: { max_output_tokens: 2_000 },
    handler,
  })
  const session = await oz.open()
  expect(await session.prompt(turn('print'), never())).toMatchObject({ outcome: 'SUCCEEDED' })
  expect(oz.eventsOf('notice').some(({ text }) => text.includes('too long for the model'))).toBe(true)
})
