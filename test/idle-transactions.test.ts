import { setTimeout as sleep } from 'node:timers/promises'
import { expect, test } from 'vitest'
import { openDatabase } from '../packages/server/src/store/database.ts'
import { startControlPlane } from './support/control-plane.ts'

test('a transaction in which nothing happens any more is ended by the database, and its locks with it', async () => {
  await using cp = await startControlPlane({ isStopped: true })
  const db = openDatabase({ connectionString: cp.database.url, max: 1 }, () => {}, { idleTransactionMs: 100 })
  try {
    const hanging = db.transaction(async (tx) => {
      await tx.query('select pg_advisory_xact_lock(1)')
      await sleep(400)
      return tx.query('select 1')
    })
    await expect(hanging).rejects.toThrow()
    // The connection is not given to the next one.
    expect((await db.query<{ free: boolean }>('select pg_try_advisory_lock(1) as free')).rows).toEqual([{ free: true }])
  } finally {
    await db.close()
  }
})

test('one that only takes its time is not', async () => {
  await using cp = await startControlPlane({ isStopped: true })
  const db = openDatabase({ connectionString: cp.database.url, max: 1 }, () => {}, { idleTransactionMs: 1_000 })
  try {
    const work = db.transaction(async (tx) => {
      await tx.query('select pg_sleep(1.2)')
      return 'done'
    })
    expect(await work).toBe('done')
    const { rows } = await db.query<{ timeout: string }>(
      `select current_setting('idle_in_transaction_session_timeout') as timeout`,
    )
    expect(rows).toEqual([{ timeout: '0' }])
  } finally {
    await db.close()
  }
})
