/**
 * A restore reads the whole file first; only when it has proved to be whole and ours does it look at the target, and what it then does there is one
 * transaction:
 *
 *   migrations up to those of the backup → rows, table by table → positions of sequences → later migrations → runs that were at work are ended
 *
 * So a restore that fails or is killed leaves a target as empty as it was.
 */
import { rm } from 'node:fs/promises'
import { Readable } from 'node:stream'
import { pipeline } from 'node:stream/promises'
import { AppError } from '@openoz/protocol'
import type pg from 'pg'
import { from as copyFrom } from 'pg-copy-streams'
import type { ServerOptions } from '../config.ts'
import { createDataDir } from '../postgres/data-dir.ts'
import { insertAuditEvent } from '../store/audit-events.ts'
import { type Database, databaseUnreachable, isDatabaseAway, type Tx } from '../store/database.ts'
import { type Migration, migrate, readMigrations } from '../store/migrate.ts'
import { incomplete, type OpenedBackup, openBackup } from './backup-file.ts'
import { listSequences, listTables, quoted, type Table } from './catalogue.ts'
import { openTargetDatabase } from './database-connection.ts'
import { endRestoredRuns, type RestoredRuns } from './end-restored-runs.ts'
import {
  type InstallationKey,
  masterKeyIn,
  placeMasterKey,
  readInstallationKey,
  refuseOtherKey,
} from './installation-key.ts'
import { type BackupRecord, type Manifest, readRecords, type SequencePosition } from './records.ts'
import type { BackupDeps } from './write-backup.ts'

export interface RestoreWishes {
  /** Runs that were at work go on, instead of ending. Only where it is certain that the old machine does not go on with them as well. */
  requeue: boolean
  /** The master key is put into the target's data folder, where the next start looks for it. */
  keepKey: boolean
}

export interface RestoreSummary {
  file: string
  /** Where to. */
  target: string
  madeAt: string
  schema: { from: number; to: number }
  tables: Record<string, number>
  /** Tables of the backup that no migration makes: somebody else's, in a database that was shared. */
  skippedTables: string[]
  runs: RestoredRuns
}

/**
 * Rejects with `backup_unreadable`, `backup_incomplete`, `backup_wrong_key`, `backup_too_new`, `migration_changed`, `master_key_mismatch`,
 * `restore_not_empty`, `restore_failed`, `data_dir_locked`, `database_unreachable`, or what is wrong with the master key's file or the target.
 */
export async function restoreBackup(
  options: ServerOptions,
  file: string,
  wishes: RestoreWishes,
  deps: BackupDeps,
): Promise<RestoreSummary> {
  const key = await readInstallationKey(options)
  await using backup = await openBackup(file, key)
  const migrations = await readMigrations()
  const manifest = await verify(file, backup, migrations, deps)
  const hadKey = wishes.keepKey && (await refuseOtherKey(options, key))

  await using target = await openTargetDatabase(options, deps.log)
  await using connection = await target.connect(deps.signal)
  const { client } = connection
  try {
    await client.query('begin; set local statement_timeout = 0; set local idle_in_transaction_session_timeout = 0')
    const restored = await restoreInto(client, { options, file, backup, key, manifest, migrations, wishes, deps })
    await client.query('commit').catch(async (error: pg.DatabaseError) => {
      // Only where the database itself says that it failed: of a commit whose answer was lost nobody knows, and its data would need the key.
      if (error.severity === 'ERROR' && wishes.keepKey && !hadKey)
        await rm(masterKeyIn(options.dataDir), { force: true })
      throw error
    })
    // Else the first minutes are planned as if everything were empty.
    await client.query('analyze')
    return { file, target: target.name, ...restored }
  } catch (error) {
    deps.signal?.throwIfAborted()
    throw restoreError(file, error)
  }
}

/** Reads everything. What it answers may be believed. */
async function verify(
  file: string,
  backup: OpenedBackup,
  migrations: Migration[],
  { signal, onProgress }: BackupDeps,
): Promise<Manifest> {
  const { head, bytes: totalBytes } = backup
  const known = migrations.at(-1)?.version ?? 0
  if (head.schema > known)
    throw new AppError('backup_too_new', { file, version: head.version, what: `schema version ${head.schema}`, known })
  let manifest: Manifest | undefined
  const onRead = (bytes: number) => {
    signal?.throwIfAborted()
    onProgress?.({ step: 'verify', bytes, totalBytes })
  }
  for await (const record of readRecords(file, backup, onRead))
    if (record.kind === 'manifest') manifest = record.manifest
  if (!manifest) throw incomplete(file, 'it does not say what it holds')
  for (const { version, hash } of manifest.migrations)
    if (migrations.find((migration) => migration.version === version)?.hash !== hash)
      throw new AppError('migration_changed', { version })
  return manifest
}

interface Restore {
  options: ServerOptions
  file: string
  backup: OpenedBackup
  key: InstallationKey
  manifest: Manifest
  migrations: Migration[]
  wishes: RestoreWishes
  deps: BackupDeps
}

async function restoreInto(client: pg.Client, restore: Restore): Promise<Omit<RestoreSummary, 'file' | 'target'>> {
  const { options, key, backup, manifest, migrations, wishes } = restore
  const { made_at: madeAt, schema } = backup.head
  const tx: Tx = { isTransaction: true, query: (text, values) => client.query(text, values) }
  await refuseFilled(tx, schema, manifest.tables)
  const db = asDatabase(tx)
  await migrate(
    db,
    migrations.filter(({ version }) => version <= schema),
  )
  const { tables, skippedTables } = await copyTables(client, tx, restore)
  const { to } = await migrate(db, migrations)
  const runs = await endRestoredRuns(tx, { madeAt, requeue: wishes.requeue })
  await insertAuditEvent(tx, {
    teamId: null,
    actor: 'system',
    action: 'installation.restore',
    target: `installation:${manifest.installation_id}`,
    data: { made_at: madeAt, runs },
  })
  // Before the commit: data without its key would be given another one by the next start.
  if (wishes.keepKey) await placeMasterKey(key, createDataDir(options.dataDir))
  return { madeAt, schema: { from: schema, to }, tables, skippedTables, runs }
}

/** Tables without a row are as good as none: a server that was stopped in its first second leaves them. */
async function refuseFilled(tx: Tx, schema: number, tables: Table[]): Promise<void> {
  const { rows: found } = await tx.query<{ version: number | null }>(
    `select case when to_regclass('schema_migrations') is null then 0 end as version`,
  )
  const { rows: applied } =
    found[0]?.version === 0
      ? { rows: [] }
      : await tx.query<{ version: number | null }>('select max(version) as version from schema_migrations')
  const version = applied[0]?.version ?? 0
  if (version > schema)
    throw new AppError('restore_not_empty', {
      problem: `it has schema version ${version} already, and the backup ${schema}`,
    })
  const { rows: existing } = await tx.query<{ name: string }>(
    `select name from unnest($1::text[]) name where to_regclass(quote_ident(name)) is not null`,
    [tables.map(({ name }) => name)],
  )
  for (const { name } of existing) {
    const { rows } = await tx.query<{ found: boolean }>(`select exists (select from ${quoted(name)}) as found`)
    if (rows[0]?.found) throw new AppError('restore_not_empty', { problem: `its table ${name} has rows` })
  }
}

/** Migrations in the transaction that is open, so that what they make is gone with it. */
function asDatabase(tx: Tx): Database {
  const none = () => Promise.reject(new Error('a restore has one connection'))
  return { query: tx.query, transaction: (work) => work(tx), connectAlone: none, close: none }
}

async function copyTables(
  client: pg.Client,
  tx: Tx,
  { file, backup, manifest, deps }: Restore,
): Promise<Pick<RestoreSummary, 'tables' | 'skippedTables'>> {
  const ours = new Set((await listTables(tx)).map(({ name }) => name))
  const tables: Record<string, number> = {}
  const skippedTables: string[] = []
  // With the tables in order nothing has to be deferred; and later migrations may not change a table of which something still has to be checked.
  await tx.query('set constraints all immediate')
  let current: string | undefined
  const onRead = (bytes: number) =>
    deps.onProgress?.({ step: 'restore', bytes, totalBytes: backup.bytes, ...(current ? { table: current } : {}) })
  const records = readRecords(file, backup, onRead)
  try {
    for (let next = await records.next(); !next.done; next = await records.next()) {
      const record = next.value
      if (record.kind === 'end') await setSequences(tx, record.sequences)
      if (record.kind !== 'table') continue
      current = record.name
      const table = manifest.tables.find(({ name }) => name === record.name)
      const isOurs = table !== undefined && ours.has(table.name)
      const rows = isOurs ? await copyRows(client, table, records) : await skipRows(records)
      if (rows.written !== rows.expected)
        throw incomplete(file, `of ${rows.expected} rows of ${record.name} ${rows.written} arrived`)
      if (isOurs) tables[record.name] = rows.written
      else skippedTables.push(record.name)
    }
  } finally {
    await records.return(undefined)
  }
  return { tables, skippedTables }
}

interface CopiedRows {
  written: number
  expected: number
}

async function copyRows(client: pg.Client, table: Table, records: AsyncGenerator<BackupRecord>): Promise<CopiedRows> {
  let expected = 0
  async function* rowsOf(): AsyncGenerator<Buffer> {
    for (let next = await records.next(); !next.done; next = await records.next()) {
      if (next.value.kind === 'rows') yield next.value.bytes
      else {
        if (next.value.kind === 'tableEnd') expected = next.value.rows
        return
      }
    }
  }
  const copy = client.query(
    copyFrom(`copy ${quoted(table.name)} (${table.columns.map(quoted).join(', ')}) from stdin (format binary)`),
  )
  await pipeline(Readable.from(rowsOf(), { objectMode: false }), copy)
  return { written: copy.rowCount, expected }
}

async function skipRows(records: AsyncGenerator<BackupRecord>): Promise<CopiedRows> {
  for (let next = await records.next(); !next.done; next = await records.next())
    if (next.value.kind === 'tableEnd') return { written: next.value.rows, expected: next.value.rows }
  return { written: 0, expected: 0 }
}

async function setSequences(tx: Tx, positions: SequencePosition[]): Promise<void> {
  const ours = new Set((await listSequences(tx)).map(({ name }) => name))
  for (const { name, last_value, is_called } of positions)
    if (ours.has(name))
      await tx.query('select setval(quote_ident($1)::regclass, $2, $3)', [name, last_value, is_called])
}

function restoreError(file: string, error: unknown): unknown {
  if (error instanceof AppError) return error
  if (isDatabaseAway(error)) return databaseUnreachable(error)
  return new AppError('restore_failed', { file, problem: (error as Error).message }, { cause: error })
}
