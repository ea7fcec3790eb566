import { bootClockMs } from '@openoz/machine'
import { expect, test } from 'vitest'
import { createWakeCalls } from './wake-calls.ts'

const never = new AbortController().signal

test('a call wakes who waits, and one that came before is not missed', async () => {
  const calls = createWakeCalls()
  const later = bootClockMs() + 60_000
  const next = calls.next(later, never)
  calls.call('turn')
  expect(await next).toBe('turn')
  calls.clear()
  calls.call('end')
  calls.call('turn')
  expect(await calls.next(later, never)).toBe('end')
})

test('what came before the last question is forgotten', async () => {
  const calls = createWakeCalls()
  calls.call('end')
  calls.clear()
  expect(await calls.next(bootClockMs() + 30, never)).toBeUndefined()
})

test('a wait ends with its signal', async () => {
  const stop = new AbortController()
  const next = createWakeCalls().next(bootClockMs() + 60_000, stop.signal)
  stop.abort()
  expect(await next).toBeUndefined()
})

test('a window of years is one', async () => {
  const calls = createWakeCalls()
  const next = calls.next(bootClockMs() + 1_000_000 * 60_000, never)
  const early = await Promise.race([next, new Promise((resolve) => setTimeout(resolve, 50, 'still waiting'))])
  expect(early).toBe('still waiting')
  calls.call('turn')
  expect(await next).toBe('turn')
})
