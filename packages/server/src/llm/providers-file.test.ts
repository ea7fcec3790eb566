import { mkdtempSync, rmSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { afterEach, expect, test } from 'vitest'
import { findProviders } from './providers.ts'
import { addNamedProviders } from './providers-file.ts'

const folders: string[] = []
afterEach(() => {
  for (const folder of folders.splice(0)) rmSync(folder, { recursive: true })
})

function find(content: unknown, env: Record<string, string> = {}, keyFile?: string) {
  const folder = mkdtempSync(join(tmpdir(), 'oz-providers-'))
  folders.push(folder)
  const file = join(folder, 'providers.json')
  writeFileSync(file, typeof content === 'string' ? content : JSON.stringify(content))
  if (keyFile !== undefined) writeFileSync(join(folder, 'key'), keyFile)
  return addNamedProviders(findProviders(env), file, env)
}

test('providers of every type are found under their names, after those of the environment', () => {
  const { providers } = find(
    [
      { name: 'work', type: 'anthropic', api_key_env: 'WORK_KEY' },
      { name: 'gpu-1', type: 'openai-compatible', base_url: 'http://gpu-1:8000/v1' },
      { name: 'gpu-2', type: 'ollama', base_url: 'gpu-2' },
      { name: 'europe', type: 'bedrock', region: 'eu-central-1', api_key_file: 'key' },
      { name: 'old', type: 'azure', base_url: 'https://x.openai.azure.com', api_version: '2024-10-21' },
      { name: 'g', type: 'google' },
      { name: 'o', type: 'openai' },
    ],
    { OPENAI_API_KEY: 'k', WORK_KEY: 'sk-work' },
    'from-a-file\n',
  )
  expect(providers.map(({ name, kind, wire, address }) => [name, kind, wire, address])).toEqual([
    ['openai', 'openai', 'openai-responses', 'https://api.openai.com/v1'],
    ['work', 'anthropic', 'anthropic-messages', 'https://api.anthropic.com/v1'],
    ['gpu-1', 'openai-compatible', 'openai-chat', 'http://gpu-1:8000/v1'],
    ['gpu-2', 'ollama', 'openai-chat', 'http://gpu-2:11434/v1'],
    ['europe', 'bedrock', 'bedrock-converse', 'https://bedrock-runtime.eu-central-1.amazonaws.com'],
    ['old', 'azure', 'openai-chat', 'https://x.openai.azure.com/openai'],
    ['g', 'google', 'google-generate-content', 'https://generativelanguage.googleapis.com/v1beta'],
    ['o', 'openai', 'openai-responses', 'https://api.openai.com/v1'],
  ])
  expect(providers[1]?.credentials()).toMatchObject({ 'x-api-key': 'sk-work' })
  expect(providers[4]?.credentials()).toEqual({ authorization: 'Bearer from-a-file' })
})

test('a key that is not there makes its provider unusable, and says which', () => {
  const { providers, missing } = find([
    { name: 'a', type: 'openai', api_key_env: 'NOT_SET' },
    { name: 'b', type: 'openai', api_key_file: 'nowhere' },
  ])
  expect(providers).toEqual([])
  expect(missing.slice(-2)).toEqual([
    { name: 'a', reason: 'NOT_SET is not set' },
    { name: 'b', reason: expect.stringMatching(/nowhere cannot be read$/) },
  ])
})

test('a named provider takes the place of one that the environment lacks', () => {
  const { providers, missing } = find([{ name: 'google', type: 'google' }])
  expect(providers.map(({ name }) => name)).toEqual(['google'])
  expect(missing.map(({ name }) => name)).not.toContain('google')
})

test.each([
  ['not json', 'is not JSON'],
  [{}, 'does not fit'],
  [[{ name: 'a', type: 'openai', api_key: 'sk-secret' }], 'has a key in it at 0'],
  [[{ name: 'a', type: 'openai', nick: 'sk-secret' }], 'nick'],
  [[{ name: 'A', type: 'openai' }], 'lower-case'],
  [[{ name: 'a', type: 'mistral' }], 'does not fit at 0.type'],
  [[{ name: 'a', type: 'openai-compatible' }], 'needs base_url'],
  [[{ name: 'a', type: 'bedrock' }], 'needs region'],
  [[{ name: 'a', type: 'openai', region: 'x' }], 'region is of bedrock'],
  [[{ name: 'a', type: 'openai', api_key_env: 'A', api_key_file: 'b' }], 'exclude each other'],
  [[{ name: 'a', type: 'openai', base_url: 'sk-secret' }], 'base_url of a'],
  [
    [
      { name: 'a', type: 'openai' },
      { name: 'a', type: 'google' },
    ],
    'two providers are called a',
  ],
  [[{ name: 'openai', type: 'openai' }], 'two providers are called openai'],
])('a file with %j is refused, and not repeated', (content, words) => {
  const act = () => find(content, { OPENAI_API_KEY: 'k' })
  expect(act).toThrow(expect.objectContaining({ code: 'option_invalid', message: expect.stringContaining(words) }))
  expect(act).not.toThrow(/sk-secret/)
})
