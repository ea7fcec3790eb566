import type { TestProject } from 'vitest/node'
import { startEmbeddedPostgres } from '../../packages/server/src/postgres/embedded-postgres.ts'
import { scratchFolder } from '../../packages/server/src/postgres/testing/scratch-folder.ts'
import { provideDatabaseServer } from './database-server.ts'

const log = { info() {}, warn() {}, error: console.error }

/** The PostgreSQL that the product brings, once for all tests of a run. */
export async function setup(project: TestProject): Promise<() => Promise<void>> {
  const folder = scratchFolder()
  const postgres = await startEmbeddedPostgres({ dataDir: folder.path, log })
  const { host, port, user, password } = postgres.connection
  await provideDatabaseServer(project, { host, port, user, password })
  return async () => {
    await postgres.stop()
    folder[Symbol.dispose]()
  }
}
