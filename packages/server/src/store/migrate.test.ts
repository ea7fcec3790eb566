import { expect, test } from 'vitest'
import type { Database, Tx } from './database.ts'
import { migrate, readMigrations } from './migrate.ts'

const migrations = await readMigrations()

/** Answers as a server of that version would, as far as anybody gets. */
function databaseOfVersion(number: string, text: string): Database {
  const query = async () => ({ rows: [{ server_version_num: number, server_version: text }] }) as never
  return {
    query,
    transaction: (work) => work({ isTransaction: true, query } as Tx),
    connectAlone: () => Promise.reject(new Error('not asked for')),
    close: async () => {},
  }
}

test('a PostgreSQL that is too old is refused with both versions named', async () => {
  await expect(migrate(databaseOfVersion('140011', '14.11'), migrations)).rejects.toMatchObject({
    code: 'database_too_old',
    message: expect.stringMatching(/14\.11.*15/),
  })
})

test('no migration opens or ends a transaction: all of them are one', () => {
  for (const { sql } of migrations) expect(sql).not.toMatch(/^\s*(begin|commit|rollback)\s*;/im)
})
