import { expect, test } from 'vitest'
import {
  type Answer,
  answerJson,
  beginEvents,
  chatChunk,
  errorOf,
  startTestGateway,
  startTestProvider,
  testToken,
  withModel,
} from './test-provider.ts'

const providerKey = 'sk-provider-9876543210'
const openAi = (url: string) => ({ OPENAI_API_KEY: providerKey, OPENAI_BASE_URL: `${url}/v1` })
const anthropic = (url: string) => ({ ANTHROPIC_API_KEY: providerKey, ANTHROPIC_BASE_URL: url })

const chat = '/openai/v1/chat/completions'
const hello = { model: 'openai/m', messages: [{ role: 'user', content: 'hello' }] }
const event = (value: unknown) => `data: ${JSON.stringify(value)}\n\n`
const nothing = { inputTokens: 0, outputTokens: 0, cacheReadTokens: 0, cacheWriteTokens: 0, reasoningTokens: 0 }
const paid = {
  runId: 'run-1',
  executionId: 'execution-1',
  model: 'm',
  estimated: false,
  ...nothing,
  costUsd: undefined,
}

test('a chat completion passes with the provider’s key and name of the model, and is counted', async () => {
  const answer = { choices: [{ message: { content: 'hi' } }], usage: { prompt_tokens: 12, completion_tokens: 3 } }
  await using provider = await startTestProvider(
    withModel((response) => answerJson(response, answer, 200, { 'x-request-id': 'r1', 'set-cookie': 'a=b' })),
  )
  await using gateway = await startTestGateway(openAi(provider.url))
  const response = await gateway.post(chat, hello, {
    headers: { cookie: 'c=d', 'openai-beta': 'x=1', 'x-forwarded-for': '10.0.0.9', 'x-oz-run': 'r' },
  })
  expect(response.status).toBe(200)
  expect(response.headers.get('x-request-id')).toBe('r1')
  expect(response.headers.get('set-cookie')).toBeNull()
  expect(await response.json()).toEqual(answer)

  const [call] = provider.calls()
  expect(call?.path).toBe('/v1/chat/completions')
  expect(JSON.parse(call?.body ?? '')).toEqual({ ...hello, model: 'm' })
  expect(call?.headers).toMatchObject({ authorization: `Bearer ${providerKey}`, 'openai-beta': 'x=1' })
  for (const name of ['cookie', 'x-forwarded-for', 'x-oz-run', 'x-api-key']) expect(call?.headers[name]).toBeUndefined()
  expect(JSON.stringify(call)).not.toContain(testToken)
  expect(gateway.usage).toEqual([{ ...paid, provider: 'openai', inputTokens: 12, outputTokens: 3 }])
})

test('a chat stream is asked for its usage, which only a client that asked for it gets to see', async () => {
  const usage = event({ choices: [], usage: { prompt_tokens: 12, completion_tokens: 3 } })
  await using provider = await startTestProvider(
    withModel((response) => {
      const text = `${chatChunk('hi')}${usage}data: [DONE]\n\n`
      response.writeHead(200, { 'content-type': 'text/event-stream', 'content-length': text.length }).end(text)
    }),
  )
  await using gateway = await startTestGateway(openAi(provider.url))
  const plain = await gateway.post(chat, { ...hello, model: 'm', stream: true })
  expect(plain.headers.get('content-type')).toBe('text/event-stream')
  expect(await plain.text()).toBe(`${chatChunk('hi')}data: [DONE]\n\n`)
  const asking = { ...hello, stream: true, stream_options: { include_usage: true, x: 1 } }
  expect(await (await gateway.post(chat, asking)).text()).toBe(`${chatChunk('hi')}${usage}data: [DONE]\n\n`)

  expect(provider.calls().map(({ body }) => JSON.parse(body).stream_options)).toEqual([
    { include_usage: true },
    { include_usage: true, x: 1 },
  ])
  expect(gateway.usage).toHaveLength(2)
  expect(gateway.usage[1]).toMatchObject({ ...paid, inputTokens: 12, outputTokens: 3 })
})

test('a server that knows no stream_options is asked again without, and from then on', async () => {
  await using provider = await startTestProvider(
    withModel((response, { body }) => {
      if (body.includes('stream_options'))
        return answerJson(response, { detail: 'Extra inputs are not permitted: stream_options' }, 422)
      beginEvents(response)
      response.end(chatChunk('x'.repeat(40)))
    }),
  )
  await using gateway = await startTestGateway(openAi(provider.url))
  for (let i = 0; i < 2; i++) {
    const response = await gateway.post(chat, { ...hello, stream: true })
    expect(await response.text()).toBe(chatChunk('x'.repeat(40)))
  }
  expect(provider.calls()).toHaveLength(3)
  expect(gateway.usage).toMatchObject([
    { estimated: true, outputTokens: 10 },
    { estimated: true, outputTokens: 10 },
  ])
})

test('Responses pass, streamed and whole', async () => {
  const usage = { input_tokens: 12, output_tokens: 3, input_tokens_details: { cached_tokens: 5 } }
  const stream =
    event({ type: 'response.output_text.delta', delta: 'hi' }) +
    event({ type: 'response.completed', response: { usage } })
  await using provider = await startTestProvider(
    withModel((response, { body }) => {
      if (!JSON.parse(body).stream) return answerJson(response, { output: [], usage })
      beginEvents(response)
      response.end(stream)
    }),
  )
  await using gateway = await startTestGateway(openAi(provider.url))
  const request = { model: 'm', input: 'hello' }
  expect(await (await gateway.post('/openai/v1/responses', { ...request, stream: true })).text()).toBe(stream)
  expect(await (await gateway.post('/openai/v1/responses', request)).json()).toEqual({ output: [], usage })
  expect(provider.calls().map(({ path, body }) => [path, JSON.parse(body)])).toEqual([
    ['/v1/responses', { ...request, stream: true }],
    ['/v1/responses', request],
  ])
  const record = { ...paid, provider: 'openai', inputTokens: 7, outputTokens: 3, cacheReadTokens: 5 }
  expect(gateway.usage).toEqual([record, record])
})

test('Messages pass, streamed and whole, with the token as x-api-key', async () => {
  const usage = { input_tokens: 12, cache_read_input_tokens: 5, output_tokens: 3 }
  const stream =
    event({ type: 'message_start', message: { usage: { ...usage, output_tokens: 1 } } }) +
    event({ type: 'message_delta', delta: {}, usage: { output_tokens: 3 } })
  await using provider = await startTestProvider(
    withModel((response, { body }) => {
      if (!JSON.parse(body).stream) return answerJson(response, { type: 'message', usage })
      beginEvents(response)
      response.end(stream)
    }),
  )
  await using gateway = await startTestGateway(anthropic(provider.url))
  const headers = {
    authorization: '',
    'x-api-key': testToken,
    'anthropic-beta': 'b',
    'anthropic-version': '2099-01-01',
  }
  const request = { model: 'anthropic/m', max_tokens: 9, messages: [] }
  const messages = '/anthropic/v1/messages'
  expect(await (await gateway.post(messages, { ...request, stream: true }, { headers })).text()).toBe(stream)
  expect(await (await gateway.post(messages, request)).json()).toEqual({ type: 'message', usage })

  const [asked, unversioned] = provider.calls()
  expect(asked?.path).toBe('/v1/messages')
  expect(asked?.headers).toMatchObject({
    'x-api-key': providerKey,
    'anthropic-beta': 'b',
    'anthropic-version': '2099-01-01',
  })
  expect(asked?.headers.authorization).toBeUndefined()
  expect(unversioned?.headers['anthropic-version']).toBe('2023-06-01')
  const record = { ...paid, provider: 'anthropic', inputTokens: 12, outputTokens: 3, cacheReadTokens: 5 }
  expect(gateway.usage).toEqual([record, record])
})

test('counting tokens passes and costs nothing', async () => {
  await using provider = await startTestProvider(withModel((response) => answerJson(response, { input_tokens: 12 })))
  await using gateway = await startTestGateway(anthropic(provider.url))
  const response = await gateway.post('/anthropic/v1/messages/count_tokens?beta=true', { model: 'm', messages: [] })
  expect(await response.json()).toEqual({ input_tokens: 12 })
  expect(provider.calls()[0]?.path).toBe('/v1/messages/count_tokens?beta=true')
  expect(gateway.usage).toEqual([])
})

test('the models are listed in both shapes, under the names that the gateway takes', async () => {
  await using provider = await startTestProvider(withModel(() => {}))
  await using gateway = await startTestGateway(openAi(provider.url))
  const response = await fetch(`${gateway.url}/openai/v1/models`, { headers: { authorization: `Bearer ${testToken}` } })
  expect(await response.json()).toMatchObject({
    object: 'list',
    data: [{ id: 'openai/m', object: 'model', owned_by: 'openai', display_name: 'm' }],
  })
  expect((await fetch(`${gateway.url}/anthropic/v1/models`)).status).toBe(401)
})

test.each([
  ['no token', { authorization: '' }, 401, 'api_key_missing'],
  ['another token', { authorization: 'Bearer nope' }, 401, 'api_key_unknown'],
])('a call with %s is refused before anything else', async (_, headers, status, code) => {
  await using provider = await startTestProvider(withModel(() => {}))
  await using gateway = await startTestGateway(openAi(provider.url))
  const response = await gateway.post(chat, 'not even json', { headers })
  expect(response.status).toBe(status)
  expect(response.headers.get('x-oz-error-code')).toBe(code)
  expect(response.headers.get('x-should-retry')).toBe('false')
  expect(await response.json()).toEqual({
    error: { message: expect.any(String), type: 'invalid_request_error', param: null, code },
  })
  expect(provider.requests).toHaveLength(0)
})

test.each([
  ['malformed JSON', '{"model": ', 400, 'json_malformed'],
  ['no model', '{"messages":[]}', 400, 'invalid_request'],
  ['a model that is no text', '{"model":7}', 400, 'invalid_request'],
  ['an unknown model', '{"model":"openai/other"}', 404, 'model_unknown'],
])('a body with %s is refused', async (_, body, status, code) => {
  await using provider = await startTestProvider(withModel(() => {}))
  await using gateway = await startTestGateway(openAi(provider.url))
  const response = await gateway.post(chat, body)
  expect(response.status).toBe(status)
  expect(response.headers.get('x-should-retry')).toBe('false')
  expect((await errorOf(response)).code).toBe(code)
  expect(provider.calls()).toHaveLength(0)
})

test('the wrong path for a model names the right one', async () => {
  await using provider = await startTestProvider(withModel(() => {}))
  await using gateway = await startTestGateway({ ...anthropic(provider.url), OLLAMA_HOST: provider.url })
  const asked = await errorOf(await gateway.post(chat, { model: 'anthropic/m' }))
  expect(asked).toMatchObject({
    code: 'model_path_wrong',
    message: expect.stringContaining('/llm/anthropic/v1/messages'),
  })
  const other = await gateway.post('/anthropic/v1/messages', { model: 'ollama/m' })
  expect(await other.text()).toContain('/llm/openai/v1/chat/completions')
})

test('without a provider the answer names the variables', async () => {
  await using gateway = await startTestGateway({})
  const response = await gateway.post(chat, hello)
  expect(response.status).toBe(400)
  expect(await errorOf(response)).toMatchObject({
    code: 'model_provider_missing',
    message: expect.stringContaining('OPENAI_API_KEY'),
  })
})

test.each(['declared', 'streamed'])('a body above the limit is refused, its length %s', async (how) => {
  await using provider = await startTestProvider(withModel(() => {}))
  await using gateway = await startTestGateway(openAi(provider.url), { maxBodyBytes: 1000 })
  const body = JSON.stringify({ ...hello, padding: 'x'.repeat(2000) })
  const init = how === 'declared' ? {} : { body: new Blob([body]).stream(), duplex: 'half' }
  const response = await gateway.post(chat, body, init as RequestInit)
  expect(response.status).toBe(413)
  expect((await errorOf(response)).code).toBe('body_too_large')
  const fitting = how === 'declared' ? {} : { body: new Blob(['{"model":"x"}']).stream(), duplex: 'half' }
  expect((await gateway.post(chat, '{"model":"x"}', fitting as RequestInit)).status).toBe(404)
})

test('no log line holds a key, a prompt or an answer', async () => {
  const secret = 'the-launch-code'
  const answers: Answer[] = [
    (response) => answerJson(response, { choices: [{ message: { content: secret } }] }),
    (response) => answerJson(response, { error: { message: `no: ${secret} ${providerKey}` } }, 400),
    (response) => answerJson(response, { error: { message: secret } }, 500),
    (response) => answerJson(response, { error: { message: secret } }, 401),
    (response) => {
      beginEvents(response)
      response.write(chatChunk(secret))
      setImmediate(() => response.destroy())
    },
  ]
  await using provider = await startTestProvider(withModel((...call) => answers.shift()?.(...call)))
  await using gateway = await startTestGateway(openAi(provider.url))
  const body = { model: 'm', stream: true, messages: [{ role: 'user', content: secret }] }
  while (answers.length > 0)
    await gateway
      .post(chat, body)
      .then((response) => response.text())
      .catch(() => {})
  await gateway.post(chat, `{"model": "m", ${secret}`)
  await fetch(`${gateway.url}/google/v1beta/models/m:generateContent?key=${testToken}`, {
    method: 'POST',
    body: secret,
  })
  expect(gateway.logged()).toContain('"model":"m"')
  for (const hidden of [secret, providerKey, testToken]) expect(gateway.logged()).not.toContain(hidden)
})
