/**
 * The embedded PostgreSQL under our own supervision.
 *
 *   starting ──► running ──► stopping ──► stopped
 *                 │   ▲
 *     it died     ▼   │
 *              restarting (back-off 0.1 s to 10 s)
 *
 * `startEmbeddedPostgres` adopts the postmaster of a server that was killed, or starts one. Whoever calls it holds the lock of the
 * data folder (`lockDataDir`). While it is restarted, the pool's users see connection errors and nothing else. Only `stop()` ends
 * it: when this process dies, the database goes on.
 */
import { join } from 'node:path'
import { setTimeout as sleep } from 'node:timers/promises'
import { AppError, messageOf } from '@openoz/protocol'
import pg from 'pg'
import type { Logger } from 'pino'
import { RepeatedFailures } from '../repeated-failures.ts'
import { findPostgresBinaries } from './binaries.ts'
import { openCluster, superuser } from './cluster.ts'
import { createDataDir, dataDirError, diskFull, postgresUser, refuseBarrier } from './data-dir.ts'
import {
  findPostmaster,
  hasSocket,
  logEnd,
  type Postmaster,
  type PostmasterOptions,
  readLog,
  spawnPostmaster,
  stopPostmaster,
  waitUntilGone,
  waitUntilReady,
} from './postmaster.ts'
import { prepareSocketDir, removeShortSocketDir, socketPort } from './socket-dir.ts'
import { explainStartFailure, isLeftoverOfKilled } from './start-failure.ts'

/** As `pg.Pool` takes it. `host` is the folder of the socket. */
export interface PostgresConnection {
  host: string
  port: number
  user: string
  password: string
  database: string
}

export interface EmbeddedPostgres extends AsyncDisposable {
  readonly connection: PostgresConnection
  /** Of the postmaster; another one after a restart. */
  readonly pid: number
  /** It was running already when this process came. */
  readonly adopted: boolean
  /** Why it does not answer: `database_full` where its last start found no room, else `database_down`. */
  whyDown(): AppError
  /** Resolves when no process of it is left, adopted or not. Safe to call twice; never rejects. */
  stop(): Promise<void>
}

export interface EmbeddedPostgresOptions {
  dataDir: string
  log: Pick<Logger, 'info' | 'warn' | 'error'>
  /** Ends a start that is under way. Afterwards only `stop()` does anything. */
  signal?: AbortSignal
}

const database = 'openoz'
const sqlState = { diskFull: '53100', wrongPassword: '28P01', databaseMissing: '3D000' }
const restartDelay = { firstMs: 100, maxMs: 10_000 }
/** It lived this long: the next death is a new story, not the same one going on. */
const healthyAfterMs = 60_000
/** Left-over children of a killed postmaster notice within a second or two; one in the middle of much work needs longer. */
const leftoverPatienceMs = 10_000

/**
 * Throws AppError: `data_dir_not_writable`, `data_dir_foreign_owner`, `disk_full`, `postgres_unsupported_platform`,
 * `postgres_version_mismatch`, `postgres_start_failed`.
 */
export async function startEmbeddedPostgres(options: EmbeddedPostgresOptions): Promise<EmbeddedPostgres> {
  const dataDir = createDataDir(options.dataDir)
  try {
    return await Supervisor.start({ ...options, dataDir })
  } catch (error) {
    throw dataDirError(dataDir, error)
  }
}

class Supervisor implements EmbeddedPostgres {
  readonly connection: PostgresConnection
  readonly adopted: boolean
  readonly #dataDir: string
  readonly #log: EmbeddedPostgresOptions['log']
  readonly #launch: PostmasterOptions
  readonly #notes = new RepeatedFailures()
  readonly #stopping = new AbortController()
  readonly #supervision: Promise<void>
  #postmaster: Postmaster
  /** Of its last start; undefined while it runs. */
  #failure: unknown
  #stopped: Promise<void> | undefined

  static async start({
    dataDir,
    log,
    signal = new AbortController().signal,
  }: EmbeddedPostgresOptions): Promise<Supervisor> {
    const user = postgresUser()
    refuseBarrier(dataDir, user)
    const binaries = await findPostgresBinaries(dataDir, user)
    const startedAt = performance.now()
    const cluster = await openCluster({ dataDir, binaries, user, signal })
    const socketDir = prepareSocketDir(dataDir, user)
    const configFile = join(dataDir, 'postgres.conf')
    const logFile = join(dataDir, 'postgres.log')
    const launch = { program: binaries.postgres, clusterDir: cluster.dir, configFile, socketDir, logFile, user }

    const { postmaster, adopted } = await launchOrAdopt(dataDir, launch, signal)
    try {
      const host = postmaster.socketDir || socketDir
      const connection = { host, port: socketPort, user: superuser, password: cluster.password, database }
      await ensureDatabase(dataDir, connection, cluster.isNew)
      const ms = Math.round(performance.now() - startedAt)
      log.info(
        { pid: postmaster.pid, dataDir, ms, isNew: cluster.isNew },
        adopted ? 'adopted the running PostgreSQL' : 'PostgreSQL is ready',
      )
      return new Supervisor({ dataDir, log, launch: { ...launch, socketDir: host }, postmaster, adopted, connection })
    } catch (error) {
      if (!adopted) await stopPostmaster(postmaster, () => {})
      throw error
    }
  }

  private constructor(parts: {
    dataDir: string
    log: EmbeddedPostgresOptions['log']
    launch: PostmasterOptions
    postmaster: Postmaster
    adopted: boolean
    connection: PostgresConnection
  }) {
    this.connection = parts.connection
    this.adopted = parts.adopted
    this.#dataDir = parts.dataDir
    this.#log = parts.log
    this.#launch = parts.launch
    this.#postmaster = parts.postmaster
    this.#supervision = this.#supervise(this.#stopping.signal)
  }

  get pid(): number {
    return this.#postmaster.pid
  }

  whyDown(): AppError {
    const failure = this.#failure
    if (failure === undefined) return new AppError('database_down', { problem: 'it is being started again' })
    if (!(failure instanceof AppError)) return new AppError('database_down', { problem: messageOf(failure) })
    const { folder, free, problem } = failure.details
    if (failure.code === 'disk_full')
      return new AppError('database_full', { problem: `no space is left in ${folder} (${free} free)` })
    return new AppError('database_down', { problem: withoutStop(String(problem ?? failure.message)) })
  }

  stop(): Promise<void> {
    this.#stopped ??= this.#stop()
    return this.#stopped
  }

  [Symbol.asyncDispose](): Promise<void> {
    return this.stop()
  }

  async #stop(): Promise<void> {
    this.#stopping.abort()
    await this.#supervision
    const { pid } = this.#postmaster
    await stopPostmaster(this.#postmaster, (signal) =>
      this.#log.warn({ pid, signal }, 'PostgreSQL does not stop; sending a stronger signal'),
    )
    removeShortSocketDir(this.#dataDir)
    this.#log.info({ pid }, 'PostgreSQL has stopped')
  }

  async #supervise(signal: AbortSignal): Promise<void> {
    const aborted = new Promise<void>((resolve) => signal.addEventListener('abort', () => resolve(), { once: true }))
    let delayMs = restartDelay.firstMs
    let isUp = true
    let upSince = performance.now()
    while (!signal.aborted) {
      if (isUp) {
        await Promise.race([this.#postmaster.exited, aborted])
        if (signal.aborted) return
        if (performance.now() - upSince > healthyAfterMs) delayMs = restartDelay.firstMs
      }
      if (isUp || this.#notes.isDue('ended'))
        this.#log.error({ pid: this.pid, delayMs }, 'PostgreSQL has ended by itself; starting it again')
      await sleep(delayMs, undefined, { signal }).catch(() => {})
      delayMs = Math.min(delayMs * 2, restartDelay.maxMs)
      if (signal.aborted) return
      isUp = await this.#restart(signal)
      upSince = performance.now()
    }
  }

  async #restart(signal: AbortSignal): Promise<boolean> {
    try {
      const { postmaster } = await launchOrAdopt(this.#dataDir, this.#launch, signal)
      this.#postmaster = postmaster
      this.#failure = undefined
      this.#log.warn({ pid: postmaster.pid }, 'PostgreSQL runs again')
      return true
    } catch (error) {
      if (signal.aborted) return false
      const failure = dataDirError(this.#dataDir, error)
      this.#failure = failure
      const code = failure instanceof AppError ? failure.code : 'unknown'
      // How much is free changes with every look.
      if (this.#notes.isDue(code))
        this.#log.error({ error: messageOf(failure) }, 'PostgreSQL could not be started again; tried until it can be')
      return false
    }
  }
}

/** For a sentence that goes on after it. */
function withoutStop(message: string): string {
  return message.trimEnd().replace(/\.$/, '')
}

/** Leaves nothing running when it throws. */
async function launchOrAdopt(
  dataDir: string,
  launch: PostmasterOptions,
  signal: AbortSignal,
): Promise<{ postmaster: Postmaster; adopted: boolean }> {
  const giveUpAt = performance.now() + leftoverPatienceMs
  for (;;) {
    signal.throwIfAborted()
    const running = findPostmaster(launch.clusterDir)
    if (running) {
      if (await waitUntilReady(launch.clusterDir, running, signal)) {
        // Read again: while it was starting its file did not name the socket's folder yet.
        const postmaster = findPostmaster(launch.clusterDir)
        if (postmaster && hasSocket(postmaster)) return { postmaster, adopted: true }
        await stopPostmaster(running, () => {})
      }
      // It is stopping: the one that we need comes after it.
      await waitUntilGone(running, signal)
      continue
    }
    const offset = logEnd(launch.logFile)
    const postmaster = await spawnPostmaster(launch)
    try {
      if (await waitUntilReady(launch.clusterDir, postmaster, signal)) return { postmaster, adopted: false }
      await waitUntilGone(postmaster, signal)
    } catch (error) {
      await stopPostmaster(postmaster, () => {})
      throw error
    }
    const output = readLog(launch.logFile, offset)
    if (!isLeftoverOfKilled(output) || performance.now() > giveUpAt) {
      throw explainStartFailure(dataDir, output, 'it ended without a word')
    }
    await sleep(200, undefined, { signal })
  }
}

/** Proves that the password fits and makes our database when it is missing (also when a first start was killed before this). */
async function ensureDatabase(dataDir: string, connection: PostgresConnection, isNew: boolean): Promise<void> {
  const create = () => query({ ...connection, database: 'postgres' }, `create database ${database}`)
  try {
    if (isNew) return await create()
    await query(connection, 'select 1').catch((error: { code?: string }) => {
      if (error.code !== sqlState.databaseMissing) throw error
      return create()
    })
  } catch (cause) {
    throw connectError(dataDir, cause)
  }
}

async function query(connection: PostgresConnection, sql: string): Promise<void> {
  const client = new pg.Client({ ...connection, connectionTimeoutMillis: 10_000 })
  // Without a listener a connection that breaks would end this process.
  client.on('error', () => {})
  try {
    await client.connect()
    await client.query(sql)
  } finally {
    await client.end().catch(() => {})
  }
}

function connectError(dataDir: string, cause: unknown): AppError {
  const { code, message } = cause as { code?: string; message: string }
  if (code === sqlState.diskFull) return diskFull(dataDir, cause)
  const problem =
    code === sqlState.wrongPassword
      ? `the password in ${join(dataDir, 'postgres-password')} is not the one it was made with.`
      : `${message}.`
  return new AppError('postgres_start_failed', { dataDir, problem }, { cause })
}
