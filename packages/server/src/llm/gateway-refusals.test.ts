import { expect, test } from 'vitest'
import { answerJson, errorOf, startTestGateway, startTestProvider, withModel } from './test-provider.ts'

const providerKey = 'sk-provider-9876543210'
const openAi = (url: string) => ({ OPENAI_API_KEY: providerKey, OPENAI_BASE_URL: `${url}/v1` })
const chat = '/openai/v1/chat/completions'
const hello = { model: 'openai/m', messages: [{ role: 'user', content: 'hello' }] }

interface Refusal {
  upstream: number
  says: unknown
  /** Where it is not the provider's. */
  status?: number
  code: string
  words?: string
  retryable?: boolean
}

test.each<Refusal>([
  { upstream: 401, says: { error: { message: providerKey } }, code: 'model_provider_rejected', words: '•••' },
  { upstream: 403, says: {}, code: 'model_provider_rejected', words: 'openai gave no reason' },
  { upstream: 429, says: { error: { message: 'slow down' } }, code: 'model_overloaded', retryable: true },
  { upstream: 529, says: { error: { type: 'overloaded_error' } }, code: 'model_overloaded', retryable: true },
  { upstream: 503, says: 'busy', code: 'model_provider_failed', words: 'busy', retryable: true },
  { upstream: 429, says: { error: { code: 'insufficient_quota' } }, code: 'model_quota_exhausted' },
  {
    upstream: 400,
    says: { error: { message: 'Your credit balance is too low' } },
    code: 'model_quota_exhausted',
  },
  {
    upstream: 400,
    says: { error: { message: 'max_tokens is too large', type: 'invalid_request_error', param: 'max_tokens' } },
    code: 'model_request_rejected',
    words: 'max_tokens is too large',
  },
  { upstream: 400, says: { error: 'plain words' }, code: 'model_request_rejected', words: 'plain words' },
  { upstream: 404, says: { error: { message: "model 'm' not found" } }, code: 'model_unknown', words: 'not found' },
  { upstream: 404, says: '<html>', code: 'model_request_rejected', words: 'gave no reason' },
  { upstream: 301, says: '', status: 400, code: 'model_request_rejected', words: 'base address' },
  {
    upstream: 500,
    says: { error: { message: 'boom' } },
    code: 'model_provider_failed',
    words: 'boom',
    retryable: true,
  },
])('a provider’s $upstream is passed on, and called $code', async (refusal) => {
  const { upstream, says, status = upstream, code, words = '', retryable = false } = refusal
  await using provider = await startTestProvider(
    withModel((response) => {
      if (typeof says === 'string') response.writeHead(upstream, { location: 'http://127.0.0.1:1/' }).end(says)
      else answerJson(response, says, upstream)
    }),
  )
  await using gateway = await startTestGateway(openAi(provider.url))
  const response = await gateway.post(chat, hello)
  expect(response.status).toBe(status)
  expect(response.headers.get('x-oz-error-code')).toBe(code)
  expect(response.headers.get('x-should-retry')).toBe(String(retryable))
  const error = await errorOf(response)
  expect(error).toMatchObject({ message: expect.stringContaining(words), type: expect.any(String) })
  expect(Object.keys(error)).toEqual(['message', 'type', 'param', 'code'])
  expect(JSON.stringify(error)).not.toContain(providerKey)
  expect(gateway.usage).toEqual([])
})

const families = [
  {
    name: 'Anthropic',
    env: (url: string) => ({ ANTHROPIC_API_KEY: providerKey, ANTHROPIC_BASE_URL: url }),
    path: '/anthropic/v1/messages',
    body: { model: 'anthropic/m', messages: [] },
    unauthorized: { type: 'error', error: { type: 'authentication_error', message: expect.any(String) } },
    missing: { type: 'error', error: { type: 'invalid_request_error', message: expect.any(String) } },
    overloaded: { type: 'error', error: { type: 'overloaded_error', message: 'Overloaded' } },
    says: { type: 'error', error: { type: 'overloaded_error', message: 'Overloaded' } },
  },
  {
    name: 'Google',
    env: (url: string) => ({ GEMINI_API_KEY: providerKey, GOOGLE_GEMINI_BASE_URL: url }),
    path: '/google/v1beta/models/google%2Fm:generateContent',
    body: { contents: [] },
    unauthorized: { error: { code: 401, message: expect.any(String), status: 'UNAUTHENTICATED' } },
    missing: { error: { code: 400, message: expect.any(String), status: 'INVALID_ARGUMENT' } },
    overloaded: { error: { code: 529, message: 'Overloaded', status: 'UNAVAILABLE', details: [{ retryDelay: '3s' }] } },
    says: { error: { code: 529, message: 'Overloaded', status: 'UNAVAILABLE', details: [{ retryDelay: '3s' }] } },
  },
  {
    name: 'Bedrock',
    env: (url: string) => ({ AWS_BEARER_TOKEN_BEDROCK: providerKey, AWS_ENDPOINT_URL_BEDROCK_RUNTIME: url }),
    path: '/bedrock/model/bedrock%2Fm/converse',
    body: { messages: [] },
    unauthorized: { message: expect.any(String) },
    missing: { message: expect.any(String) },
    overloaded: { message: 'Overloaded' },
    says: { message: 'Overloaded' },
  },
]

test.each(families)('errors on $name’s path have its shape', async (family) => {
  await using provider = await startTestProvider(withModel((response) => answerJson(response, family.says, 529)))
  await using gateway = await startTestGateway(family.env(provider.url))
  const unauthorized = await gateway.post(family.path, family.body, { headers: { authorization: '' } })
  expect([unauthorized.status, await unauthorized.json()]).toEqual([401, family.unauthorized])
  expect(unauthorized.headers.get('x-oz-error-code')).toBe('api_key_missing')
  const overloaded = await gateway.post(family.path, family.body)
  expect([overloaded.status, await overloaded.json()]).toEqual([529, family.overloaded])

  await using empty = await startTestGateway({})
  const missing = await empty.post(family.path, family.body)
  expect([missing.status, await missing.json()]).toEqual([400, family.missing])
  expect(missing.headers.get('x-oz-error-code')).toBe('model_provider_missing')
  const isAmazon = family.name === 'Bedrock'
  expect(missing.headers.get('x-amzn-errortype')).toBe(isAmazon ? 'ValidationException' : null)
})

test('the time to come back after is passed on', async () => {
  await using provider = await startTestProvider(
    withModel((response) => answerJson(response, {}, 429, { 'retry-after': '7', 'retry-after-ms': '6900' })),
  )
  await using gateway = await startTestGateway(openAi(provider.url))
  const { headers } = await gateway.post(chat, hello)
  expect(headers.get('retry-after')).toBe('7')
  expect(headers.get('retry-after-ms')).toBe('6900')
  expect(headers.get('x-should-retry')).toBe('true')
})

test('a long explanation is cut, and the key in it masked', async () => {
  const message = `${providerKey} ${'ä'.repeat(5000)}`
  await using provider = await startTestProvider(
    withModel((response) => answerJson(response, { error: { message } }, 400)),
  )
  await using gateway = await startTestGateway(openAi(provider.url))
  const error = await errorOf(await gateway.post(chat, hello))
  expect(error.message).toContain('••• ää')
  expect(error.message).not.toContain(providerKey)
  expect(Buffer.byteLength(error.message)).toBeLessThan(2400)
})

test('a provider that is not there, or does not answer in time, is unreachable', async () => {
  await using gone = await startTestGateway({ OPENAI_BASE_URL: 'http://127.0.0.1:1/v1' })
  const refused = await gone.post(chat, hello)
  expect(refused.status).toBe(502)
  expect(refused.headers.get('x-should-retry')).toBe('true')
  expect(await errorOf(refused)).toMatchObject({
    code: 'model_provider_unreachable',
    message: expect.stringContaining('nothing listens at 127.0.0.1:1'),
  })
  await using unnamed = await startTestGateway({ OPENAI_BASE_URL: 'http://no-such-host.invalid/v1' })
  expect(await errorOf(await unnamed.post(chat, hello))).toMatchObject({ code: 'model_provider_unreachable' })

  await using provider = await startTestProvider(withModel(() => {}))
  await using noTls = await startTestGateway({ OPENAI_BASE_URL: `${provider.url.replace('http', 'https')}/v1` })
  expect(await errorOf(await noTls.post(chat, hello))).toMatchObject({ code: 'model_provider_unreachable' })
  await using slow = await startTestGateway(openAi(provider.url), { headersTimeoutMs: 100 })
  expect(await errorOf(await slow.post(chat, { ...hello, stream: true }))).toMatchObject({
    code: 'model_provider_unreachable',
    message: expect.stringContaining('no answer within 0.1 s'),
  })
})

test('an idle connection that the provider closes costs no call', async () => {
  await using provider = await startTestProvider(
    withModel((response, { body }, incoming) => {
      // The socket is kept by the client; the second call on it finds it dead.
      if (body.includes('second') && incoming.socket.bytesWritten > 0) incoming.socket.resetAndDestroy()
      else answerJson(response, { usage: { prompt_tokens: 1, completion_tokens: 1 } })
    }),
  )
  await using gateway = await startTestGateway(openAi(provider.url))
  expect((await gateway.post(chat, hello)).status).toBe(200)
  expect((await gateway.post(chat, { model: 'm', input: 'second' })).status).toBe(200)
})
