import { once } from 'node:events'
import { readFile } from 'node:fs/promises'
import { createServer as createHttpServer, type IncomingMessage, type Server } from 'node:http'
import { createServer as createHttpsServer } from 'node:https'
import type { AddressInfo } from 'node:net'
import { getRequestListener } from '@hono/node-server'
import { AppError, workerSocketPath } from '@openoz/protocol'
import { Hono } from 'hono'
import type pg from 'pg'
import type { Logger } from 'pino'
import { v7 as uuidv7 } from 'uuid'
import type { ServerOptions } from './config.ts'
import { authenticate } from './domain/actors.ts'
import { bootstrap } from './domain/bootstrap.ts'
import type { Ctx } from './domain/context.ts'
import { assertMay } from './domain/permissions.ts'
import { createHints } from './hints.ts'
import { createApp } from './http/app.ts'
import { createServerMetrics, type ServerMetrics } from './http/metrics.ts'
import { openServerKeys } from './keys.ts'
import { createModelCatalog } from './llm/catalog.ts'
import { createProviderConnections } from './llm/connections.ts'
import { createGateway } from './llm/gateway.ts'
import { findProviders } from './llm/providers.ts'
import { startDispatcher } from './loops/dispatcher.ts'
import { startHousekeeping } from './loops/housekeeping.ts'
import { createDataDir } from './postgres/data-dir.ts'
import { lockDataDir } from './postgres/data-dir-lock.ts'
import { startEmbeddedPostgres } from './postgres/embedded-postgres.ts'
import { createWorkerSockets } from './sockets/worker-socket.ts'
import { type Database, isDatabaseAway, openDatabase } from './store/database.ts'
import { migrate, readMigrations } from './store/migrate.ts'
import { insertModelUsage } from './store/model-usage.ts'
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

/** How long requests at work may take to end when the server stops. */
const drainMs = 5_000

export async function startServer(options: ServerOptions, deps: { log: Logger }): Promise<RunningServer> {
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
    return await start(options, log, closers, closeAll)
  } catch (error) {
    await closeAll()
    throw error
  }
}

async function start(
  options: ServerOptions,
  log: Logger,
  closers: (() => Promise<void> | void)[],
  closeAll: () => Promise<void>,
): Promise<RunningServer> {
  const dataDir = createDataDir(options.dataDir)
  const lock = await lockDataDir(dataDir)
  closers.push(() => lock.release())
  const keys = await openServerKeys({ ...options, dataDir })

  const health = new Health()
  const http = await listen(options, health)
  closers.push(() => closeHttp(http.server))
  const publicUrl = options.publicUrl ?? http.url

  const db = await openMigratedDatabase({ ...options, dataDir }, log, closers)
  await bootstrap(db, keys)

  const serverId = uuidv7()
  const hints = createHints({ serverId, log })
  const connections = createProviderConnections(options.env)
  const catalog = createModelCatalog(findProviders(options.env), {
    connections,
    log,
    clock: performance,
    defaultModel: options.defaultModel,
  })
  const ctx: Ctx = {
    db,
    log,
    hints,
    config: options,
    serverId,
    publicUrl,
    models: { resolve: async (modelId) => (await catalog.resolve(modelId)).access },
  }

  const stopping = new AbortController()
  const gateway = createGateway({
    connections,
    catalog,
    log,
    async authenticate(token) {
      const actor = await authenticate(ctx, token)
      assertMay(actor, 'model.call')
      if (actor.kind !== 'execution' || actor.overForSeconds !== null)
        throw new AppError('execution_token_ended', { executionId: 'executionId' in actor ? actor.executionId : '' })
      return actor
    },
    recordUsage: ({ runId, executionId, ...usage }) =>
      insertModelUsage(db, { id: uuidv7(), runId, executionId, ...usage }),
  })
  // The two need each other: sockets give slots, and a slot that becomes free wakes the dispatcher.
  const wake = { dispatcher: () => {} }
  const sockets = createWorkerSockets(ctx, () => wake.dispatcher(), stopping.signal)
  const dispatcher = startDispatcher(ctx, () => sockets.slots(), stopping.signal)
  wake.dispatcher = dispatcher.wake
  const loops = [dispatcher, ...sockets.loops, ...startHousekeeping(ctx, stopping.signal)]
  const hintsEnded = hints.run(db, stopping.signal)

  let metrics: Promise<ServerMetrics> | undefined
  const loadMetrics = () => {
    metrics ??= createServerMetrics(ctx, { workerConnections: () => sockets.count(), version })
    return metrics
  }
  health.isReady = () => isDatabaseReady(db)
  health.metrics = async () => (await loadMetrics()).render()
  health.app = createApp(ctx, { catalog, version, stopping: stopping.signal })
  health.app.route('/llm', gateway.routes)
  health.upgrade = sockets.upgrade

  closers.push(async () => {
    health.isDraining = true
    await sockets.close()
    stopping.abort()
    await Promise.all([...loops.map((loop) => loop.ended), hintsEnded])
    await gateway.recorded()
    connections.close()
    await (await metrics)?.shutdown()
  })
  if (options.metricsListen) {
    const own = await listenMetrics(options.metricsListen, health)
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

/** What answers before the database is there, and while the server stops. */
class Health {
  app: Hono | undefined
  isDraining = false
  isReady: () => Promise<boolean> = async () => false
  metrics: (() => Promise<string>) | undefined
  upgrade: ((...args: Parameters<ReturnType<typeof createWorkerSockets>['upgrade']>) => Promise<void>) | undefined
  /** Metrics have an address of their own. */
  hidesMetrics = false

  readonly routes = new Hono()
    .get('/healthz', (c) => c.json({ status: 'alive' }))
    .get('/readyz', async (c) => {
      const isReady = !this.isDraining && (await this.isReady())
      return c.json({ status: isReady ? 'ready' : this.isDraining ? 'stopping' : 'not ready' }, isReady ? 200 : 503)
    })
    .get('/metrics', async (c, next) => {
      if (!this.metrics || this.hidesMetrics) return next()
      return c.text(await this.metrics(), 200, { 'content-type': 'text/plain; version=0.0.4; charset=utf-8' })
    })

  fetch = async (request: Request, env: object): Promise<Response> => {
    const { pathname } = new URL(request.url)
    if (pathname === '/healthz' || pathname === '/readyz' || (pathname === '/metrics' && !this.hidesMetrics))
      return this.routes.fetch(request, env)
    if (this.app) return this.app.fetch(request, env)
    const { spec, message } = new AppError('server_draining')
    return Response.json(
      { title: 'Server is starting', status: 503, detail: message, error: spec.platform, code: 'server_draining' },
      { status: 503, headers: { 'content-type': 'application/problem+json', 'retry-after': '1' } },
    )
  }
}

async function listen(options: ServerOptions, health: Health): Promise<{ server: Server; url: string }> {
  health.hidesMetrics = options.metricsListen !== null
  const listener = getRequestListener(health.fetch)
  const server = options.tls
    ? createHttpsServer(
        { cert: await readFile(options.tls.certFile), key: await readFile(options.tls.keyFile) },
        listener,
      )
    : createHttpServer(listener)
  // Streams stay open; a request's head does not take long.
  server.requestTimeout = 0
  server.headersTimeout = 30_000
  server.on('upgrade', (request: IncomingMessage, socket, head) => {
    const isWorker = request.url?.split('?', 1)[0] === workerSocketPath
    if (isWorker && health.upgrade && !health.isDraining) void health.upgrade(request, socket, head)
    else socket.end(`HTTP/1.1 ${isWorker ? '503 Service Unavailable' : '404 Not Found'}\r\nConnection: close\r\n\r\n`)
  })
  await bind(server, options.listen)
  const { port } = server.address() as AddressInfo
  const host = options.listen.host.includes(':') ? `[${options.listen.host}]` : options.listen.host
  // Nobody can dial "any address": on this machine it is loopback.
  const dialable = host === '0.0.0.0' || host === '[::]' ? '127.0.0.1' : host
  return { server, url: `${options.tls ? 'https' : 'http'}://${dialable}:${port}` }
}

async function listenMetrics(address: { host: string; port: number }, health: Health): Promise<Server> {
  const listener = getRequestListener(async (request) => {
    if (new URL(request.url).pathname !== '/metrics' || !health.metrics) return new Response('', { status: 404 })
    return new Response(await health.metrics(), { headers: { 'content-type': 'text/plain; version=0.0.4' } })
  })
  const server = createHttpServer(listener)
  await bind(server, address)
  return server
}

async function bind(server: Server, { host, port }: { host: string; port: number }): Promise<void> {
  const address = `${host}:${port}`
  try {
    server.listen(port, host)
    await once(server, 'listening')
  } catch (error) {
    const { code, message } = error as NodeJS.ErrnoException
    if (code === 'EADDRINUSE') throw new AppError('port_in_use', { address }, { cause: error })
    throw new AppError('listen_failed', { address, problem: message }, { cause: error })
  }
}

async function closeHttp(server: Server): Promise<void> {
  const closed = once(server, 'close')
  server.close()
  server.closeIdleConnections()
  const timer = setTimeout(() => server.closeAllConnections(), drainMs)
  await closed
  clearTimeout(timer)
}

async function openMigratedDatabase(
  options: ServerOptions,
  log: Logger,
  closers: (() => Promise<void> | void)[],
): Promise<Database> {
  let config: pg.PoolConfig
  if (options.databaseUrl === null) {
    const embedded = await startEmbeddedPostgres({ dataDir: options.dataDir, log })
    closers.push(() => embedded.stop())
    config = embedded.connection
  } else config = { connectionString: options.databaseUrl }

  const db = openDatabase(config, (error) => log.warn({ error: error.message }, 'a database connection was lost'))
  closers.push(() => db.close())
  try {
    const { from, to } = await migrate(db, await readMigrations())
    if (from !== to) log.info({ from, to }, 'database migrated')
  } catch (error) {
    // node-postgres may put the address into its message, never the password.
    if (isDatabaseAway(error))
      throw new AppError('database_unreachable', { problem: (error as Error).message }, { cause: error })
    throw error
  }
  return db
}

async function isDatabaseReady(db: Database): Promise<boolean> {
  try {
    await db.query('select 1')
    return true
  } catch {
    return false
  }
}
