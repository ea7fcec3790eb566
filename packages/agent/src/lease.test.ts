import { bootClockMs } from '@openoz/machine'
import { expect, test } from 'vitest'
import { holdLease, type LeaseLoss, leaseTimes } from './lease.ts'

const limits = { stop_after_ms: 720_000, lost_after_ms: 780_000, settled_stop_after_ms: 45_000 }

/** What is acknowledged was sent so long ago; nothing in here waits for the timer. */
function hold({ silentMs = 0, isWatched = true } = {}) {
  const now = bootClockMs()
  const state = { from: now - silentMs, losses: [] as LeaseLoss[], deadlines: [] as number[] }
  const lease = holdLease({
    limits,
    file: { put: (deadline) => state.deadlines.push(Math.round((deadline - now) / 1_000)), remove() {} },
    lastAcknowledgedSendAt: () => state.from,
    onLost: isWatched ? (loss) => state.losses.push(loss) : undefined,
  })
  return { lease, state, [Symbol.dispose]: () => lease.end() }
}

test('times that a control plane does not say are those that it had before it said them', () => {
  expect(leaseTimes(limits)).toEqual({
    working: { stopMs: 720_000, deadMs: 750_000 },
    settled: { stopMs: 45_000, deadMs: 52_500 },
  })
  expect(leaseTimes({ stop_after_ms: 720_000 })).toEqual(leaseTimes(limits))
  const { working, settled } = leaseTimes({ stop_after_ms: 8_000 })
  expect(working.deadMs).toBe(9_000)
  expect(settled.stopMs).toBe(8_000)
})

test('a look tells at once that the lease is over, and with how much time left', () => {
  using soon = hold({ silentMs: 719_000 })
  soon.lease.check()
  expect(soon.state.losses).toEqual([])
  using over = hold({ silentMs: 721_000 })
  over.lease.check()
  over.lease.check()
  expect(over.state.losses).toHaveLength(1)
  expect(over.state.losses[0]?.graceMs).toBeGreaterThan(9_000)
  using woken = hold({ silentMs: 751_000 })
  woken.lease.check()
  expect(woken.state.losses).toMatchObject([{ graceMs: 0 }])
})

test('what is acknowledged after the loss moves its deadline no more', () => {
  using held = hold({ silentMs: 751_000 })
  held.lease.check()
  held.state.from = bootClockMs()
  expect(held.lease.leftMs()).toBeLessThan(0)
})

test('after the outcome less silence is allowed, from the outcome on', () => {
  using held = hold({ silentMs: 300_000 })
  held.lease.settle()
  // The outcome is not older than now: nobody can count from earlier.
  expect(held.state.losses).toEqual([])
  expect(held.state.deadlines).toEqual([53])
  held.lease.begin()
  expect(held.state.deadlines.at(-1)).toBe(450)
})

test('an outcome that comes late gives no more time than there was', () => {
  using held = hold({ silentMs: 719_000 })
  held.lease.settle()
  expect(held.state.deadlines).toEqual([31])
})

test('a lease that nobody watches is never lost', () => {
  using held = hold({ silentMs: 10_000_000, isWatched: false })
  held.lease.check()
  expect(held.state.deadlines).toEqual([])
})
