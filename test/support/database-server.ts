import pg from 'pg'
import type { TestProject } from 'vitest/node'
import { openDatabase } from '../../packages/server/src/store/database.ts'
import { migrate, readMigrations } from '../../packages/server/src/store/migrate.ts'

/** A PostgreSQL for one run of tests, reached by a socket in its folder. */
export interface DatabaseServer {
  host: string
  port: number
  user: string
  password: string
}

declare module 'vitest' {
  interface ProvidedContext {
    /** null: there is none on this machine; its tests are skipped, visibly. */
    databaseServer: DatabaseServer | null
  }
}

/** Databases of tests are copies of this one: migrated once, connected to by nobody. */
export const templateDatabase = 'openoz_template'

/** Makes the template and tells the tests where the server is. */
export async function provideDatabaseServer(project: TestProject, server: DatabaseServer): Promise<void> {
  const client = new pg.Client({ ...server, database: 'postgres' })
  await client.connect()
  // Nothing of a test has to outlive a power cut.
  await client.query('alter system set fsync = off')
  await client.query('alter system set synchronous_commit = on')
  await client.query('select pg_reload_conf()')
  await client.query(`create database ${templateDatabase}`)
  await client.end()
  const template = openDatabase({ ...server, database: templateDatabase }, () => {})
  await migrate(template, await readMigrations())
  await template.close()
  project.provide('databaseServer', server)
}
