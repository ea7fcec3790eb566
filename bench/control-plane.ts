import { mkdtempSync, readFileSync, rmSync } from 'node:fs'
import { chmod } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { setTimeout as sleep } from 'node:timers/promises'
import { readServerOptions, startServer } from '@openoz/server'
import pg from 'pg'
import pino from 'pino'
import { createProbe } from './probe.ts'
import { scratchHome, startProgram } from './programs.ts'

export interface BenchControlPlane extends AsyncDisposable {
  url: string
  apiKey: string
  /** The embedded database, as the server itself reaches it. */
  database: { host: string; user: string; password: string; database: string }
  /** For another process. */
  databaseUrl: string
  /** For controls and looks of our own. */
  pool: pg.Pool
  post<T>(path: string, body: unknown, token?: string): Promise<T>
  stop(): Promise<void>
}

/** A control plane of its own in this process, on the embedded database. */
export async function startBenchControlPlane(): Promise<BenchControlPlane> {
  const folder = mkdtempSync(join(tmpdir(), 'oz-bench-'))
  // As root the database runs as another user, who must be able to pass.
  await chmod(folder, 0o711)
  const dataDir = join(folder, 'data')
  const server = await startServer(readServerOptions({ listen: '127.0.0.1:0', dataDir }, {}), {
    log: pino({ level: 'silent' }),
  })
  return reach(server.url, dataDir, async () => {
    await server.stop()
    rmSync(folder, { recursive: true, force: true })
  })
}

/** `oz server` of `dist/` as a process of its own, which can be asked what it costs and killed. */
export async function startServerProcess(more: Record<string, string> = {}) {
  const home = scratchHome()
  const probe = createProbe(join(home.env.HOME ?? home.dataDir, 'probe'))
  const start = (listen = '127.0.0.1:0') =>
    startProgram(['server'], { ...home.env, ...more, ...probe.env, OZ_LISTEN: listen }, 'server_ready')
  let server = await start()
  return {
    ...reach(server.url, home.dataDir, async () => {
      await server.stop()
      home.remove()
    }),
    probe,
    /** `kill -9`, and at once another one at the same address. Resolves when that is ready. */
    async killAndRestart() {
      await server.kill()
      probe.clear()
      server = await start(new URL(server.url).host)
    },
  }
}

export type ServerProcess = Awaited<ReturnType<typeof startServerProcess>>

function reach(url: string, dataDir: string, stopServer: () => Promise<void>): BenchControlPlane {
  const apiKey = readFileSync(join(dataDir, 'admin-api-key'), 'utf8').trim()
  const password = readFileSync(join(dataDir, 'postgres-password'), 'utf8').trim()
  const database = { host: join(dataDir, 'postgres-socket'), user: 'openoz', password, database: 'openoz' }
  const pool = new pg.Pool({ ...database, max: 4 })
  // Idle connections break when the database is stopped.
  pool.on('error', () => {})
  const stop = async () => {
    await pool.end()
    await stopServer()
  }
  return {
    url,
    apiKey,
    database,
    databaseUrl: `postgresql://${database.user}:${password}@${encodeURIComponent(database.host)}/${database.database}`,
    pool,
    async post<T>(path: string, body: unknown, token = apiKey): Promise<T> {
      const response = await fetch(url + path, {
        method: 'POST',
        headers: { authorization: `Bearer ${token}`, 'content-type': 'application/json' },
        body: JSON.stringify(body),
      })
      if (!response.ok) throw new Error(`${path}: ${response.status} ${await response.text()}`)
      return (await response.json()) as T
    },
    stop,
    [Symbol.asyncDispose]: stop,
  }
}

/** So that no agent is left on this machine: a worker that is stopped may leave its own to the next one. */
export async function cancelAllRuns({ pool, post }: BenchControlPlane): Promise<void> {
  const live = async () =>
    (await pool.query<{ run_id: string }>('select run_id from executions where ended_at is null')).rows
  for (const { run_id } of await live()) await post(`/api/v1/agent/runs/${run_id}/cancel`, {})
  for (const until = performance.now() + 60_000; (await live()).length > 0; await sleep(100))
    if (performance.now() > until) throw new Error('the runs were not cancelled within a minute')
}
