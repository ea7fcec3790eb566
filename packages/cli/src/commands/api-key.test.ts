import { expect, test } from 'vitest'
import { expiryOf } from './api-key.ts'

const expiresIn = (duration: string) => expiryOf({ expiresIn: duration, expiration: true })

test('a key ends after the duration that was given', () => {
  const inMs = Date.parse(expiresIn('1h30m') ?? '') - Date.now()
  expect(inMs).toBeGreaterThan(5_390_000)
  expect(inMs).toBeLessThanOrEqual(5_400_000)
})

test.each(['', '5', '5 minutes', '-1h', '999999999d'])('%j is refused with the option’s name', (wrong) => {
  expect(() => expiresIn(wrong)).toThrow(/--expires-in.*is not a duration such as 45m/)
})
