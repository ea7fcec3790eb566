import { pino } from 'pino'
import { expect, test } from 'vitest'
import { createModelCatalog, type ModelCatalogOptions } from './catalog.ts'
import { createProviderConnections } from './connections.ts'
import { findProviders } from './providers.ts'
import { type Answer, answerJson, answerModels, startTestProvider, until } from './test-provider.ts'

function openCatalog(env: Record<string, string>, options: Partial<ModelCatalogOptions> = {}) {
  const connections = createProviderConnections({})
  const clock = { ms: 0, now: () => clock.ms }
  const log = pino({ level: 'silent' })
  const catalog = createModelCatalog(findProviders(env), { connections, log, clock, ...options })
  return {
    ...catalog,
    /** Milliseconds. */
    advance(ms: number) {
      clock.ms += ms
    },
    [Symbol.dispose]: () => connections.close(),
  }
}

const listing =
  (...ids: string[]): Answer =>
  (response) =>
    answerModels(response, ...ids)
const nowhere = 'http://127.0.0.1:1'

test('the models of all providers are listed, and one that fails hides no other', async () => {
  await using anthropic = await startTestProvider((response) =>
    answerJson(response, {
      data: [{ type: 'model', id: 'claude-x', display_name: 'Claude X', created_at: '2026-01-01T00:00:00Z' }],
    }),
  )
  await using ollama = await startTestProvider(listing('qwen3:8b', 'hf.co/a/b:Q4'))
  using catalog = openCatalog({
    ANTHROPIC_API_KEY: 'sk-1',
    ANTHROPIC_BASE_URL: anthropic.url,
    OPENAI_BASE_URL: `${nowhere}/v1`,
    OLLAMA_HOST: ollama.url,
  })
  expect(await catalog.list()).toEqual({
    default_model_id: 'anthropic/claude-x',
    models: [
      {
        id: 'anthropic/claude-x',
        display_name: 'Claude X',
        provider: 'ANTHROPIC',
        vision_supported: true,
        context_window: 200_000,
      },
      { id: 'ollama/qwen3:8b', display_name: 'qwen3:8b', provider: 'UNKNOWN', vision_supported: false },
      { id: 'ollama/hf.co/a/b:Q4', display_name: 'hf.co/a/b:Q4', provider: 'UNKNOWN', vision_supported: false },
    ],
    problems: [{ provider: 'openai', problem: 'it cannot be reached: nothing listens at 127.0.0.1:1' }],
    providers: [
      { name: 'anthropic', usable: true, models: 1 },
      {
        name: 'openai',
        usable: false,
        models: 0,
        reason: 'it cannot be reached: nothing listens at 127.0.0.1:1',
      },
      { name: 'ollama', usable: true, models: 2 },
      { name: 'google', usable: false, models: 0, reason: 'GEMINI_API_KEY is not set' },
      { name: 'bedrock', usable: false, models: 0, reason: 'AWS_BEARER_TOKEN_BEDROCK is not set' },
      {
        name: 'azure',
        usable: false,
        models: 0,
        reason: 'AZURE_OPENAI_API_KEY and AZURE_OPENAI_ENDPOINT are not set',
      },
    ],
  })
  expect(anthropic.requests[0]).toMatchObject({
    path: '/v1/models?limit=1000',
    headers: { 'x-api-key': 'sk-1', 'anthropic-version': '2023-06-01' },
  })
})

test('without a provider the list is empty and every model is refused with the variables to set', async () => {
  using catalog = openCatalog({})
  expect(await catalog.list()).toMatchObject({ default_model_id: '', models: [], problems: [] })
  await expect(catalog.resolve('openai/x')).rejects.toMatchObject({
    code: 'model_provider_missing',
    message: expect.stringMatching(/for the model openai\/x.*OPENAI_API_KEY/),
  })
  await expect(catalog.resolve(undefined)).rejects.toMatchObject({ code: 'model_provider_missing' })
})

test('only a first segment that names a configured provider is taken for one', async () => {
  await using provider = await startTestProvider(listing('meta/llama:70b', 'gpt-oss', 'openai/gpt-oss-2'))
  using catalog = openCatalog({ OPENAI_BASE_URL: `${provider.url}/v1` })
  const access = { wire: 'openai-chat', base_path: '/llm/openai/v1' }
  for (const [asked, upstreamModel] of [
    ['openai/meta/llama:70b', 'meta/llama:70b'],
    ['meta/llama:70b', 'meta/llama:70b'],
    ['openai/gpt-oss', 'gpt-oss'],
    ['gpt-oss', 'gpt-oss'],
    ['openai/gpt-oss-2', 'openai/gpt-oss-2'],
  ])
    expect(await catalog.resolve(asked)).toMatchObject({
      upstreamModel,
      access: { ...access, id: `openai/${upstreamModel}` },
      provider: { name: 'openai' },
    })
})

test('a bare model that two providers have must be named in full', async () => {
  await using first = await startTestProvider(listing('qwen3'))
  await using second = await startTestProvider(listing('qwen3:latest', 'other'))
  using catalog = openCatalog({ OPENAI_BASE_URL: `${first.url}/v1`, OLLAMA_HOST: second.url })
  await expect(catalog.resolve('qwen3')).rejects.toMatchObject({
    code: 'model_ambiguous',
    message: expect.stringContaining('openai/qwen3, ollama/qwen3'),
  })
  expect((await catalog.resolve('ollama/qwen3')).upstreamModel).toBe('qwen3')
  expect((await catalog.resolve('other')).access.id).toBe('ollama/other')
})

test('an unknown model is refused with ten of the usable ones', async () => {
  await using provider = await startTestProvider(listing(...Array.from({ length: 12 }, (_, i) => `m${i}`)))
  using catalog = openCatalog({ OPENAI_BASE_URL: `${provider.url}/v1` })
  for (const modelId of ['nope', 'openai/nope', 'anthropic/m1'])
    await expect(catalog.resolve(modelId)).rejects.toMatchObject({
      code: 'model_unknown',
      message: expect.stringMatching(/openai\/m0, .*openai\/m9, and 2 more/),
    })
})

test('dated and tagged models answer to their short names', async () => {
  await using provider = await startTestProvider(listing('claude-sonnet-4-5-20250929', 'claude-3-7-sonnet-20250219'))
  using catalog = openCatalog({ ANTHROPIC_BASE_URL: provider.url })
  for (const name of [
    'claude-sonnet-4-5',
    'claude-sonnet-4-5-20250929',
    'claude-3-7-sonnet-latest',
    'claude-sonnet-4-5-0',
  ])
    expect((await catalog.resolve(`anthropic/${name}`)).access).toEqual({
      id: `anthropic/${name}`,
      wire: 'anthropic-messages',
      base_path: '/llm/anthropic/v1',
      context_window: 200_000,
      vision: true,
    })
  await expect(catalog.resolve('anthropic/claude-sonnet-4')).rejects.toMatchObject({ code: 'model_unknown' })
})

test.each<[string, Answer]>([
  ['has no list', (response) => answerJson(response, {}, 404)],
  ['lists nothing', listing()],
  ['fails', (response) => answerJson(response, {}, 500)],
  ['answers a web page', (response) => void response.end('<html>')],
  ['does not answer', () => {}],
])('a provider that %s is believed to have what is asked of it', async (_, answer) => {
  await using provider = await startTestProvider(answer)
  using catalog = openCatalog({ OPENAI_BASE_URL: `${provider.url}/v1` }, { listTimeoutMs: 100 })
  expect((await catalog.resolve('openai/a/b')).upstreamModel).toBe('a/b')
  expect((await catalog.resolve('c')).access.id).toBe('openai/c')
  const { models, problems } = await catalog.list()
  expect(models).toEqual([])
  expect(problems).toEqual([{ provider: 'openai', problem: expect.stringMatching(/^its? /) }])
  await expect(catalog.resolve(undefined)).rejects.toMatchObject({ code: 'model_default_missing' })
})

test('with two providers a bare model is not guessed from a missing list', async () => {
  await using ollama = await startTestProvider(listing('a'))
  using catalog = openCatalog({ OPENAI_BASE_URL: `${nowhere}/v1`, OLLAMA_HOST: ollama.url })
  expect((await catalog.resolve('a')).access.id).toBe('ollama/a')
  await expect(catalog.resolve('b')).rejects.toMatchObject({
    code: 'model_unknown',
    message: expect.stringContaining('ollama/a, openai/…'),
  })
})

test('many who ask at once cause one question, and it is good for a minute', async () => {
  await using provider = await startTestProvider(listing('a'))
  using catalog = openCatalog({ OPENAI_BASE_URL: `${provider.url}/v1` })
  await Promise.all(Array.from({ length: 20 }, (_, i) => (i % 2 ? catalog.list() : catalog.resolve('a'))))
  catalog.advance(59_000)
  await catalog.list()
  expect(provider.requests).toHaveLength(1)
})

test('an old list is answered at once while a new one is fetched', async () => {
  let models = ['a']
  let held: (() => void) | undefined
  await using provider = await startTestProvider(async (response) => {
    if (models.length > 1)
      await new Promise<void>((resolve) => {
        held = resolve
      })
    answerModels(response, ...models)
  })
  using catalog = openCatalog({ OPENAI_BASE_URL: `${provider.url}/v1` })
  await catalog.list()
  models = ['a', 'b']
  catalog.advance(61_000)
  expect((await catalog.list()).models).toHaveLength(1)
  await until(() => held !== undefined, 'the second question')
  held?.()
  expect((await catalog.resolve('openai/b')).upstreamModel).toBe('b')
  expect(provider.requests).toHaveLength(2)
})

test('a model that was installed a moment ago is found by a second look', async () => {
  const models = ['a']
  await using provider = await startTestProvider((response) => answerModels(response, ...models))
  using catalog = openCatalog({ OLLAMA_HOST: provider.url })
  await catalog.list()
  models.push('b')
  catalog.advance(3_000)
  expect((await catalog.resolve('ollama/b')).upstreamModel).toBe('b')
})

test('a provider that has come up is seen after five seconds', async () => {
  let status = 500
  await using provider = await startTestProvider((response) => answerJson(response, { data: [{ id: 'a' }] }, status))
  using catalog = openCatalog({ OPENAI_BASE_URL: `${provider.url}/v1` })
  expect((await catalog.list()).problems).toHaveLength(1)
  status = 200
  expect((await catalog.list()).problems).toHaveLength(1)
  catalog.advance(5_001)
  expect((await catalog.list()).problems).toEqual([])
})

test('a refused key is one of the problems, without the key', async () => {
  await using provider = await startTestProvider((response) =>
    answerJson(response, { error: 'bad key sk-secret' }, 401),
  )
  using catalog = openCatalog({ OPENAI_API_KEY: 'sk-secret', OPENAI_BASE_URL: `${provider.url}/v1` })
  expect((await catalog.list()).problems).toEqual([{ provider: 'openai', problem: 'it refuses the key (401)' }])
})

test('the configured default model counts', async () => {
  await using provider = await startTestProvider(listing('a', 'b'))
  const env = { OPENAI_BASE_URL: `${provider.url}/v1` }
  using catalog = openCatalog(env, { defaultModel: 'b' })
  expect((await catalog.resolve(undefined)).access.id).toBe('openai/b')
  expect((await catalog.list()).default_model_id).toBe('openai/b')
  using wrong = openCatalog(env, { defaultModel: 'openai/c' })
  expect((await wrong.list()).default_model_id).toBe('openai/c')
  await expect(wrong.resolve(undefined)).rejects.toMatchObject({ code: 'model_unknown' })
})

test('what a list says about windows and images is passed on', async () => {
  await using provider = await startTestProvider((response) =>
    answerJson(response, {
      data: [
        { id: 'a', max_model_len: 32_768 },
        { id: 'b', context_length: 8192, architecture: { input_modalities: ['text', 'image'] } },
      ],
    }),
  )
  using catalog = openCatalog({ OPENAI_BASE_URL: `${provider.url}/v1` })
  expect((await catalog.resolve('a')).access.context_window).toBe(32_768)
  expect((await catalog.resolve('b')).access).toMatchObject({ context_window: 8192, vision: true })
  expect((await catalog.list()).models.map((model) => model.vision_supported)).toEqual([false, true])
})

test('Google’s list is read in its own shape, without what does not answer prompts', async () => {
  await using provider = await startTestProvider((response) =>
    answerJson(response, {
      models: [
        {
          name: 'models/gemini-2.5-pro',
          displayName: 'Gemini 2.5 Pro',
          inputTokenLimit: 1_048_576,
          supportedGenerationMethods: ['generateContent', 'countTokens'],
        },
        { name: 'models/text-embedding-004', supportedGenerationMethods: ['embedContent'] },
        { name: 'models/gemini-2.5-flash-image', supportedGenerationMethods: ['generateContent'] },
      ],
    }),
  )
  using catalog = openCatalog({ GEMINI_API_KEY: 'g', GOOGLE_GEMINI_BASE_URL: provider.url })
  expect((await catalog.list()).models).toEqual([
    {
      id: 'google/gemini-2.5-pro',
      display_name: 'Gemini 2.5 Pro',
      provider: 'GOOGLE',
      vision_supported: true,
      context_window: 1_048_576,
    },
  ])
  expect((await catalog.resolve('gemini-2.5-pro')).access).toEqual({
    id: 'google/gemini-2.5-pro',
    wire: 'google-generate-content',
    base_path: '/llm/google/v1beta',
    context_window: 1_048_576,
    vision: true,
  })
  expect(provider.requests[0]).toMatchObject({
    path: '/v1beta/models?pageSize=1000',
    headers: { 'x-goog-api-key': 'g' },
  })
})

test('Bedrock behind an address of one’s own is not asked for a list, and has what is asked of it', async () => {
  await using provider = await startTestProvider(listing())
  using catalog = openCatalog({ AWS_BEARER_TOKEN_BEDROCK: 'b', AWS_ENDPOINT_URL_BEDROCK_RUNTIME: provider.url })
  const { access, upstreamModel } = await catalog.resolve('bedrock/us.anthropic.claude-sonnet-4-20250514-v1:0')
  expect(upstreamModel).toBe('us.anthropic.claude-sonnet-4-20250514-v1:0')
  expect(access).toMatchObject({ wire: 'bedrock-converse', base_path: '/llm/bedrock', context_window: 200_000 })
  expect((await catalog.list()).providers[0]).toMatchObject({ name: 'bedrock', usable: true, models: 0 })
  expect(provider.requests).toEqual([])
})

test('Azure’s list tells whether the key is good, and nothing about deployments', async () => {
  let status = 200
  await using provider = await startTestProvider((response) =>
    answerJson(response, { data: [{ id: 'gpt-4.1' }] }, status),
  )
  const env = { AZURE_OPENAI_API_KEY: 'a', AZURE_OPENAI_ENDPOINT: provider.url }
  using catalog = openCatalog(env)
  expect((await catalog.resolve('azure/my-deployment')).access).toMatchObject({
    id: 'azure/my-deployment',
    wire: 'openai-chat',
    base_path: '/llm/openai/v1',
  })
  expect((await catalog.list()).providers[0]).toMatchObject({
    usable: true,
    models: 0,
    reason: expect.stringContaining('azure/DEPLOYMENT'),
  })
  status = 401
  using refused = openCatalog(env)
  expect((await refused.list()).providers[0]).toMatchObject({ usable: false, reason: 'it refuses the key (401)' })
})

test('agents are told where the gateway is, when it is a process of its own', async () => {
  await using provider = await startTestProvider(listing('a'))
  using catalog = openCatalog({ OPENAI_BASE_URL: provider.url }, { gatewayUrl: 'https://models.example.com' })
  expect((await catalog.resolve('a')).access.base_url).toBe('https://models.example.com')
})
