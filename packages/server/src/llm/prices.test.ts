import { mkdtempSync, rmSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { afterEach, expect, test } from 'vitest'
import { createPrices } from './prices.ts'
import { findProviders } from './providers.ts'

const folders: string[] = []
afterEach(() => {
  for (const folder of folders.splice(0)) rmSync(folder, { recursive: true })
})

function pricesFile(content: unknown): string {
  const folder = mkdtempSync(join(tmpdir(), 'oz-prices-'))
  folders.push(folder)
  const file = join(folder, 'prices.json')
  writeFileSync(file, typeof content === 'string' ? content : JSON.stringify(content))
  return file
}

const [anthropic] = findProviders({ ANTHROPIC_API_KEY: 'k' }).providers
const [ollama] = findProviders({ OLLAMA_HOST: 'x' }).providers
if (!anthropic || !ollama) throw new Error('no provider')
const million = 1_000_000
const usage = {
  inputTokens: million,
  outputTokens: million,
  cacheReadTokens: million,
  cacheWriteTokens: million,
  reasoningTokens: 0,
  estimated: false,
}

test('known models have list prices, local ones cost nothing, others nobody knows', () => {
  const prices = createPrices(null)
  expect(prices.cost(anthropic, 'claude-sonnet-4-5-20250929', usage)).toBe(3 + 15 + 0.3 + 3.75)
  expect(prices.cost(anthropic, 'claude-next', usage)).toBeUndefined()
  expect(prices.cost(ollama, 'qwen3', usage)).toBe(0)
  // Reasoning is part of the output, not more of it.
  expect(prices.cost(anthropic, 'claude-haiku-4-5', { ...usage, reasoningTokens: million })).toBe(1 + 5 + 0.1 + 1.25)
})

test('a user’s prices go first, a longer pattern before a shorter, a name in full before both', () => {
  const price = (input: number) => ({ input, output: 0, cache_read: 0, cache_write: 0 })
  const prices = createPrices(
    pricesFile({
      as_of: '2026-03-01',
      prices: {
        'anthropic/claude-*': price(1),
        'anthropic/claude-sonnet-*': price(2),
        'anthropic/claude-sonnet-9': price(3),
        'ollama/big.model': { input: 4, output: 0 },
      },
    }),
  )
  const cost = (model: string) => prices.cost(anthropic, model, usage)
  expect([cost('claude-opus-4-5'), cost('claude-sonnet-8'), cost('claude-sonnet-9')]).toEqual([1, 2, 3])
  // Without prices of their own cached tokens cost what the others do.
  expect(prices.cost(ollama, 'big.model', usage)).toBe(12)
  expect(prices.cost(ollama, 'bigXmodel', usage)).toBe(0)
})

test.each([
  ['not json', 'is not JSON'],
  [{ prices: {} }, 'as_of'],
  [{ as_of: '2026-03-01', prices: { 'a/b': { input: 1, output: 1, tax: 1 } } }, 'a/b'],
  [{ as_of: '2026-03-01', prices: { 'a/b': { input: -1, output: 1 } } }, 'input'],
  [{ as_of: '2026-03-01', prices: { sonnet: { input: 1, output: 1 } } }, 'sonnet'],
  [{ as_of: '2026-03-01', prices: {}, more: 1 }, 'more'],
])('a file with %j is refused', (content, words) => {
  expect(() => createPrices(pricesFile(content))).toThrow(
    expect.objectContaining({ code: 'option_invalid', message: expect.stringContaining(words) }),
  )
})

test('a file that is not there is refused', () => {
  expect(() => createPrices('/nowhere/prices.json')).toThrow('cannot be read')
})
