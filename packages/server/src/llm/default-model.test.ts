import { expect, test } from 'vitest'
import { preferredModel } from './default-model.ts'
import type { ListedModel } from './provider-models.ts'
import { findProviders } from './providers.ts'

const model = (name: string, createdAt = 0, isTextModel = true): ListedModel => ({
  name,
  displayName: name,
  createdAt,
  canSee: false,
  isTextModel,
})
const choose = (env: Record<string, string>, ...models: ListedModel[]) => {
  const [provider] = findProviders(env).providers
  return provider && preferredModel(provider, models)?.name
}

const anthropic = { ANTHROPIC_API_KEY: 'k' }
const openai = { OPENAI_API_KEY: 'k' }

test('of Anthropic it is the newest Sonnet', () => {
  const models = [
    model('claude-opus-4-6', 9),
    model('claude-3-7-sonnet-20250219', 2),
    model('claude-sonnet-4-20250514', 3),
    model('claude-sonnet-4-6', 4),
    model('claude-sonnet-4-5-20250929', 5),
  ]
  expect(choose(anthropic, ...models)).toBe('claude-sonnet-4-6')
  expect(choose(anthropic, model('claude-haiku-4-5-20251001'), model('claude-opus-4-6'))).toBe('claude-opus-4-6')
})

test('of OpenAI it is the newest full-size text model', () => {
  const models = [
    model('whisper-1', 99, false),
    model('gpt-4o', 1),
    model('gpt-5', 5),
    model('gpt-5-2025-08-07', 5),
    model('gpt-5.1-mini', 9),
    model('gpt-5.1-pro', 9),
    model('gpt-5.1-chat-latest', 9),
    model('gpt-5.1', 7),
    model('gpt-5.1-codex', 8),
    model('gpt-4.1', 10),
  ]
  expect(choose(openai, ...models)).toBe('gpt-5.1-codex')
  expect(choose(openai, model('whisper-1', 0, false), model('o3'))).toBe('o3')
  expect(choose(openai, model('whisper-1', 0, false))).toBeUndefined()
})

test('of a server of one’s own it is the first', () => {
  expect(choose({ OPENAI_BASE_URL: 'http://x/v1' }, model('z'), model('gpt-5'))).toBe('z')
  expect(choose({ OLLAMA_HOST: 'x' }, model('z'), model('a'))).toBe('z')
})

test('of Google it is the newest Pro that is released', () => {
  const google = { GEMINI_API_KEY: 'k' }
  const models = [model('gemini-2.5-flash'), model('gemini-2.5-pro'), model('gemini-3-pro-preview')]
  expect(choose(google, ...models)).toBe('gemini-2.5-pro')
  expect(choose(google, model('gemini-2.5-flash'), model('gemini-3-pro-preview'))).toBe('gemini-3-pro-preview')
})

test('of Bedrock it is the newest Sonnet', () => {
  const bedrock = { AWS_BEARER_TOKEN_BEDROCK: 'k', AWS_REGION: 'eu-central-1' }
  const old = model('anthropic.claude-3-5-sonnet-20240620-v1:0')
  expect(choose(bedrock, model('amazon.nova-pro-v1:0'), old, model('anthropic.claude-sonnet-4-20250514-v1:0'))).toBe(
    'anthropic.claude-sonnet-4-20250514-v1:0',
  )
})
