import { inspect } from 'node:util'
import { expect, test } from 'vitest'
import { findProviders } from './providers.ts'

const only = (env: Record<string, string>) => {
  const [provider] = findProviders(env)
  if (!provider) throw new Error('no provider')
  return provider
}

test('an environment without any of the variables has no provider', () => {
  expect(findProviders({ OPENAI_API_KEY: ' ', OLLAMA_HOST: '' })).toEqual([])
})

test('keys alone mean the vendors, each on its newest wire', () => {
  const [anthropic, openai] = findProviders({ ANTHROPIC_API_KEY: 'sk-ant-1', OPENAI_API_KEY: 'sk-2\n' })
  expect(anthropic?.url('/messages').href).toBe('https://api.anthropic.com/v1/messages')
  expect(anthropic?.credentials()).toEqual({ 'x-api-key': 'sk-ant-1', 'anthropic-version': '2023-06-01' })
  expect(anthropic).toMatchObject({ wire: 'anthropic-messages', vendor: 'ANTHROPIC', isVendor: true })
  expect(openai?.url('/responses').href).toBe('https://api.openai.com/v1/responses')
  expect(openai?.credentials()).toEqual({ authorization: 'Bearer sk-2' })
  expect(openai).toMatchObject({ wire: 'openai-responses', vendor: 'OPENAI', isVendor: true })
})

test('a base address needs no key and makes it a compatible server', () => {
  const openai = only({ OPENAI_BASE_URL: 'http://127.0.0.1:9/v1/' })
  expect(openai.url('/chat/completions').href).toBe('http://127.0.0.1:9/v1/chat/completions')
  expect(openai.credentials()).toEqual({})
  expect(openai).toMatchObject({ wire: 'openai-chat', vendor: 'UNKNOWN', isVendor: false })
  expect(only({ OPENAI_BASE_URL: 'https://eu.api.openai.com/v1' }).wire).toBe('openai-responses')
})

test.each(['http://127.0.0.1:9', 'http://127.0.0.1:9/', 'http://127.0.0.1:9/v1', 'http://127.0.0.1:9/v1/'])(
  'ANTHROPIC_BASE_URL %s leads to /v1/messages',
  (base) => {
    expect(only({ ANTHROPIC_BASE_URL: base }).url('/messages').href).toBe('http://127.0.0.1:9/v1/messages')
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
    `${provider.url('/models')}`,
  ]
  for (const secret of ['sk-top-secret', 'pass-word']) expect(printed.join()).not.toContain(secret)
  expect(provider.mask('bad key sk-top-secret for pass-word')).toBe('bad key ••• for •••')
})

test('a user and password in the address are sent as basic authorization', () => {
  const provider = only({ OPENAI_BASE_URL: 'https://me:p%40ss@models.example/v1' })
  expect(provider.credentials()).toEqual({ authorization: `Basic ${btoa('me:p@ss')}` })
  expect(provider.address).toBe('https://models.example/v1')
})
