import type { ModelWire } from '@openoz/protocol'
import { expect, test } from 'vitest'
import { eventStreamFrame } from '../../../../test/support/bedrock-wire.ts'
import { createUsageMeter, type UsageMeterOptions } from './usage-meter.ts'

const event = (value: unknown) => `data: ${typeof value === 'string' ? value : JSON.stringify(value)}\n\n`
const delta = (content: string) => event({ choices: [{ delta: { role: 'assistant', content } }], usage: null })
const chatUsage = event({
  choices: [],
  usage: { prompt_tokens: 100, completion_tokens: 7, prompt_tokens_details: { cached_tokens: 40 } },
})

function run(
  wire: ModelWire,
  text: string | Buffer,
  options: Partial<UsageMeterOptions> & { chunkBytes?: number } = {},
) {
  const meter = createUsageMeter({ wire, format: 'events', requestBytes: 400, dropUsageChunk: false, ...options })
  const bytes = Buffer.from(text as string)
  const size = options.chunkBytes ?? bytes.length
  const passed: Buffer[] = []
  for (let at = 0; at < bytes.length; at += size) passed.push(meter.push(bytes.subarray(at, at + size)))
  passed.push(meter.flush())
  return { passed: Buffer.concat(passed).toString(), usage: meter.usage() }
}

const nothing = { inputTokens: 0, outputTokens: 0, cacheReadTokens: 0, cacheWriteTokens: 0, reasoningTokens: 0 }
const exact = { ...nothing, estimated: false }
const exactChat = { ...exact, inputTokens: 60, outputTokens: 7, cacheReadTokens: 40 }

test.each([1, 2, 7, 64, 10_000])(
  'a chat stream in chunks of %i bytes passes unchanged and is counted',
  (chunkBytes) => {
    const text = `: keep-alive\r\n\r\n${delta('héllo "usage"')}${delta('\n\n')}${chatUsage}${event('[DONE]')}`
    const { passed, usage } = run('openai-chat', text, { chunkBytes })
    expect(passed).toBe(text)
    expect(usage).toEqual(exactChat)
  },
)

test.each([1, 2, 7, 64, 10_000])('only the usage chunk is left out, in chunks of %i bytes', (chunkBytes) => {
  const before = `: hi\n\n${delta('a')}event: x\r\nid: 1\r\n${delta('b')}`
  const { passed, usage } = run('openai-chat', `${before}${chatUsage}${event('[DONE]')}data: half`, {
    chunkBytes,
    dropUsageChunk: true,
  })
  expect(passed).toBe(`${before}${event('[DONE]')}data: half`)
  expect(usage).toEqual(exactChat)
})

test('a usage that comes with the last words is not left out', () => {
  const last = event({ choices: [{ delta: { content: 'x' } }], usage: { prompt_tokens: 1, completion_tokens: 2 } })
  const { passed, usage } = run('openai-chat', last, { dropUsageChunk: true })
  expect(passed).toBe(last)
  expect(usage).toMatchObject({ inputTokens: 1, outputTokens: 2, estimated: false })
})

test('of a Responses stream the completed event counts', () => {
  const text = [
    event({ type: 'response.created', response: { usage: null } }),
    event({ type: 'response.output_text.delta', delta: 'hi' }),
    event({
      type: 'response.completed',
      response: {
        output: ['x'.repeat(200_000)],
        usage: {
          input_tokens: 11,
          input_tokens_details: { cached_tokens: 3 },
          output_tokens: 5,
          output_tokens_details: { reasoning_tokens: 2 },
        },
      },
    }),
  ].join('')
  const { passed, usage } = run('openai-responses', text, { chunkBytes: 1000 })
  expect(passed).toBe(text)
  expect(usage).toEqual({ ...exact, inputTokens: 8, outputTokens: 5, cacheReadTokens: 3, reasoningTokens: 2 })
})

const messageStart = event({
  type: 'message_start',
  message: {
    usage: { input_tokens: 10, cache_creation_input_tokens: 20, cache_read_input_tokens: 300, output_tokens: 1 },
  },
})

test('of a Messages stream the input counts from its start and the output from its end', () => {
  const text = [
    messageStart,
    event({ type: 'content_block_delta', delta: { type: 'text_delta', text: 'hello' } }),
    event({ type: 'message_delta', delta: { stop_reason: 'end_turn' }, usage: { output_tokens: 42 } }),
    event({ type: 'message_stop' }),
  ].join('')
  expect(run('anthropic-messages', text, { chunkBytes: 5 }).usage).toEqual({
    ...exact,
    inputTokens: 10,
    outputTokens: 42,
    cacheReadTokens: 300,
    cacheWriteTokens: 20,
  })
})

test('a stream that ends early is estimated from what the model said', () => {
  expect(run('openai-chat', delta('x'.repeat(40))).usage).toEqual({
    ...nothing,
    inputTokens: 100,
    outputTokens: 10,
    estimated: true,
  })
  const text =
    messageStart + event({ type: 'content_block_delta', delta: { type: 'text_delta', text: 'x'.repeat(80) } })
  expect(run('anthropic-messages', text).usage).toEqual({
    ...nothing,
    inputTokens: 10,
    outputTokens: 20,
    cacheReadTokens: 300,
    cacheWriteTokens: 20,
    estimated: true,
  })
})

test.each<[ModelWire, unknown]>([
  [
    'openai-chat',
    {
      choices: [{}],
      usage: { prompt_tokens: 100, completion_tokens: 7, prompt_tokens_details: { cached_tokens: 40 } },
    },
  ],
  ['openai-responses', { usage: { input_tokens: 100, output_tokens: 7, input_tokens_details: { cached_tokens: 40 } } }],
  [
    'anthropic-messages',
    { type: 'message', usage: { input_tokens: 60, output_tokens: 7, cache_read_input_tokens: 40 } },
  ],
])('a whole answer of %s is counted', (wire, answer) => {
  const { passed, usage } = run(wire, JSON.stringify(answer), { format: 'json', chunkBytes: 9 })
  expect(passed).toBe(JSON.stringify(answer))
  expect(usage).toEqual(exactChat)
})

test.each([
  ['json', '{"choices":[{"message":{"content":"hi"}}]}'],
  ['json', 'not json'],
  ['json', '{"usage":{"prompt_tokens":"many","completion_tokens":-1}}'],
  ['opaque', '\u001f\u008b…'],
] as const)('an answer of format %s that does not say is estimated by its size', (format, text) => {
  const outputTokens = Math.ceil(Buffer.byteLength(text) / 4)
  expect(run('openai-chat', text, { format }).usage).toEqual({
    ...nothing,
    inputTokens: 100,
    outputTokens,
    estimated: true,
  })
})

test('a line above all limits passes without being kept, and counting goes on after it', () => {
  const meter = createUsageMeter({ wire: 'openai-chat', format: 'events', requestBytes: 4, dropUsageChunk: true })
  const block = Buffer.alloc(1024 * 1024, 'x')
  let passed = meter.push(Buffer.from('data: ')).length
  for (let i = 0; i < 40; i++) passed += meter.push(block).length
  passed += meter.push(Buffer.from('\n\n')).length
  expect(passed).toBe(6 + 40 * block.length + 2)
  expect(meter.push(Buffer.from(delta('hi') + chatUsage)).toString()).toBe(delta('hi'))
  expect(meter.usage()).toEqual(exactChat)
})

const googleChunk = (text: string, usageMetadata: object, more: object = {}) =>
  event({ candidates: [{ content: { role: 'model', parts: [{ text }] }, ...more }], usageMetadata })

test('of a Google stream the last chunk counts, its thoughts as output', () => {
  const read = { promptTokenCount: 100, cachedContentTokenCount: 40 }
  const text =
    googleChunk('hel', read) +
    googleChunk('lo', { ...read, candidatesTokenCount: 7, thoughtsTokenCount: 5 }, { finishReason: 'STOP' })
  expect(run('google-generate-content', text, { chunkBytes: 7 }).usage).toEqual({
    ...exact,
    inputTokens: 60,
    outputTokens: 12,
    cacheReadTokens: 40,
    reasoningTokens: 5,
  })
  const cut = googleChunk('x'.repeat(80), read)
  expect(run('google-generate-content', cut).usage).toEqual({
    ...nothing,
    inputTokens: 60,
    outputTokens: 20,
    cacheReadTokens: 40,
    estimated: true,
  })
})

test('a Google stream that is one list is counted', () => {
  const chunks = [
    { candidates: [{ content: {} }], usageMetadata: { promptTokenCount: 9 } },
    { candidates: [{ finishReason: 'STOP' }], usageMetadata: { promptTokenCount: 9, candidatesTokenCount: 3 } },
  ]
  const { usage } = run('google-generate-content', JSON.stringify(chunks), { format: 'json', chunkBytes: 11 })
  expect(usage).toEqual({ ...exact, inputTokens: 9, outputTokens: 3 })
})

const frame = (type: string, payload: object) =>
  eventStreamFrame({ ':event-type': type, ':message-type': 'event' }, payload)

test.each([1, 2, 7, 64, 10_000])(
  'Bedrock’s frames in chunks of %i bytes pass unchanged and are counted',
  (chunkBytes) => {
    const bytes = Buffer.concat([
      frame('messageStart', { role: 'assistant' }),
      frame('contentBlockDelta', { contentBlockIndex: 0, delta: { text: 'héllo' } }),
      frame('messageStop', { stopReason: 'end_turn' }),
      frame('metadata', {
        usage: { inputTokens: 9, outputTokens: 3, cacheReadInputTokens: 40, cacheWriteInputTokens: 20 },
      }),
    ])
    const { passed, usage } = run('bedrock-converse', bytes, { format: 'frames', chunkBytes })
    expect(passed).toBe(bytes.toString())
    expect(usage).toEqual({ ...exact, inputTokens: 9, outputTokens: 3, cacheReadTokens: 40, cacheWriteTokens: 20 })
    const cut = run('bedrock-converse', bytes.subarray(0, -30), { format: 'frames', chunkBytes })
    expect(cut.usage).toEqual({ ...nothing, inputTokens: 100, outputTokens: 2, estimated: true })
  },
)

test('bytes that are no frames pass, and are estimated', () => {
  const { passed, usage } = run('bedrock-converse', 'not a frame at all, but text', { format: 'frames', chunkBytes: 5 })
  expect(passed).toBe('not a frame at all, but text')
  expect(usage.estimated).toBe(true)
})

test('a frame above all limits is skipped, and counting goes on after it', () => {
  const large = frame('contentBlockDelta', { delta: { text: 'x'.repeat(33 * 1024 * 1024) } })
  const bytes = Buffer.concat([large, frame('metadata', { usage: { inputTokens: 1, outputTokens: 2 } })])
  const { usage } = run('bedrock-converse', bytes, { format: 'frames', chunkBytes: 1_000_000 })
  expect(usage).toEqual({ ...exact, inputTokens: 1, outputTokens: 2 })
})
