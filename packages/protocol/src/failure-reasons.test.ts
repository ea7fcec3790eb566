import { expect, test } from 'vitest'
import { failureReasonOf, failureReasons, failureSpec } from './failure-reasons.ts'

test('there are the 29 reasons of the reference wire', () => {
  expect(Object.keys(failureReasons)).toHaveLength(29)
})

test.each([undefined, '', 'from_the_future', 'constructor', 'toString', '__proto__'])(
  '%j is an unknown reason',
  (text) => {
    expect(failureReasonOf(text)).toBe('unknown')
  },
)

test('only what is ours is tried again by itself', () => {
  for (const [reason, spec] of Object.entries(failureReasons))
    if (spec.retries > 0) expect([reason, spec.side]).toEqual([reason, 'platform'])
  expect(failureSpec('lost')).toMatchObject({ side: 'platform', retries: 2 })
})
