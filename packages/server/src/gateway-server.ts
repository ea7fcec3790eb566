import { setTimeout as sleep } from 'node:timers/promises'
import { AppError } from '@openoz/protocol'
import { Hono } from 'hono'
import type { Logger } from 'pino'
import { v7 as uuidv7 } from 'uuid'
import type { ServerOptions } from './config.ts'
import { createHints } from './hints.ts'
import { closeHttp, FrontDoor, listen, listenMetrics } from './http/front-door.ts'
import { createServerMetrics, type ServerMetrics } from './http/metrics.ts'
import { problemAnswer, toProblem } from './http/problems.ts'
import { createModelGateway } from './model-gateway.ts'
import { type Database, openDatabase, unpreparedNotice, whyUnreachable } from './store/database.ts'
import { isMigrated, readMigrations } from './store/migrate.ts'
import { version } from './version.ts'

/**
 * The model gateway as a process of its own. It shares the database with the control plane, and nothing else: no data folder, no master key, no
 * loops. It may be started first: it answers at once, and is ready when the control plane has brought the database up to date.
 */
export interface RunningGateway {
  url: string
  pid: number
  /** Stops in order; safe to call twice. */
  stop(): Promise<void>
  /** Resolves when it has stopped; rejects when it cannot go on, as with a database of a newer version. */
  stopped: Promise<void>
}

const lookAgainMs = 500

export async function startGatewayServer(options: ServerOptions, { log }: { log: Logger }): Promise<RunningGateway> {
  if (options.databaseUrl === null)
    throw new AppError('option_invalid', {
      option: 'DATABASE_URL',
      problem:
        'a gateway of its own needs the PostgreSQL of its control plane; an embedded one serves one process only',
    })
  const db = openDatabase(
    { connectionString: options.databaseUrl },
    (error) => log.warn({ error: error.message }, 'a database connection was lost'),
    { onUnprepared: (error) => log.warn({ error: error.message }, unpreparedNotice) },
  )
  const stopping = new AbortController()
  const hints = createHints({ serverId: uuidv7(), log })
  let gateway: ReturnType<typeof createModelGateway>
  let http: Awaited<ReturnType<typeof listen>>
  const frontDoor = new FrontDoor(log)
  try {
    gateway = createModelGateway(options, { db, hints, log })
    http = await listen(options, frontDoor, log)
  } catch (error) {
    await db.close()
    throw error
  }
  const own = options.metricsListen ? await listenMetrics(options.metricsListen, frontDoor) : undefined

  let metrics: Promise<ServerMetrics> | undefined
  frontDoor.metrics = async () => {
    metrics ??= createServerMetrics({ version, gateway })
    return (await metrics).render()
  }
  frontDoor.app = new Hono().notFound((c) => {
    const { method, path } = c.req
    return problemAnswer(
      toProblem(log, new AppError('route_not_found', { method, path: path.slice(0, 200) }), '', path),
    )
  })
  // Calls are held until they can be judged, so they need not wait at the door.
  frontDoor.gateway = gateway.handle

  const hintsEnded = hints.run(db, stopping.signal)
  const stopped = Promise.withResolvers<void>()
  // Whoever does not wait for it must not be ended by it.
  stopped.promise.catch(() => {})
  const migrated = untilMigrated(db, log, stopping.signal).then(
    () => {
      frontDoor.whyNotReady = () => whyUnreachable(db)
      log.info({ url: http.url, version }, 'gateway ready')
    },
    (error: unknown) => {
      if (!stopping.signal.aborted) stopped.reject(error)
    },
  )

  async function stopInOrder(): Promise<void> {
    frontDoor.isDraining = true
    await closeHttp(http.server)
    await gateway.close()
    stopping.abort()
    await Promise.all([hintsEnded, migrated])
    if (own) await closeHttp(own)
    await (await metrics)?.shutdown()
    await db.close()
  }

  let stop: Promise<void> | undefined
  return {
    url: http.url,
    pid: process.pid,
    stopped: stopped.promise,
    stop() {
      stop ??= stopInOrder().then(() => stopped.resolve())
      return stop
    },
  }
}

/** Rejects with `database_too_new`; while the database is away or behind, it waits. */
async function untilMigrated(db: Database, log: Logger, signal: AbortSignal): Promise<void> {
  const migrations = await readMigrations()
  let said = ''
  while (!signal.aborted) {
    let problem = 'no control plane has brought the database up to date yet'
    try {
      if (await isMigrated(db, migrations)) return
    } catch (error) {
      if (error instanceof AppError) throw error
      problem = (error as Error).message
    }
    if (problem !== said) log.warn({ problem }, 'waiting for the database')
    said = problem
    await sleep(lookAgainMs, undefined, { signal })
  }
}
