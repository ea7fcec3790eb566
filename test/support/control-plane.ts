import { randomBytes } from 'node:crypto'
import { writeFileSync } from 'node:fs'
import { join } from 'node:path'
import { Writable } from 'node:stream'
import {
  type ApiClient,
  type CreateRunRequest,
  createApiClient,
  type Problem,
  type Run,
  type SessionEvent,
  type TaskAssignment,
} from '@openoz/protocol'
import { type AgentBundles, type RunningServer, readServerOptions, startServer } from '@openoz/server'
import pino from 'pino'
import { scratchFolder } from '../../packages/server/src/postgres/testing/scratch-folder.ts'
import { until } from './poll.ts'
import { readServerSentEvents, type ServerSentEvent } from './server-sent-events.ts'
import { TestAgent } from './test-agent.ts'
import { createTestDatabase } from './test-database.ts'
import { TestWorker, type TestWorkerOptions } from './test-worker.ts'

export interface ControlPlaneOptions {
  /** `OZ_…` and provider variables. */
  env?: Record<string, string>
  lease?: { unreachable?: string; stop?: string; lost?: string }
  /** False: servers hear of one another only by looking. */
  useNotify?: boolean
  /** What other machines are installed with. */
  bundles?: AgentBundles
  /** Nothing is started yet: the test does it. */
  isStopped?: boolean
  /** An empty database instead of a migrated one. */
  isEmpty?: boolean
}

export interface Answer<T = unknown> {
  status: number
  body: T
  headers: Headers
}

/** A control plane on loopback with a database of its own: everything goes through its front doors. */
export type ControlPlane = Awaited<ReturnType<typeof startControlPlane>>

export async function startControlPlane(options: ControlPlaneOptions = {}) {
  const database = await createTestDatabase({ isEmpty: options.isEmpty ?? false })
  const folder = scratchFolder()
  const masterKeyFile = join(folder.path, 'shared-master.key')
  writeFileSync(masterKeyFile, randomBytes(32).toString('base64'), { mode: 0o600 })
  const adminKey = `wk-${randomBytes(24).toString('base64url')}`
  const errors: string[] = []
  const servers: RunningServer[] = []
  const workers: TestWorker[] = []
  const { lease } = options

  interface ServerChanges {
    port?: number
    env?: Record<string, string>
    databaseUrl?: string
  }

  let dataDirs = 0
  async function addServer({ port = 0, env = {}, databaseUrl = database.url }: ServerChanges = {}) {
    const serverOptions = readServerOptions(
      {
        listen: `127.0.0.1:${port}`,
        databaseUrl,
        dataDir: join(folder.path, `server-${dataDirs++}`),
      },
      {
        OZ_MASTER_KEY_FILE: masterKeyFile,
        OZ_BOOTSTRAP_API_KEY: adminKey,
        ...(lease?.unreachable ? { OZ_LEASE_UNREACHABLE: lease.unreachable } : {}),
        ...(lease?.stop ? { OZ_LEASE_STOP: lease.stop } : {}),
        ...(lease?.lost ? { OZ_LEASE_LOST: lease.lost } : {}),
        ...options.env,
        ...env,
      },
    )
    const server = await startServer(serverOptions, {
      log: testLog(errors),
      ...(options.useNotify === undefined ? {} : { useNotify: options.useNotify }),
      ...(options.bundles && { bundles: options.bundles }),
    })
    servers.push(server)
    return server
  }

  let url = ''
  const cp = {
    adminKey,
    database,
    db: database,
    folder: folder.path,
    /** Unexpected errors that servers logged: a test that wants some takes them out. */
    errors,
    get url() {
      return url
    },
    client: undefined as unknown as ApiClient,
    addServer,
    advanceDatabaseClock: database.advanceClock,

    clientFor(key: string, serverUrl?: string): ApiClient {
      return createApiClient({ apiKey: key, fetch: (path, init) => fetch((serverUrl ?? url) + path, init) })
    },

    /** A request as it is, for what the typed client would never send. */
    async request<T = Problem>(
      method: string,
      path: string,
      init: { key?: string | null; json?: unknown; body?: string; headers?: Record<string, string> } = {},
    ): Promise<Answer<T>> {
      const key = init.key === undefined ? adminKey : init.key
      const body = init.body ?? (init.json === undefined ? undefined : JSON.stringify(init.json))
      const response = await fetch(`${url}${path}`, {
        method,
        headers: {
          ...(key === null ? {} : { authorization: `Bearer ${key}` }),
          ...(init.json === undefined ? {} : { 'content-type': 'application/json' }),
          ...init.headers,
        },
        ...(body === undefined ? {} : { body }),
      })
      const text = await response.text()
      let parsed: unknown = text
      try {
        parsed = JSON.parse(text)
      } catch {
        // Not JSON: the text is the answer.
      }
      return { status: response.status, body: parsed as T, headers: response.headers }
    },

    async createRun(request: Partial<CreateRunRequest> = {}): Promise<string> {
      return (await cp.client.runs.create({ prompt: 'do it', ...request })).run_id
    },

    async connectWorker(worker: TestWorkerOptions & { serverUrl?: string } = {}): Promise<TestWorker> {
      const { serverUrl = url, key = adminKey, ...rest } = worker
      const connected = await TestWorker.connect(serverUrl, key, rest)
      workers.push(connected)
      return connected
    },

    agentFor(assignment: TaskAssignment, serverUrl = url): TestAgent {
      return new TestAgent(serverUrl, assignment)
    },

    /** A run whose agent has said hello, on a worker of its own. */
    async startAgent(request: Partial<CreateRunRequest> = {}, workerOptions: TestWorkerOptions = {}) {
      const worker = await cp.connectWorker(workerOptions)
      const runId = await cp.createRun(request)
      const assignment = await worker.claimNext()
      const agent = cp.agentFor(assignment)
      const hello = await agent.hello()
      return { worker, runId, assignment, agent, hello }
    },

    /** Waits until the run is in this state, and answers it. */
    async waitFor(runId: string, state: Run['state'], timeoutMs = 10_000): Promise<Run> {
      return until(
        () => cp.client.runs.get(runId),
        (run) => run.state === state,
        { timeoutMs },
      )
    },

    /** The whole session log, page by page. */
    async eventsOf(runId: string, limit = 500): Promise<SessionEvent[]> {
      const events: SessionEvent[] = []
      for (let since = 0; ; ) {
        const page = await cp.client.runs.events(runId, { since, limit })
        events.push(...(page.events as SessionEvent[]))
        since = page.next_since
        // A page of large events ends early: only an empty one is the end.
        if (page.events.length === 0) return events
      }
    },

    /** States of the run as its log tells them. */
    async statesOf(runId: string): Promise<string[]> {
      return (await cp.eventsOf(runId)).flatMap((event) => (event.type === 'run_state' ? [event.data.state] : []))
    },

    /** The log as a viewer gets it, live. */
    view(
      runId: string,
      init: {
        since?: number
        lastEventId?: string | number
        signal?: AbortSignal
        serverUrl?: string
        key?: string
      } = {},
    ): AsyncGenerator<ServerSentEvent> {
      const { since, serverUrl = url, key = adminKey, ...rest } = init
      const query = since === undefined ? '' : `?since=${since}`
      return readServerSentEvents(`${serverUrl}/api/v1/agent/runs/${runId}/events/stream${query}`, { key, ...rest })
    },

    async stop(): Promise<void> {
      await Promise.all(servers.splice(0).map((server) => server.stop()))
    },

    /** Stops every server and starts one at the same address. */
    async restart(): Promise<void> {
      const { port } = new URL(url)
      await cp.stop()
      await addServer({ port: Number(port) })
    },

    async [Symbol.asyncDispose](): Promise<void> {
      await Promise.all(workers.map((worker) => worker.disconnect()))
      await cp.stop()
      await database[Symbol.asyncDispose]()
      folder[Symbol.dispose]()
      if (errors.length > 0) throw new Error(`the server logged unexpected errors:\n${errors.join('\n')}`)
    },
  }
  cp.client = cp.clientFor(adminKey)
  try {
    if (!options.isStopped) url = (await addServer()).url
  } catch (error) {
    await database[Symbol.asyncDispose]()
    folder[Symbol.dispose]()
    throw error
  }
  return cp
}

/** Quiet, except for what must never be logged: errors that nobody expected. `OZ_TEST_LOG=debug` shows everything. */
function testLog(errors: string[]): pino.Logger {
  const shown = process.env.OZ_TEST_LOG
  const sink = new Writable({
    write(line: Buffer, _encoding, done) {
      const text = line.toString().trim()
      if (shown) process.stderr.write(`${text}\n`)
      if ((JSON.parse(text) as { level: number }).level >= 50) errors.push(text)
      done()
    },
  })
  return pino({ level: shown ?? 'error', serializers: { error: pino.stdSerializers.err } }, sink)
}
