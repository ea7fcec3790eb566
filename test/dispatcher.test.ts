import pino from 'pino'
import { expect, test } from 'vitest'
import type { Ctx } from '../packages/server/src/domain/context.ts'
import { createHints } from '../packages/server/src/hints.ts'
import { type Slot, startDispatcher } from '../packages/server/src/loops/dispatcher.ts'
import { type Database, openDatabase } from '../packages/server/src/store/database.ts'
import { until } from './support/poll.ts'
import { createTestDatabase } from './support/test-database.ts'

test('a hint that names no worker asks idle workers until one finds nothing; the poll asks them all', async () => {
  await using database = await createTestDatabase()
  const db = openDatabase({ connectionString: database.url }, () => {})
  const asked: unknown[] = []
  const watched: Database = {
    ...db,
    query(text, values) {
      asked.push(values?.[1])
      return db.query(text, values)
    },
  }
  const teamId = crypto.randomUUID()
  const slots: Slot[] = ['w1', 'w2', 'w3'].map((workerId) => ({
    ...{ id: crypto.randomUUID(), teamId, workerId, speaksOurs: true, instance: null, active: 0 },
    hasFreeSlot: () => true,
    isFull: () => false,
    send: () => true,
  }))
  const log = pino({ level: 'silent' })
  const hints = createHints({ serverId: 'test', log, useNotify: false })
  const stopping = new AbortController()
  const dispatcher = startDispatcher({ db: watched, hints, log } as unknown as Ctx, () => slots, stopping.signal)
  try {
    await until(() => asked.length === 3)
    hints.publish(`queue ${teamId} `)
    await until(() => asked.length >= 7)
    expect(asked.slice(0, 7)).toEqual(['w1', 'w2', 'w3', 'w1', 'w1', 'w2', 'w3'])
  } finally {
    stopping.abort()
    await dispatcher.ended
    await db.close()
  }
})
