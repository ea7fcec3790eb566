import { expect, test } from 'vitest'
import { type Database, type DatabaseOptions, openDatabase } from '../packages/server/src/store/database.ts'
import { createTestDatabase } from './support/test-database.ts'

interface Scene {
  db: Database
  /** Another program's connection. */
  other: Database
}

async function withTable(work: (scene: Scene) => Promise<void>, options: DatabaseOptions & { max?: number } = {}) {
  const { max = 1, ...databaseOptions } = options
  await using database = await createTestDatabase({ isEmpty: true })
  const db = openDatabase({ connectionString: database.url, max }, () => {}, databaseOptions)
  const other = openDatabase({ connectionString: database.url, max: 1 }, () => {})
  try {
    await other.query(
      "create table things (id integer primary key, name text not null); insert into things values (1, 'a')",
    )
    await work({ db, other })
  } finally {
    await db.close()
    await other.close()
  }
}

const findThing = 'select * from things where id = $1'
const renameThing = 'update things set name = $2 where id = $1 returning *'

async function preparedNames(db: Database): Promise<string[]> {
  const { rows } = await db.query<{ name: string }>('select name from pg_prepared_statements order by prepare_time')
  return rows.map(({ name }) => name)
}

test('a connection keeps a statement with values, once, and nothing of one that is planned each time', () =>
  withTable(async ({ db }) => {
    for (let i = 0; i < 3; i++) expect((await db.query(findThing, [1])).rows).toEqual([{ id: 1, name: 'a' }])
    await db.transaction((tx) => tx.query(findThing, [1]))
    await db.query('select * from things where name = $1', ['a'], 'planned each time')
    await db.query('select * from things')
    expect(await preparedNames(db)).toHaveLength(1)
  }))

test('a migration of a newer server changes a table: statements whose plans are kept go on, within transactions and without', () =>
  withTable(
    async ({ db, other }) => {
      const onEveryConnection = (text: string, values: unknown[]) =>
        Promise.all([1, 2, 3].map(() => db.query(text, values)))
      await onEveryConnection(findThing, [1])
      await onEveryConnection(renameThing, [1, 'b'])
      await other.query('alter table things add column size integer not null default 5')
      const all = await onEveryConnection(findThing, [1])
      expect(all.map(({ rows }) => rows)).toEqual(Array(3).fill([{ id: 1, name: 'b', size: 5 }]))

      await onEveryConnection(renameThing, [1, 'c'])
      await other.query('alter table things add column colour text')
      let tries = 0
      const result = await db.transaction(async (tx) => {
        tries++
        await tx.query('insert into things (id, name) values ($1, $2)', [2, 'c'])
        return tx.query(renameThing, [1, 'd'])
      })
      expect(result.rows).toEqual([{ id: 1, name: 'd', size: 5, colour: null }])
      expect(tries).toBe(2)
      // Nothing of the first try is left, and no other statement has to be tried twice.
      expect((await other.query('select count(*) as count from things')).rows).toEqual([{ count: 2 }])
      const again = await db.transaction((tx) => {
        tries++
        return tx.query(renameThing, [1, 'e'])
      })
      expect(again.rows).toHaveLength(1)
      expect(tries).toBe(3)
    },
    { max: 3 },
  ))

test('a pooler that gives each transaction another connection: statements it does not know are executed without names from then on', async () => {
  const notices: Error[] = []
  await withTable(
    async ({ db }) => {
      await db.query(findThing, [1])
      // What such a pooler does as well: the connection is another one, which has never heard of the name.
      await db.query('deallocate all')
      expect((await db.query(findThing, [1])).rows).toHaveLength(1)
      await db.query(renameThing, [1, 'b'])
      expect(await preparedNames(db)).toEqual([])
      expect(notices.map(({ message }) => message)).toEqual([expect.stringContaining('does not exist')])
    },
    { onUnprepared: (error) => notices.push(error) },
  )
})

test('the same within a transaction, on a connection where another server has used the name', async () => {
  const notices: Error[] = []
  await withTable(
    async ({ db, other }) => {
      await other.query(findThing, [1])
      const [name] = await preparedNames(other)
      await db.query(`prepare "${name}" as select 1`)
      const { rows } = await db.transaction(async (tx) => {
        await tx.query('insert into things (id, name) values ($1, $2)', [2, 'c'])
        return tx.query(findThing, [2])
      })
      expect(rows).toEqual([{ id: 2, name: 'c' }])
      expect(notices.map(({ message }) => message)).toEqual([expect.stringContaining('already exists')])
    },
    { onUnprepared: (error) => notices.push(error) },
  )
})
