import { existsSync, readFileSync, realpathSync } from 'node:fs'
import { join } from 'node:path'
import { AppError } from '@openoz/protocol'
import pg from 'pg'
import type { Logger } from 'pino'
import type { ServerOptions } from '../config.ts'
import { superuser } from '../postgres/cluster.ts'
import { createDataDir } from '../postgres/data-dir.ts'
import { lockDataDir } from '../postgres/data-dir-lock.ts'
import { startEmbeddedPostgres } from '../postgres/embedded-postgres.ts'
import { findPostmaster, hasSocket } from '../postgres/postmaster.ts'
import { socketPort } from '../postgres/socket-dir.ts'
import { databaseUnreachable, isDatabaseAway } from '../store/database.ts'

/**
 * The database of an installation, for a program that stands beside its servers. A PostgreSQL of the operator's own is reached by its address. The
 * embedded one is reached by its socket while a server runs it; while none does, it is started for as long as it is needed, under the lock of
 * the data folder.
 */
export interface InstallationDatabase extends AsyncDisposable {
  /** For messages. */
  name: string
  /** The signal cuts the connection: a query that waits for somebody else's lock ends by nothing else. Rejects with its reason. */
  connect(signal?: AbortSignal): Promise<OpenConnection>
}

export interface OpenConnection extends AsyncDisposable {
  client: pg.Client
}

/** Throws `database_missing` where a folder was named in which no server ever was. */
export function requireDatabase({ databaseUrl, dataDir }: ServerOptions): void {
  if (databaseUrl === null && !existsSync(join(dataDir, 'postgres', 'PG_VERSION')))
    throw new AppError('database_missing', { where: dataDir })
}

/** Of a running or a stopped installation; `requireDatabase` has seen it. */
export async function openExistingDatabase(options: ServerOptions, log: Logger): Promise<InstallationDatabase> {
  if (options.databaseUrl !== null) return byAddress(options.databaseUrl)
  const dataDir = realpathSync(options.dataDir)
  const running = findPostmaster(join(dataDir, 'postgres'))
  if (!running || !hasSocket(running)) return startEmbedded(dataDir, log)
  const password = readFileSync(join(dataDir, 'postgres-password'), 'utf8').trim()
  const config = { host: running.socketDir, port: socketPort, user: superuser, password, database: 'openoz' }
  return { name: dataDir, connect: (signal) => connect(config, signal), [Symbol.asyncDispose]: async () => {} }
}

/** The same for a target; a data folder that is not there yet is made. Rejects with `data_dir_locked` while a server uses it. */
export async function openTargetDatabase(options: ServerOptions, log: Logger): Promise<InstallationDatabase> {
  if (options.databaseUrl !== null) return byAddress(options.databaseUrl)
  return startEmbedded(createDataDir(options.dataDir), log)
}

function byAddress(connectionString: string): InstallationDatabase {
  return {
    name: 'the database of DATABASE_URL',
    connect: (signal) => connect({ connectionString }, signal),
    [Symbol.asyncDispose]: async () => {},
  }
}

async function startEmbedded(dataDir: string, log: Logger): Promise<InstallationDatabase> {
  const lock = await lockDataDir(dataDir)
  try {
    const embedded = await startEmbeddedPostgres({ dataDir, log })
    return {
      name: dataDir,
      connect: (signal) => connect(embedded.connection, signal),
      async [Symbol.asyncDispose]() {
        await embedded.stop()
        lock.release()
      },
    }
  } catch (error) {
    lock.release()
    throw error
  }
}

async function connect(config: pg.ClientConfig, signal?: AbortSignal): Promise<OpenConnection> {
  const client = new pg.Client({
    application_name: 'openoz backup',
    connectionTimeoutMillis: 10_000,
    keepAlive: true,
    ...config,
  })
  // Whoever waits for a query hears of a broken connection; unhandled, it would end the process.
  client.on('error', () => {})
  const end = () => client.end().catch(() => {})
  const onAbort = () => void end()
  try {
    await client.connect()
    // Only now: a client that is ended while it connects never says that it did.
    signal?.throwIfAborted()
    signal?.addEventListener('abort', onAbort, { once: true })
    return {
      client,
      [Symbol.asyncDispose]() {
        signal?.removeEventListener('abort', onAbort)
        return end()
      },
    }
  } catch (error) {
    await end()
    signal?.throwIfAborted()
    // node-postgres may put the address into its message, never the password.
    throw isDatabaseAway(error) ? databaseUnreachable(error) : error
  }
}
