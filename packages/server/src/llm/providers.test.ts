import { inspect } from 'node:util'
import { expect, test } from 'vitest'
import { findProviders } from './providers.ts'

const only = (env: Record<string, string>) => {
  const [provider] = findProviders(env).providers
  if (!provider) throw new Error('no provider')
  return provider
}

test('an environment without any of the variables has no provider', () => {
  expect(findProviders({ OPENAI_API_KEY: ' ', OLLAMA_HOST: '' }).providers).toEqual([])
})

test('keys alone mean the vendors, each on its newest wire', () => {
  const [anthropic, openai] = findProviders({ ANTHROPIC_API_KEY: 'sk-ant-1', OPENAI_API_KEY: 'sk-2\n' }).providers
  expect(anthropic?.url('/messages', 'm').href).toBe('https://api.anthropic.com/v1/messages')
  expect(anthropic?.credentials()).toEqual({ 'x-api-key': 'sk-ant-1', 'anthropic-version': '2023-06-01' })
  expect(anthropic).toMatchObject({ wire: 'anthropic-messages', vendor: 'ANTHROPIC', isVendor: true })
  expect(openai?.url('/responses', 'm').href).toBe('https://api.openai.com/v1/responses')
  expect(openai?.credentials()).toEqual({ authorization: 'Bearer sk-2' })
  expect(openai).toMatchObject({ wire: 'openai-responses', vendor: 'OPENAI', isVendor: true })
})

test('a base address needs no key and makes it a compatible server', () => {
  const openai = only({ OPENAI_BASE_URL: 'http://127.0.0.1:9/v1/' })
  expect(openai.url('/chat/completions', 'm').href).toBe('http://127.0.0.1:9/v1/chat/completions')
  expect(openai.credentials()).toEqual({})
  expect(openai).toMatchObject({ wire: 'openai-chat', vendor: 'UNKNOWN', isVendor: false })
  expect(only({ OPENAI_BASE_URL: 'https://eu.api.openai.com/v1' }).wire).toBe('openai-responses')
})

test.each(['http://127.0.0.1:9', 'http://127.0.0.1:9/', 'http://127.0.0.1:9/v1', 'http://127.0.0.1:9/v1/'])(
  'ANTHROPIC_BASE_URL %s leads to /v1/messages',
  (base) => {
    expect(only({ ANTHROPIC_BASE_URL: base }).url('/messages', 'm').href).toBe('http://127.0.0.1:9/v1/messages')
  },
)

test.each([
  ['gpu', 'http://gpu:11434/v1'],
  ['gpu:9', 'http://gpu:9/v1'],
  ['gpu:80', 'http://gpu/v1'],
  [':9', 'http://127.0.0.1:9/v1'],
  ['0.0.0.0', 'http://127.0.0.1:11434/v1'],
  ['0.0.0.0:9', 'http://127.0.0.1:9/v1'],
  ['[::]:9', 'http://[::1]:9/v1'],
  ['[::1]', 'http://[::1]:11434/v1'],
  ['http://gpu:9', 'http://gpu:9/v1'],
  ['http://0.0.0.0:9/', 'http://127.0.0.1:9/v1'],
  ['https://gpu.example', 'https://gpu.example/v1'],
  ['gpu:9/ollama', 'http://gpu:9/ollama/v1'],
])('OLLAMA_HOST %s is %s', (host, address) => {
  expect(only({ OLLAMA_HOST: host }).address).toBe(address)
})

test.each(['localhost:9', 'ftp://x', 'http://', 'sk-secret'])(
  'the base address %s is refused without repeating it',
  (base) => {
    expect(() => findProviders({ OPENAI_BASE_URL: base })).toThrow(
      expect.objectContaining({ code: 'option_invalid', message: expect.not.stringContaining('secret') }),
    )
  },
)

test('no way of printing a provider shows its key', () => {
  const provider = only({ OPENAI_API_KEY: 'sk-top-secret', OPENAI_BASE_URL: 'https://me:pass-word@models.example/v1' })
  const printed = [
    JSON.stringify(provider),
    inspect(provider, { depth: 9, showHidden: true }),
    `${provider.url('/models', 'm')}`,
  ]
  for (const secret of ['sk-top-secret', 'pass-word']) expect(printed.join()).not.toContain(secret)
  expect(provider.mask('bad key sk-top-secret for pass-word')).toBe('bad key ••• for •••')
})

test('a user and password in the address are sent as basic authorization', () => {
  const provider = only({ OPENAI_BASE_URL: 'https://me:p%40ss@models.example/v1' })
  expect(provider.credentials()).toEqual({ authorization: `Basic ${btoa('me:p@ss')}` })
  expect(provider.address).toBe('https://models.example/v1')
})

test('Google is reached by its key or its address', () => {
  const google = only({ GEMINI_API_KEY: 'g-1' })
  expect(google.url('/models/m:generateContent', 'm').href).toBe(
    'https://generativelanguage.googleapis.com/v1beta/models/m:generateContent',
  )
  expect(google.credentials()).toEqual({ 'x-goog-api-key': 'g-1' })
  expect(google).toMatchObject({ wire: 'google-generate-content', vendor: 'GOOGLE', isVendor: true })
  expect(only({ GOOGLE_GEMINI_BASE_URL: 'http://127.0.0.1:9/v1beta/' }).address).toBe('http://127.0.0.1:9/v1beta')
})

test('Bedrock is a region’s runtime, or an address of one’s own', () => {
  const bedrock = only({ AWS_BEARER_TOKEN_BEDROCK: 'b-1', AWS_REGION: 'eu-central-1' })
  expect(bedrock.address).toBe('https://bedrock-runtime.eu-central-1.amazonaws.com')
  expect(bedrock.listUrl?.href).toBe(
    'https://bedrock.eu-central-1.amazonaws.com/foundation-models?byOutputModality=TEXT',
  )
  expect(bedrock.credentials()).toEqual({ authorization: 'Bearer b-1' })
  const own = only({ AWS_BEARER_TOKEN_BEDROCK: 'b-1', AWS_ENDPOINT_URL_BEDROCK_RUNTIME: 'http://127.0.0.1:9' })
  expect(own).toMatchObject({ address: 'http://127.0.0.1:9', listUrl: null })
})

test('Azure is spoken to on its v1 routes, or on the classic ones of a version', () => {
  const env = { AZURE_OPENAI_API_KEY: 'a-1', AZURE_OPENAI_ENDPOINT: 'https://me.openai.azure.com/' }
  const azure = only(env)
  expect(azure.url('/chat/completions', 'my gpt').href).toBe('https://me.openai.azure.com/openai/v1/chat/completions')
  expect(azure.credentials()).toEqual({ 'api-key': 'a-1' })
  const classic = only({ ...env, OPENAI_API_VERSION: '2024-10-21' })
  expect(classic.url('/chat/completions', 'my gpt').href).toBe(
    'https://me.openai.azure.com/openai/deployments/my%20gpt/chat/completions?api-version=2024-10-21',
  )
  expect(classic.url('/responses', 'my gpt').href).toBe(
    'https://me.openai.azure.com/openai/responses?api-version=2024-10-21',
  )
})

test('what is missing for the others is named', () => {
  const { missing } = findProviders({ OPENAI_API_KEY: 'k', AWS_BEARER_TOKEN_BEDROCK: 'b', AZURE_OPENAI_API_KEY: 'a' })
  expect(missing).toEqual([
    { name: 'anthropic', reason: 'ANTHROPIC_API_KEY is not set' },
    { name: 'google', reason: 'GEMINI_API_KEY is not set' },
    { name: 'bedrock', reason: 'AWS_REGION is not set' },
    { name: 'azure', reason: 'AZURE_OPENAI_ENDPOINT is not set' },
    { name: 'ollama', reason: 'OLLAMA_HOST is not set' },
  ])
})
