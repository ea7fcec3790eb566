import { join } from 'node:path'
import { AppError } from '@openoz/protocol'
import type pg from 'pg'
import type { Logger } from 'pino'
import { v7 as uuidv7 } from 'uuid'
import { type AgentBundles, createAgentArchives } from './agent-archives.ts'
import type { ServerOptions } from './config.ts'
import { bootstrap } from './domain/bootstrap.ts'
import type { Ctx } from './domain/context.ts'
import { createHints } from './hints.ts'
import { createApp } from './http/app.ts'
import { closeHttp, FrontDoor, listen, listenMetrics } from './http/front-door.ts'
import { createServerMetrics, type ServerMetrics } from './http/metrics.ts'
import { openServerKeys } from './keys.ts'
import { type Dispatcher, startDispatcher } from './loops/dispatcher.ts'
import { startHousekeeping } from './loops/housekeeping.ts'
import { createModelGateway } from './model-gateway.ts'
import { createDataDir } from './postgres/data-dir.ts'
import { lockDataDir } from './postgres/data-dir-lock.ts'
import { startEmbeddedPostgres } from './postgres/embedded-postgres.ts'
import { createSigning } from './signing.ts'
import { createWorkerSockets } from './sockets/worker-socket.ts'
import {
  type Database,
  type DatabaseOptions,
  databaseUnreachable,
  isDatabaseAway,
  openDatabase,
  unpreparedNotice,
  whyUnreachable,
} from './store/database.ts'
import { migrate, readMigrations } from './store/migrate.ts'
import { version } from './version.ts'

/**
 * The control plane as one process: lock the data folder → listen (so that `/healthz` answers) → database → migrations → first start → ready.
 * Stopping goes the other way: no new offers, sockets closed with a reason, streams ended, loops ended, database closed. What runs on workers
 * goes on and is picked up by the next start.
 */
export interface RunningServer {
  /** Address to reach it at, e.g. `http://127.0.0.1:4747`. */
  url: string
  pid: number
  dataDir: string
  adminApiKeyFile: string
  /** Stops in order; safe to call twice. */
  stop(): Promise<void>
  /** Resolves when it has stopped. */
  stopped: Promise<void>
}

/** `useNotify: false` is for tests: what arrives then arrives by looking. */
interface ServerDeps {
  log: Logger
  /** What machines are installed with. Default: there is nothing to install. */
  bundles?: AgentBundles
  useNotify?: boolean
}

export async function startServer(options: ServerOptions, deps: ServerDeps): Promise<RunningServer> {
  const { log } = deps
  const closers: (() => Promise<void> | void)[] = []
  const closeAll = async () => {
    for (const close of closers.splice(0).reverse()) {
      try {
        await close()
      } catch (error) {
        log.warn({ error }, 'a part of the server did not stop cleanly')
      }
    }
  }
  try {
    return await start(options, deps, closers, closeAll)
  } catch (error) {
    await closeAll()
    throw error
  }
}

async function start(
  options: ServerOptions,
  { log, useNotify = true, bundles = noBundles }: ServerDeps,
  closers: (() => Promise<void> | void)[],
  closeAll: () => Promise<void>,
): Promise<RunningServer> {
  const dataDir = createDataDir(options.dataDir)
  const lock = await lockDataDir(dataDir)
  closers.push(() => lock.release())
  const keys = await openServerKeys({ ...options, dataDir })

  const frontDoor = new FrontDoor(log)
  const http = await listen(options, frontDoor, log)
  closers.push(() => closeHttp(http.server))
  const publicUrl = options.publicUrl ?? http.url

  const db = await openMigratedDatabase({ ...options, dataDir }, log, closers)
  await bootstrap(db, keys)

  const serverId = uuidv7()
  const hints = createHints({ serverId, log, useNotify })
  const gateway = createModelGateway(options, { db, hints, log })
  const ctx: Ctx = {
    db,
    log,
    hints,
    config: options,
    serverId,
    publicUrl,
    signing: createSigning(keys.signingKey),
    models: { resolve: async (modelId) => (await gateway.catalog.resolve(modelId)).access },
  }

  const stopping = new AbortController()
  // The two need each other: sockets give slots, and a slot that becomes free wakes the dispatcher.
  const wake: { dispatcher: Dispatcher['wake'] } = { dispatcher: () => {} }
  const sockets = createWorkerSockets(ctx, (worker) => wake.dispatcher(worker), stopping.signal)
  const dispatcher = startDispatcher(ctx, () => sockets.slots(), stopping.signal)
  wake.dispatcher = dispatcher.wake
  const loops = [dispatcher, ...sockets.loops, ...startHousekeeping(ctx, stopping.signal)]
  const hintsEnded = hints.run(db, stopping.signal)

  let metrics: Promise<ServerMetrics> | undefined
  const loadMetrics = () => {
    metrics ??= createServerMetrics({
      version,
      gateway,
      controlPlane: { db, workerConnections: () => sockets.count() },
    })
    return metrics
  }
  frontDoor.whyNotReady = () => whyUnreachable(db)
  frontDoor.metrics = async () => (await loadMetrics()).render()
  const archives = createAgentArchives({ bundles, folder: join(dataDir, 'install') })
  frontDoor.app = createApp(ctx, { catalog: gateway.catalog, version, stopping: stopping.signal, sockets, archives })
  frontDoor.gateway = gateway.handle
  frontDoor.upgrade = sockets.upgrade

  closers.push(async () => {
    frontDoor.isDraining = true
    await sockets.close()
    stopping.abort()
    await Promise.all([...loops.map((loop) => loop.ended), hintsEnded])
    // Before the database: what is being answered still needs it.
    await closeHttp(http.server)
    await gateway.close()
    await (await metrics)?.shutdown()
  })
  if (options.metricsListen) {
    const own = await listenMetrics(options.metricsListen, frontDoor)
    closers.push(() => closeHttp(own))
  }

  const stopped = Promise.withResolvers<void>()
  let stop: Promise<void> | undefined
  log.info({ url: http.url, dataDir, version }, 'server ready')
  return {
    url: http.url,
    pid: process.pid,
    dataDir,
    adminApiKeyFile: keys.adminApiKeyFile,
    stopped: stopped.promise,
    stop() {
      stop ??= closeAll().then(() => stopped.resolve())
      return stop
    },
  }
}

const noBundles: AgentBundles = {
  find: (platform) => Promise.reject(new AppError('agent_bundle_missing', { platform, places: 'nowhere' })),
}

async function openMigratedDatabase(
  options: ServerOptions,
  log: Logger,
  closers: (() => Promise<void> | void)[],
): Promise<Database> {
  let config: pg.PoolConfig
  let whyAway: DatabaseOptions['whyAway']
  if (options.databaseUrl === null) {
    const embedded = await startEmbeddedPostgres({ dataDir: options.dataDir, log })
    closers.push(() => embedded.stop())
    config = embedded.connection
    whyAway = () => embedded.whyDown()
  } else config = { connectionString: options.databaseUrl }

  const db = openDatabase(config, (error) => log.warn({ error: error.message }, 'a database connection was lost'), {
    onUnprepared: (error) => log.warn({ error: error.message }, unpreparedNotice),
    ...(whyAway && { whyAway }),
  })
  closers.push(() => db.close())
  try {
    const { from, to } = await migrate(db, await readMigrations())
    if (from !== to) log.info({ from, to }, 'database migrated')
  } catch (error) {
    // node-postgres may put the address into its message, never the password.
    throw isDatabaseAway(error) ? databaseUnreachable(error) : error
  }
  return db
}
