import { createHash } from 'node:crypto'
import { readdir, readFile } from 'node:fs/promises'
import { AppError } from '@openoz/protocol'
import type { Database } from './database.ts'

/**
 * Brings the schema up to date, once, however many servers start at the same time: one of them holds the advisory lock, the others wait and
 * then find nothing to do. All missing migrations are one transaction. A database that is newer than this program is refused, and so is one
 * whose migrations are not ours.
 */

/** An arbitrary constant: what two servers of one database agree upon. */
export const migrationLock = 4_747_001

const oldestPostgres = 150_000

export interface Migration {
  version: number
  name: string
  sql: string
  hash: string
}

export async function readMigrations(folder: URL = new URL('./migrations/', import.meta.url)): Promise<Migration[]> {
  const names = (await readdir(folder)).filter((name) => name.endsWith('.sql')).sort()
  return Promise.all(
    names.map(async (name) => {
      const sql = await readFile(new URL(name, folder), 'utf8')
      return { version: Number(name.slice(0, 4)), name, sql, hash: createHash('sha256').update(sql).digest('hex') }
    }),
  )
}

/** Whether somebody else has brought the schema up to date. Rejects with `database_too_new`. */
export async function isMigrated(db: Database, migrations: Migration[]): Promise<boolean> {
  const known = migrations.at(-1)?.version ?? 0
  const { rows: tables } = await db.query<{ found: boolean }>(
    `select to_regclass('schema_migrations') is not null as found`,
  )
  if (!tables[0]?.found) return false
  const { rows } = await db.query<{ version: number | null }>('select max(version) as version from schema_migrations')
  const found = rows[0]?.version ?? 0
  if (found > known) throw new AppError('database_too_new', { found, known })
  return found === known
}

export async function migrate(db: Database, migrations: Migration[]): Promise<{ from: number; to: number }> {
  const known = migrations.at(-1)?.version ?? 0
  return db.transaction(async (tx) => {
    const { rows: versionRows } = await tx.query<{ server_version_num: string; server_version: string }>(
      `select current_setting('server_version_num') as server_version_num, current_setting('server_version') as server_version`,
    )
    if (Number(versionRows[0]?.server_version_num) < oldestPostgres)
      throw new AppError('database_too_old', { found: versionRows[0]?.server_version, needed: oldestPostgres / 10_000 })

    await tx.query('select pg_advisory_xact_lock($1)', [migrationLock])
    await tx.query(`create table if not exists schema_migrations (
      version integer primary key, name text not null, hash text not null, applied_at timestamptz not null default now())`)
    const { rows: applied } = await tx.query<{ version: number; hash: string }>(
      'select version, hash from schema_migrations order by version',
    )

    const from = applied.at(-1)?.version ?? 0
    if (from > known) throw new AppError('database_too_new', { found: from, known })
    for (const { version, hash } of applied)
      if (migrations.find((migration) => migration.version === version)?.hash !== hash)
        throw new AppError('migration_changed', { version })

    for (const migration of migrations.filter(({ version }) => version > from)) {
      await tx.query(migration.sql)
      await tx.query('insert into schema_migrations (version, name, hash) values ($1, $2, $3)', [
        migration.version,
        migration.name,
        migration.hash,
      ])
    }
    return { from, to: known }
  })
}
