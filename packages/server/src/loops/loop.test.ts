import pino from 'pino'
import { expect, test } from 'vitest'
import { startLoop } from './loop.ts'

const log = pino({ level: 'silent' })

/** A loop whose rounds the test ends one by one. */
function controlledLoop(everyMs: number) {
  const stopping = new AbortController()
  const rounds: PromiseWithResolvers<void>[] = []
  let begun = Promise.withResolvers<void>()
  const loop = startLoop({
    name: 'test',
    everyMs,
    log,
    signal: stopping.signal,
    work() {
      const round = Promise.withResolvers<void>()
      rounds.push(round)
      begun.resolve()
      begun = Promise.withResolvers<void>()
      return round.promise
    },
  })
  return { loop, stopping, rounds, nextRound: () => begun.promise }
}

test('it works at once, outlives an error and works again in time', async () => {
  const { loop, stopping, rounds, nextRound } = controlledLoop(1)
  const second = nextRound()
  rounds[0]?.reject(new Error('a bad day'))
  await second
  stopping.abort()
  rounds[1]?.resolve()
  await loop.ended
  expect(rounds).toHaveLength(2)
})

test('wakes that come while it works are one more round', async () => {
  const { loop, stopping, rounds, nextRound } = controlledLoop(3_600_000)
  for (let i = 0; i < 10; i++) loop.wake()
  const second = nextRound()
  rounds[0]?.resolve()
  await second
  rounds[1]?.resolve()
  await new Promise((resolve) => setImmediate(resolve))
  expect(rounds).toHaveLength(2)
  stopping.abort()
  await loop.ended
})

test('a signal ends it, even in the middle of a long wait', async () => {
  const { loop, stopping, rounds } = controlledLoop(3_600_000)
  rounds[0]?.resolve()
  await new Promise((resolve) => setImmediate(resolve))
  stopping.abort()
  await loop.ended
})
