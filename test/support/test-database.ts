import { randomUUID } from 'node:crypto'
import pg from 'pg'
import { inject } from 'vitest'
import { templateDatabase } from './database-server.ts'

/** A migrated database of its own for one test. */
export interface TestDatabase extends AsyncDisposable {
  /** As `DATABASE_URL`. */
  url: string
  /** For what no front door shows. */
  query<Row extends pg.QueryResultRow>(text: string, values?: unknown[]): Promise<Row[]>
  /**
   * Lets time pass on the database's clock. `whileAway` says that no control plane was alive meanwhile; otherwise it was, and so were the workers
   * that are connected.
   */
  advanceClock(time: { seconds: number; whileAway?: boolean }): Promise<void>
}

export async function createTestDatabase(options: { isEmpty?: boolean } = {}): Promise<TestDatabase> {
  const server = inject('databaseServer')
  if (!server) throw new Error('there is no PostgreSQL for this test')
  const name = `test_${randomUUID().replaceAll('-', '')}`
  const admin = async (text: string) => {
    const client = new pg.Client({ ...server, database: 'postgres' })
    await client.connect()
    await client.query(text).finally(() => client.end())
  }
  await admin(`create database ${name} template ${options.isEmpty ? 'template0' : templateDatabase}`)
  const pool = new pg.Pool({ ...server, database: name, max: 2 })
  pool.on('error', () => {})
  let offsetSeconds = 0
  return {
    url: `postgresql://${server.user}:${server.password}@${encodeURIComponent(server.host)}:${server.port}/${name}`,
    async query<Row extends pg.QueryResultRow>(text: string, values?: unknown[]) {
      return (await pool.query<Row>(text, values)).rows
    },
    async advanceClock({ seconds, whileAway = false }) {
      offsetSeconds += seconds
      const aliveMeanwhile = `
        update control_plane_heartbeat set beat_at = beat_at + interval '${seconds} seconds';
        update worker_connections set last_seen_at = last_seen_at + interval '${seconds} seconds';
        update worker_channels set last_seen_at = last_seen_at + interval '${seconds} seconds';
        update executions set lease_renewed_at = lease_renewed_at + interval '${seconds} seconds'
         where lease_holder = 'worker' and exists (select from worker_connections where id = worker_connection_id);`
      // Locked first: a statement that was planned with the old clock must not write an old time after the jump.
      await untilDone(
        pool,
        `lock table worker_connections, worker_channels, executions, control_plane_heartbeat in access exclusive mode;
        create or replace function db_now() returns timestamptz language sql volatile
          as $$select clock_timestamp() + interval '${offsetSeconds} seconds'$$;
        ${whileAway ? '' : aliveMeanwhile}`,
      )
    },
    async [Symbol.asyncDispose]() {
      await pool.end()
      await admin(`drop database if exists ${name} with (force)`)
    },
  }
}

/** As one transaction, again when it and a server waited for each other. */
async function untilDone(pool: pg.Pool, statements: string): Promise<void> {
  for (;;) {
    try {
      // Statements that are sent together without a `begin` are one transaction.
      await pool.query(statements)
      return
    } catch (error) {
      if ((error as pg.DatabaseError).code !== '40P01') throw error
    }
  }
}
