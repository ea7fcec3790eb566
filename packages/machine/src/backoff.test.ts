import { expect, test } from 'vitest'
import { fullJitterMs, sleep } from './backoff.ts'

test('waits are spread over the whole span, which doubles up to its limit', () => {
  const spans = [100, 200, 400, 800, 1_000, 1_000]
  for (const [attempt, span] of spans.entries()) {
    const waits = Array.from({ length: 500 }, () => fullJitterMs(attempt, { baseMs: 100, maxMs: 1_000 }))
    expect(Math.max(...waits)).toBeLessThanOrEqual(span)
    expect(Math.max(...waits)).toBeGreaterThan(span * 0.9)
    expect(Math.min(...waits)).toBeLessThan(span * 0.1)
  }
  expect(fullJitterMs(10_000, { maxMs: 5 })).toBeLessThanOrEqual(5)
})

test('a sleep ends early, and without an error, when its signal is aborted', async () => {
  const started = performance.now()
  await sleep(60_000, AbortSignal.timeout(20))
  await sleep(60_000, AbortSignal.abort())
  expect(performance.now() - started).toBeLessThan(1_000)
  await sleep(5)
})
