import { expect, test } from 'vitest'
import { type ScriptedStep, startScriptedModel } from '../../../../test/support/scripted-model.ts'
import { startTestGateway, testToken, until } from './test-provider.ts'

const key = 'provider-key-123'
const step: ScriptedStep = {
  text: ['he', 'llo'],
  reasoning: 'hm',
  toolCalls: [{ id: 'c1', name: 'look', arguments: { at: 'it' } }],
  usage: { input: 100, output: 20, cached: 40, reasoning: 5 },
}

interface WireCase {
  name: string
  env(url: string): Record<string, string>
  path(model: string): string
  body: object
  /** The same question without the model's path or name changed. */
  upstreamPath: string
  usage: object
}

const wires: WireCase[] = [
  {
    name: 'Google, streamed',
    env: (url) => ({ GEMINI_API_KEY: key, GOOGLE_GEMINI_BASE_URL: url }),
    path: (model) => `/google/v1beta/models/${model}:streamGenerateContent?alt=sse`,
    body: { contents: [{ role: 'user', parts: [{ text: 'hi' }] }] },
    upstreamPath: '/v1beta/models/gem-x:streamGenerateContent',
    usage: { inputTokens: 60, cacheReadTokens: 40, cacheWriteTokens: 0, outputTokens: 20, reasoningTokens: 5 },
  },
  {
    name: 'Google, whole',
    env: (url) => ({ GEMINI_API_KEY: key, GOOGLE_GEMINI_BASE_URL: url }),
    path: (model) => `/google/v1beta/models/${model}:generateContent`,
    body: { contents: [] },
    upstreamPath: '/v1beta/models/gem-x:generateContent',
    usage: { inputTokens: 60, cacheReadTokens: 40, cacheWriteTokens: 0, outputTokens: 20, reasoningTokens: 5 },
  },
  {
    name: 'Bedrock, streamed',
    env: (url) => ({ AWS_BEARER_TOKEN_BEDROCK: key, AWS_ENDPOINT_URL_BEDROCK_RUNTIME: url }),
    path: (model) => `/bedrock/model/${model}/converse-stream`,
    body: { messages: [] },
    upstreamPath: '/model/gem-x/converse-stream',
    usage: { inputTokens: 60, cacheReadTokens: 40, cacheWriteTokens: 0, outputTokens: 20, reasoningTokens: 0 },
  },
  {
    name: 'Bedrock, whole',
    env: (url) => ({ AWS_BEARER_TOKEN_BEDROCK: key, AWS_ENDPOINT_URL_BEDROCK_RUNTIME: url }),
    path: (model) => `/bedrock/model/${model}/converse`,
    body: { messages: [] },
    upstreamPath: '/model/gem-x/converse',
    usage: { inputTokens: 60, cacheReadTokens: 40, cacheWriteTokens: 0, outputTokens: 20, reasoningTokens: 0 },
  },
]

const providerOf = ({ name }: WireCase) => (name.startsWith('Google') ? 'google' : 'bedrock')

test.each(wires)('$name: bytes pass unchanged, under every way to name the model', async (wire) => {
  await using model = await startScriptedModel({ handler: () => step, models: ['gem-x'], apiKey: key })
  await using gateway = await startTestGateway(wire.env(model.url))
  const direct = await fetch(`${model.url}${wire.upstreamPath}${wire.path('').includes('?') ? '?alt=sse' : ''}`, {
    method: 'POST',
    headers: { 'x-api-key': key },
    body: JSON.stringify(wire.body),
  })
  const expected = Buffer.from(await direct.arrayBuffer())
  for (const name of [`${providerOf(wire)}%2Fgem-x`, 'gem-x', `${providerOf(wire)}/gem-x`]) {
    const response = await gateway.post(wire.path(name), wire.body)
    expect(response.status).toBe(200)
    expect(response.headers.get('content-type')).toBe(direct.headers.get('content-type'))
    expect(Buffer.from(await response.arrayBuffer())).toEqual(expected)
  }
  expect(model.requests.map(({ path }) => path)).toEqual(Array(4).fill(wire.upstreamPath))
  expect(model.requests.map(({ body }) => body)).toEqual(Array(4).fill(wire.body))
  expect(gateway.usage).toMatchObject(
    Array(3).fill({ ...wire.usage, provider: providerOf(wire), model: 'gem-x', estimated: false }),
  )
  expect(JSON.stringify(model.requests[1]?.headers)).not.toContain(testToken)
})

test.each(wires.filter(({ name }) => name.endsWith('streamed')))('$name: a cut at any piece is a cut', async (wire) => {
  let afterPieces = 0
  await using model = await startScriptedModel({
    handler: () => ({ ...step, cut: { afterPieces } }),
    models: ['gem-x'],
  })
  await using gateway = await startTestGateway(wire.env(model.url))
  for (; afterPieces < 4; afterPieces++) {
    const response = await gateway.post(wire.path('gem-x'), wire.body)
    await expect(response.arrayBuffer()).rejects.toThrow()
    await until(() => gateway.usage.length === afterPieces + 1, 'the record')
  }
  expect(gateway.usage.every(({ estimated }) => estimated)).toBe(true)
})

test.each(wires.filter(({ name }) => name.endsWith('streamed')))(
  '$name: a client that leaves ends the provider’s request',
  async (wire) => {
    await using model = await startScriptedModel({
      handler: () => ({ ...step, hangAfterPieces: 2 }),
      models: ['gem-x'],
    })
    await using gateway = await startTestGateway(wire.env(model.url))
    const leaving = new AbortController()
    const response = await gateway.post(wire.path('gem-x'), wire.body, { signal: leaving.signal })
    await response.body?.getReader().read()
    leaving.abort()
    await until(() => model.requests[0]?.wasAborted === true, 'the end of the provider’s request')
    await until(() => gateway.usage.length === 1, 'the record')
  },
)

test('tokens are counted without cost on Google’s path too', async () => {
  await using model = await startScriptedModel({ models: ['gem-x'] })
  await using gateway = await startTestGateway({ GEMINI_API_KEY: key, GOOGLE_GEMINI_BASE_URL: model.url })
  const response = await gateway.post('/google/v1beta/models/gem-x:countTokens', {})
  // The scripted provider has no such route, and says so: it was asked.
  expect(response.status).toBe(404)
  expect(await response.text()).toContain('/v1beta/models/gem-x:countTokens')
  expect(gateway.usage).toEqual([])
})

test.each([
  ['x-goog-api-key', { 'x-goog-api-key': testToken }, ''],
  ['x-api-key', { 'x-api-key': testToken }, ''],
  ['?key=', {}, `?key=${testToken}`],
])('the token is taken as %s', async (_, headers, query) => {
  await using model = await startScriptedModel({ handler: () => step, models: ['gem-x'] })
  await using gateway = await startTestGateway({ GEMINI_API_KEY: key, GOOGLE_GEMINI_BASE_URL: model.url })
  const path = `/google/v1beta/models/gem-x:generateContent${query}`
  const response = await gateway.post(path, {}, { headers: { authorization: '', ...headers } })
  expect(response.status).toBe(200)
  expect(model.requests[0]?.headers['x-goog-api-key']).toBe(key)
  expect(gateway.logged()).not.toContain(testToken)
})

test('each family lists the models that its path takes', async () => {
  await using model = await startScriptedModel({ models: ['gem-x'] })
  await using gateway = await startTestGateway({
    GOOGLE_GEMINI_BASE_URL: model.url,
    ANTHROPIC_BASE_URL: model.url,
    OLLAMA_HOST: model.url,
  })
  const list = async (path: string) =>
    (await fetch(gateway.url + path, { headers: { authorization: `Bearer ${testToken}` } })).json()
  expect(await list('/google/v1beta/models')).toEqual({
    models: [
      {
        name: 'models/google/gem-x',
        displayName: 'gem-x',
        inputTokenLimit: 1_048_576,
        supportedGenerationMethods: ['generateContent', 'countTokens'],
      },
    ],
  })
  expect(await list('/anthropic/v1/models')).toMatchObject({ data: [{ id: 'anthropic/gem-x' }] })
  expect(await list('/openai/v1/models')).toMatchObject({ data: [{ id: 'ollama/gem-x' }] })
  expect(await list('/bedrock/foundation-models')).toEqual({ modelSummaries: [] })
})

test('Azure is called by its deployment, with its own header', async () => {
  await using model = await startScriptedModel({ handler: () => step, models: [] })
  const env = { AZURE_OPENAI_API_KEY: key, AZURE_OPENAI_ENDPOINT: model.url }
  const body = { model: 'azure/my-gpt', messages: [], stream: true }
  await using gateway = await startTestGateway(env)
  expect((await gateway.post('/openai/v1/chat/completions', body)).status).toBe(200)
  await using classic = await startTestGateway({ ...env, OPENAI_API_VERSION: '2024-10-21' })
  expect((await classic.post('/openai/v1/chat/completions', body)).status).toBe(200)
  expect(model.requests.map(({ path, headers }) => [path, headers['api-key'], headers.authorization])).toEqual([
    ['/openai/v1/chat/completions', key, undefined],
    ['/openai/deployments/my-gpt/chat/completions', key, undefined],
  ])
})

test('what a call costs is recorded with it', async () => {
  await using model = await startScriptedModel({ handler: () => step, models: ['claude-sonnet-4-5', 'unheard-of'] })
  await using gateway = await startTestGateway({ ANTHROPIC_BASE_URL: model.url, OLLAMA_HOST: model.url })
  for (const name of ['claude-sonnet-4-5', 'unheard-of'])
    await (await gateway.post('/anthropic/v1/messages', { model: `anthropic/${name}`, stream: true })).text()
  await (await gateway.post('/openai/v1/chat/completions', { model: 'ollama/unheard-of', stream: true })).text()
  // 60 × 3 $ + 40 × 0.30 $ + 20 × 15 $, per million.
  expect(gateway.usage.map(({ costUsd }) => costUsd)).toEqual([0.000492, undefined, 0])
})

test('a bare model that several providers have means the one whose wire is spoken', async () => {
  await using model = await startScriptedModel({ handler: () => step, models: ['m'] })
  await using gateway = await startTestGateway({
    GOOGLE_GEMINI_BASE_URL: model.url,
    ANTHROPIC_BASE_URL: model.url,
    OPENAI_BASE_URL: `${model.url}/v1`,
    AWS_ENDPOINT_URL_BEDROCK_RUNTIME: model.url,
  })
  const statuses = [
    await gateway.post('/google/v1beta/models/m:generateContent', {}),
    await gateway.post('/anthropic/v1/messages', { model: 'm', stream: true }),
    await gateway.post('/bedrock/model/us.some.profile/converse', {}),
  ].map(({ status }) => status)
  expect(statuses).toEqual([200, 200, 200])
  expect(model.requests.map(({ wire }) => wire)).toEqual([
    'google-generate-content',
    'anthropic-messages',
    'bedrock-converse',
  ])
})
