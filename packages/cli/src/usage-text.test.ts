import { expect, test } from 'vitest'
import { usageText } from './usage-text.ts'

const none = {
  requests: 1,
  input_tokens: 1200,
  output_tokens: 30,
  cache_read_tokens: 0,
  cache_write_tokens: 0,
  reasoning_tokens: 0,
}

test('tokens are all that was read and written; parts and cost stand where there are any', () => {
  expect(usageText(none)).toBe('1,200 in, 30 out in 1 request')
  const much = { ...none, requests: 9, cache_read_tokens: 10_000, cache_write_tokens: 800, reasoning_tokens: 12 }
  expect(usageText({ ...much, cost_usd: 0.04212 })).toBe(
    '12,000 in (10,000 from the cache), 30 out (12 thinking) in 9 requests · $0.0421',
  )
  expect(usageText({ ...none, cost_usd: 3.456 })).toMatch(/ · \$3\.46$/)
})
