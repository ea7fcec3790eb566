import { expect, test } from 'vitest'
import type { ModelWire } from './providers.ts'
import { createUsageMeter, type UsageMeterOptions } from './usage-meter.ts'

const event = (value: unknown) => `data: ${typeof value === 'string' ? value : JSON.stringify(value)}\n\n`
const delta = (content: string) => event({ choices: [{ delta: { role: 'assistant', content } }], usage: null })
const chatUsage = event({
  choices: [],
  usage: { prompt_tokens: 100, completion_tokens: 7, prompt_tokens_details: { cached_tokens: 40 } },
})

function run(wire: ModelWire, text: string, options: Partial<UsageMeterOptions> & { chunkBytes?: number } = {}) {
  const meter = createUsageMeter({ wire, format: 'events', requestBytes: 400, dropUsageChunk: false, ...options })
  const bytes = Buffer.from(text)
  const size = options.chunkBytes ?? bytes.length
  const passed: Buffer[] = []
  for (let at = 0; at < bytes.length; at += size) passed.push(meter.push(bytes.subarray(at, at + size)))
  passed.push(meter.flush())
  return { passed: Buffer.concat(passed).toString(), usage: meter.usage() }
}

const exactChat = { inputTokens: 100, outputTokens: 7, cachedInputTokens: 40, estimated: false }

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
        usage: { input_tokens: 11, input_tokens_details: { cached_tokens: 3 }, output_tokens: 5 },
      },
    }),
  ].join('')
  const { passed, usage } = run('openai-responses', text, { chunkBytes: 1000 })
  expect(passed).toBe(text)
  expect(usage).toEqual({ inputTokens: 11, outputTokens: 5, cachedInputTokens: 3, estimated: false })
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
    inputTokens: 330,
    outputTokens: 42,
    cachedInputTokens: 300,
    estimated: false,
  })
})

test('a stream that ends early is estimated from what the model said', () => {
  expect(run('openai-chat', delta('x'.repeat(40))).usage).toEqual({
    inputTokens: 100,
    outputTokens: 10,
    cachedInputTokens: 0,
    estimated: true,
  })
  const text =
    messageStart + event({ type: 'content_block_delta', delta: { type: 'text_delta', text: 'x'.repeat(80) } })
  expect(run('anthropic-messages', text).usage).toEqual({
    inputTokens: 330,
    outputTokens: 20,
    cachedInputTokens: 300,
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
    inputTokens: 100,
    outputTokens,
    cachedInputTokens: 0,
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
