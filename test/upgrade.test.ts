import { expect, test } from 'vitest'
import { openDatabase } from '../packages/server/src/store/database.ts'
import { migrate, readMigrations } from '../packages/server/src/store/migrate.ts'
import { createTestDatabase } from './support/test-database.ts'

test('what was stored before the database numbered it keeps the order of its ids', async () => {
  await using database = await createTestDatabase({ isEmpty: true })
  const db = openDatabase({ connectionString: database.url }, () => {})
  try {
    const migrations = await readMigrations()
    await migrate(db, migrations.slice(0, 1))
    const one = "'00000000-0000-7000-8000-000000000001'"
    await db.query(`
      insert into teams (id, name, slug) values (${one}, 't', 't');
      insert into conversations (id, team_id) values (${one}, ${one});
      insert into runs (id, team_id, scope, conversation_id, title, prompt, source, execution_location, config, state)
        values (${one}, ${one}, 'team', ${one}, 't', 'p', 'API', 'REMOTE', '{}', 'INPROGRESS');
      insert into executions (id, run_id, number, state, worker_id, token_hash)
        values (${one}, ${one}, 1, 'running', 'w', '\\x01')`)
    const insert = (number: number) =>
      db.query('insert into commands (id, run_id, execution_id, type, payload) values ($1, $2, $2, $3, $4)', [
        `00000000-0000-7000-8000-${String(number).padStart(12, '0')}`,
        '00000000-0000-7000-8000-000000000001',
        String(number),
        {},
      ])
    for (const number of [3, 1, 2]) await insert(number)
    await migrate(db, migrations)
    await insert(0)
    const { rows } = await db.query<{ type: string }>('select type from commands order by position')
    expect(rows.map(({ type }) => type)).toEqual(['1', '2', '3', '0'])
  } finally {
    await db.close()
  }
})
