/**
 * A backup is one transaction's view of the database (`repeatable read`), read table by table, so servers go on writing meanwhile: everything that
 * was acknowledged before the view began is in it, and nothing of what came later. The only thing that waits is a migration.
 *
 * The file has its name only when it is whole and on disk; until then it is `FILE.….partial`.
 */
import { randomBytes } from 'node:crypto'
import { createWriteStream } from 'node:fs'
import { rename, rm, stat } from 'node:fs/promises'
import { basename, dirname } from 'node:path'
import { Readable } from 'node:stream'
import { pipeline } from 'node:stream/promises'
import { createGzip } from 'node:zlib'
import { AppError } from '@openoz/protocol'
import type pg from 'pg'
import { to as copyTo } from 'pg-copy-streams'
import type { Logger } from 'pino'
import type { ServerOptions } from '../config.ts'
import { diskFull } from '../postgres/data-dir.ts'
import { findInstallation } from '../store/control-plane.ts'
import { databaseUnreachable, isDatabaseAway, isNotMigrated } from '../store/database.ts'
import { migrationLock, readMigrations } from '../store/migrate.ts'
import { syncFolder } from '../sync-folder.ts'
import { version } from '../version.ts'
import { sealBackup } from './backup-file.ts'
import { listSequences, listTables, quoted } from './catalogue.ts'
import { openExistingDatabase, requireDatabase } from './database-connection.ts'
import { type InstallationKey, readInstallationKey } from './installation-key.ts'
import { encodeRecord, type Manifest } from './records.ts'

export interface BackupSummary {
  file: string
  bytes: number
  /** RFC 3339, by the database's clock. */
  madeAt: string
  schema: number
  /** Rows of each table. */
  tables: Record<string, number>
}

/** How far it is. `bytes` counts from the beginning: of a backup what was read from the database, of a restore what was read from the file. */
export interface TransferProgress {
  step: 'write' | 'verify' | 'restore'
  bytes: number
  /** Of the whole; of a backup nobody knows before its end. */
  totalBytes?: number
  table?: string
}

export interface BackupDeps {
  log: Logger
  /** Ends it; nothing is left behind. */
  signal?: AbortSignal
  onProgress?: (progress: TransferProgress) => void
}

/**
 * Rejects with `backup_file_exists`, `backup_not_writable`, `disk_full`, `database_missing`, `database_unreachable`, `database_too_new`,
 * `master_key_mismatch`, or what is wrong with the master key's file.
 */
export async function writeBackup(options: ServerOptions, file: string, deps: BackupDeps): Promise<BackupSummary> {
  requireDatabase(options)
  await refuseExisting(file)
  const key = await readInstallationKey(options)
  await using database = await openExistingDatabase(options, deps.log)
  try {
    await using guard = await database.connect(deps.signal)
    await using client = await database.connect(deps.signal)
    await keepMigrationsOut(guard.client)
    const snapshot = await beginSnapshot(client.client, key, database.name)
    return await writeFileOf(client.client, { snapshot, key, file, ...deps })
  } catch (error) {
    deps.signal?.throwIfAborted()
    throw isDatabaseAway(error) && !(error instanceof AppError) ? databaseUnreachable(error) : error
  }
}

async function refuseExisting(file: string): Promise<void> {
  const isThere = await stat(file).then(
    () => true,
    () => false,
  )
  if (isThere) throw new AppError('backup_file_exists', { file })
}

/**
 * On a connection of its own: waiting for a migration that is under way must be over before the view begins, and in one transaction the wait itself
 * would begin it. As a lock of the migrations and not of tables: a migration that waited for a table would keep everybody else from it.
 */
async function keepMigrationsOut(guard: pg.Client): Promise<void> {
  await guard.query('begin; set local idle_in_transaction_session_timeout = 0')
  await guard.query('select pg_advisory_xact_lock_shared($1)', [migrationLock])
}

interface Snapshot {
  madeAt: string
  schema: number
  manifest: Manifest
}

async function beginSnapshot(client: pg.Client, key: InstallationKey, where: string): Promise<Snapshot> {
  await client.query(
    'begin isolation level repeatable read read only; set local statement_timeout = 0; set local idle_in_transaction_session_timeout = 0',
  )
  try {
    const { rows: migrations } = await client.query<Manifest['migrations'][number]>(
      'select version, name, hash from schema_migrations order by version',
    )
    const schema = migrations.at(-1)?.version ?? 0
    const known = (await readMigrations()).at(-1)?.version ?? 0
    if (schema > known) throw new AppError('database_too_new', { found: schema, known })
    const installation = await findInstallation(client)
    if (!installation) throw new AppError('database_missing', { where })
    if (!installation.masterKeyCheck.equals(key.check)) throw new AppError('master_key_mismatch', { file: key.file })
    const { rows } = await client.query<{ now: Date; postgres: string }>(
      `select db_now() as now, current_setting('server_version') as postgres`,
    )
    const { now, postgres } = rows[0] as { now: Date; postgres: string }
    const tables = await listTables(client)
    return {
      madeAt: now.toISOString(),
      schema,
      manifest: { installation_id: installation.id, postgres, migrations, tables },
    }
  } catch (error) {
    throw isNotMigrated(error) ? new AppError('database_missing', { where }, { cause: error }) : error
  }
}

async function writeFileOf(
  client: pg.Client,
  { snapshot, key, file, ...deps }: { snapshot: Snapshot; key: InstallationKey; file: string } & BackupDeps,
): Promise<BackupSummary> {
  const { madeAt, schema } = snapshot
  const tables: Record<string, number> = {}
  const { seal } = sealBackup({ made_at: madeAt, version, schema }, key.masterKey)
  const draft = `${file}.${randomBytes(6).toString('hex')}.partial`
  const output = createWriteStream(draft, { flags: 'wx', mode: 0o600, flush: true })
  try {
    await pipeline(
      Readable.from(recordsOf(client, snapshot.manifest, tables, deps.onProgress), { objectMode: false }),
      // Half of a database are rows that shrink to a fifth, the other half bundles that do not shrink at any level.
      createGzip({ level: 1 }),
      seal,
      output,
      deps.signal ? { signal: deps.signal } : {},
    )
    await refuseExisting(file)
    await rename(draft, file)
    await syncFolder(dirname(file))
  } catch (error) {
    await rm(draft, { force: true })
    throw writingError(file, error)
  }
  return { file, bytes: output.bytesWritten, madeAt, schema, tables }
}

async function* recordsOf(
  client: pg.Client,
  manifest: Manifest,
  counts: Record<string, number>,
  onProgress: BackupDeps['onProgress'],
): AsyncGenerator<Buffer> {
  let bytes = 0
  yield encodeRecord({ kind: 'manifest', manifest })
  for (const { name, columns } of manifest.tables) {
    yield encodeRecord({ kind: 'table', name })
    const rows = client.query(
      copyTo(`copy (select ${columns.map(quoted).join(', ')} from ${quoted(name)}) to stdout (format binary)`),
    )
    for await (const chunk of rows as AsyncIterable<Buffer>) {
      bytes += chunk.length
      onProgress?.({ step: 'write', bytes, table: name })
      yield encodeRecord({ kind: 'rows', bytes: chunk })
    }
    // The count comes after the last row; by the next answer it is there.
    await client.query('select')
    counts[name] = rows.rowCount
    yield encodeRecord({ kind: 'tableEnd', rows: rows.rowCount })
  }
  yield encodeRecord({ kind: 'end', sequences: await listSequences(client) })
}

function writingError(file: string, error: unknown): unknown {
  const { code, syscall } = error as NodeJS.ErrnoException
  if (error instanceof AppError || syscall === undefined) return error
  if (code === 'ENOSPC' || code === 'EDQUOT') {
    const { details } = diskFull(dirname(file))
    return new AppError('disk_full', { ...details, what: `the backup ${basename(file)}` }, { cause: error })
  }
  if (isDatabaseAway(error) && code !== 'ENOENT') return error
  return new AppError('backup_not_writable', { file, problem: (error as Error).message }, { cause: error })
}
