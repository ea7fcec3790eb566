import { expect, test } from 'vitest'
import { parseDuration } from './duration.ts'

test.each([
  ['500ms', 500],
  ['10s', 10_000],
  ['45m', 2_700_000],
  ['1h 30m', 5_400_000],
  ['1h30m', 5_400_000],
  ['30m1h', 5_400_000],
  ['1.5h', 5_400_000],
  ['1 h', 3_600_000],
  [' 1m ', 60_000],
  ['2d', 172_800_000],
  ['2w', 1_209_600_000],
  ['1m1ms', 60_001],
  ['0s', 0],
  ['1.0004s', 1000],
])('%j is %i ms', (text, ms) => {
  expect(parseDuration(text)).toBe(ms)
})

test.each(['', ' ', '5', '5 minutes', '-1h', '1h30', '1h,30m', 'm', '.5h', '1.h', '1H', 'P1D', '1e3s', '99999999999w'])(
  '%j is no duration',
  (text) => {
    expect(parseDuration(text)).toBeUndefined()
  },
)

test('a long text that is none is seen as such at once', () => {
  const startedAt = performance.now()
  expect(parseDuration(`${'1s '.repeat(100_000)}x`)).toBeUndefined()
  expect(performance.now() - startedAt).toBeLessThan(1_000)
})
