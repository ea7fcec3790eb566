import { expect, test } from 'vitest'
import { ageText, durationText } from './time-text.ts'

test('durations are told in the unit that fits', () => {
  expect([4, 999, 1000, 59_900, 59_960, 125_000, 7_800_000].map(durationText)).toEqual([
    '4 ms',
    '999 ms',
    '1.0 s',
    '59.9 s',
    '1 min 0 s',
    '2 min 5 s',
    '2 h 10 min',
  ])
})

test('ages are told roughly, and as a date when they are old', () => {
  const now = Date.parse('2026-11-23T12:00:00Z')
  expect(ageText('2026-11-23T11:59:48Z', now)).toBe('12 s ago')
  expect(ageText('2026-11-23T09:00:00Z', now)).toBe('3 h ago')
  expect(ageText('2026-10-01T09:00:00Z', now)).toBe('2026-10-01')
})
