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

test('a failure that goes on is said once, and without a stack where the database is away', async () => {
  const lines: { error: unknown; msg: string }[] = []
  const said = pino(
    { serializers: { error: pino.stdSerializers.err } },
    { write: (line) => lines.push(JSON.parse(line)) },
  )
  const stopping = new AbortController()
  let rounds = 0
  const enough = Promise.withResolvers<void>()
  const loop = startLoop({
    name: 'test',
    everyMs: 1,
    log: said,
    signal: stopping.signal,
    async work() {
      rounds += 1
      if (rounds === 20) enough.resolve()
      if (rounds === 10) throw new Error('a bad day')
      throw Object.assign(new Error(`connect ENOENT ${rounds}`), { code: 'ENOENT' })
    },
  })
  await enough.promise
  stopping.abort()
  await loop.ended
  expect(lines.map(({ error }) => error)).toEqual([
    'connect ENOENT 1',
    expect.objectContaining({ message: 'a bad day', stack: expect.any(String) }),
  ])
})
