import { problem } from '@openoz/protocol/schemas'
import { expect, test } from 'vitest'
import { answerJson, startTestGateway, startTestProvider, withModel } from './test-provider.ts'

const providerKey = 'sk-provider-9876543210'
const openAi = (url: string) => ({ OPENAI_API_KEY: providerKey, OPENAI_BASE_URL: `${url}/v1` })
const chat = '/openai/v1/chat/completions'
const hello = { model: 'openai/m', messages: [{ role: 'user', content: 'hello' }] }

interface Refusal {
  upstream: number
  says: unknown
  status: number
  code: string
  words?: string
}

test.each<Refusal>([
  {
    upstream: 401,
    says: { error: { message: providerKey } },
    status: 502,
    code: 'model_provider_rejected',
    words: '401',
  },
  { upstream: 403, says: {}, status: 502, code: 'model_provider_rejected' },
  { upstream: 429, says: { error: { message: 'slow down' } }, status: 429, code: 'model_overloaded' },
  {
    upstream: 529,
    says: { type: 'error', error: { type: 'overloaded_error' } },
    status: 529,
    code: 'model_overloaded',
  },
  { upstream: 503, says: 'busy', status: 503, code: 'model_overloaded' },
  { upstream: 429, says: { error: { code: 'insufficient_quota' } }, status: 429, code: 'model_quota_exhausted' },
  {
    upstream: 400,
    says: { error: { message: 'Your credit balance is too low' } },
    status: 400,
    code: 'model_quota_exhausted',
  },
  {
    upstream: 400,
    says: { error: { message: 'max_tokens is too large' } },
    status: 400,
    code: 'model_request_rejected',
    words: 'max_tokens is too large',
  },
  { upstream: 400, says: { error: 'plain words' }, status: 400, code: 'model_request_rejected', words: 'plain words' },
  {
    upstream: 404,
    says: { error: { message: "model 'm' not found" } },
    status: 400,
    code: 'model_unknown',
    words: 'openai/m',
  },
  { upstream: 404, says: '<html>', status: 400, code: 'model_request_rejected', words: '404' },
  { upstream: 301, says: '', status: 400, code: 'model_request_rejected', words: 'base address' },
  { upstream: 500, says: { error: { message: 'boom' } }, status: 502, code: 'model_provider_failed', words: 'boom' },
])('a provider’s $upstream becomes $code', async ({ upstream, says, status, code, words = '' }) => {
  await using provider = await startTestProvider(
    withModel((response) => {
      if (typeof says === 'string') response.writeHead(upstream, { location: 'http://127.0.0.1:1/' }).end(says)
      else answerJson(response, says, upstream)
    }),
  )
  await using gateway = await startTestGateway(openAi(provider.url))
  const response = await gateway.post(chat, hello)
  expect(response.status).toBe(status)
  const answer = problem.parse(await response.json())
  expect(answer).toMatchObject({ code, status, message: expect.stringContaining(words) })
  expect(response.headers.get('x-should-retry')).toBe(String(answer.retryable))
  expect(JSON.stringify(answer)).not.toContain(providerKey)
  expect(gateway.usage).toEqual([])
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
  const answer = problem.parse(await (await gateway.post(chat, hello)).json())
  expect(answer.message).toContain('••• ää')
  expect(answer.message).not.toContain(providerKey)
  expect(Buffer.byteLength(answer.message)).toBeLessThan(2400)
})

test('a provider that is not there, or does not answer in time, is unreachable', async () => {
  await using gone = await startTestGateway({ OPENAI_BASE_URL: 'http://127.0.0.1:1/v1' })
  const refused = await gone.post(chat, hello)
  expect(refused.status).toBe(502)
  expect(await refused.json()).toMatchObject({
    code: 'model_provider_unreachable',
    retryable: true,
    message: expect.stringContaining('nothing listens at 127.0.0.1:1'),
  })
  await using unnamed = await startTestGateway({ OPENAI_BASE_URL: 'http://no-such-host.invalid/v1' })
  expect(await (await unnamed.post(chat, hello)).json()).toMatchObject({ code: 'model_provider_unreachable' })

  await using provider = await startTestProvider(withModel(() => {}))
  await using noTls = await startTestGateway({ OPENAI_BASE_URL: `${provider.url.replace('http', 'https')}/v1` })
  expect(await (await noTls.post(chat, hello)).json()).toMatchObject({ code: 'model_provider_unreachable' })
  await using slow = await startTestGateway(openAi(provider.url), { headersTimeoutMs: 100 })
  expect(await (await slow.post(chat, { ...hello, stream: true })).json()).toMatchObject({
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
