import { chmodSync } from 'node:fs'
import { join } from 'node:path'
import { type BackupSummary, type RestoreSummary, readServerOptions, restoreBackup, writeBackup } from '@openoz/server'
import pino from 'pino'
import type { ControlPlane } from './control-plane.ts'
import { createTestDatabase, type TestDatabase } from './test-database.ts'

const log = pino({ level: process.env.OZ_TEST_LOG ?? 'silent' })

/** As somebody would be told who backs up or restores with the master key of this control plane. */
export function installationOf(cp: ControlPlane, database: Pick<TestDatabase, 'url'> = cp.database) {
  return readServerOptions(
    { databaseUrl: database.url, dataDir: join(cp.folder, 'beside') },
    { OZ_MASTER_KEY_FILE: masterKeyOf(cp) },
  )
}

export function masterKeyOf(cp: ControlPlane): string {
  return join(cp.folder, 'shared-master.key')
}

let files = 0

export function backUp(cp: ControlPlane, file = join(cp.folder, `${files++}.ozb`)): Promise<BackupSummary> {
  return writeBackup(installationOf(cp), file, { log })
}

export function restore(
  cp: ControlPlane,
  { file, target, requeue = false }: { file: string; target: TestDatabase; requeue?: boolean },
): Promise<RestoreSummary> {
  return restoreBackup(installationOf(cp, target), file, { requeue, keepKey: false }, { log })
}

/** An empty database with what the backup holds. */
export async function restored(cp: ControlPlane, file: string): Promise<TestDatabase> {
  const target = await createTestDatabase({ isEmpty: true })
  try {
    await restore(cp, { file, target })
    return target
  } catch (error) {
    await target[Symbol.asyncDispose]()
    throw error
  }
}

/** Tables of the database that have rows; none where there are no tables. */
export async function filledTables(database: TestDatabase): Promise<string[]> {
  const tables = await database.query<{ name: string }>(
    `select relname::text as name from pg_class where relnamespace = 'public'::regnamespace and relkind = 'r' order by 1`,
  )
  const filled: string[] = []
  for (const { name } of tables)
    if ((await database.query(`select from "${name}" limit 1`)).length > 0) filled.push(name)
  return filled
}

/** Others may pass, as the database of root runs as another user. */
export function letPass(folder: string): string {
  chmodSync(folder, 0o711)
  return folder
}
