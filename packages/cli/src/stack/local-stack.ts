import { readFile } from 'node:fs/promises'
import { hostname } from 'node:os'
import { join, resolve } from 'node:path'
import { writePrivateFile } from '@openoz/machine'
import { AppError } from '@openoz/protocol'
import { type RunningServer, type ServerOptions, startServer } from '@openoz/server'
import type { Logger } from 'pino'
import { type Connection, openConnection } from '../connection.ts'
import { ozProgram } from '../program-files.ts'
import { savedLoginFile } from '../saved-login.ts'
import { agentBundles } from './agent-bundles.ts'
import { chooseLocalBackend, type LocalBackend, type LocalBackendWish } from './local-backend.ts'
import { workerEnvironment } from './worker-environment.ts'
import { startWorkerProcess, type WorkerProcess } from './worker-process.ts'

/**
 * Everything for one machine: the control plane in this process, and a worker in a process of its own, which runs tasks as processes of this machine or in
 * containers of its engine. `oz up` keeps one running, the demo one for as long as its run takes.
 */
export interface LocalStack {
  server: RunningServer
  /** With the administrator's key. */
  connection: Connection
  worker: (WorkerProcess & Pick<LocalBackend, 'backend' | 'why'>) | undefined
  /** Worker first, so that it can still report what it ended. Safe to call twice. */
  stop(): Promise<void>
  /** For people without patience, during `stop`: tasks are killed, and nothing waits for the worker. */
  stopNow(): Promise<void>
}

export interface LocalStackOptions {
  server: ServerOptions
  worker: LocalWorkerOptions | undefined
  env: NodeJS.ProcessEnv
  log: Logger
}

export interface LocalWorkerOptions {
  workerId: string
  /** Default: `direct`. `auto`: containers where an engine answers. */
  backend?: LocalBackendWish
  /** Defaults: those of the worker. */
  workspaceRoot?: string
  stateDir?: string
  /** `HOST:CONTAINER[:MODE]`, mounted into the containers of tasks. Default: nothing of this machine. */
  volumes?: string[]
  onLog?: (chunk: Buffer) => void
}

export async function startLocalStack({ server: options, worker, env, log }: LocalStackOptions): Promise<LocalStack> {
  const backend = worker && (await chooseLocalBackend(worker.backend, env))
  const server = await startServer(options, { log, bundles: agentBundles(env) })
  let connection: Connection | undefined
  try {
    connection = openConnection({
      serverUrl: server.url,
      apiKey: await readAdminKey(server, options),
      env: trusting(options, env),
    })
    const local = backend && (await startLocalWorker({ worker, backend, connection, options, env, log }))
    return assemble({ server, connection, local })
  } catch (error) {
    await connection?.[Symbol.asyncDispose]()
    await server.stop()
    throw error
  }
}

function assemble(parts: {
  server: RunningServer
  connection: Connection
  local: LocalWorker | undefined
}): LocalStack {
  const { server, connection, local } = parts
  let stopping: Promise<void> | undefined
  const stopAll = async () => {
    await local?.process.stop()
    await local?.expireKey()
    await connection[Symbol.asyncDispose]()
    await server.stop()
  }
  return {
    server,
    connection,
    worker: local && { ...local.process, ...local.backend },
    stop: () => {
      stopping ??= stopAll()
      return stopping
    },
    stopNow: async () => {
      local?.process.stopNow()
      await server.stop()
    },
  }
}

interface LocalWorker {
  process: WorkerProcess
  backend: LocalBackend
  expireKey: () => Promise<void>
}

async function startLocalWorker(start: {
  worker: LocalWorkerOptions
  backend: LocalBackend
  connection: Connection
  options: ServerOptions
  env: NodeJS.ProcessEnv
  log: Logger
}): Promise<LocalWorker> {
  const { worker, backend, connection, options, env, log } = start
  const key = await mintWorkerKey(connection, worker.workerId)
  const configFile = await writeWorkerConfig({ worker, backend, options, env })
  // Ctrl-C ends all that was started here.
  const args = ['--backend', backend.backend, '--worker-id', worker.workerId, '--config-file', configFile]
  return {
    backend,
    process: startWorkerProcess({
      args: [...args, '--drain', 'stop', '--log-level', options.logLevel],
      // The key by environment and not as an argument: command lines can be read by everyone.
      env: {
        ...workerEnvironment(trusting(options, env)),
        OZ_SERVER_URL: connection.serverUrl,
        OZ_API_KEY: key.secret,
      },
      log,
      onLog: worker.onLog,
    }),
    // A server that is gone already cannot be asked; the next start cleans up.
    expireKey: () =>
      connection.client.apiKeys.expire(key.uid).then(
        () => {},
        () => {},
      ),
  }
}

/** Opens one worker id and nothing else. The keys of earlier starts that could not clean up are ended. */
async function mintWorkerKey({ client }: Connection, workerId: string): Promise<{ uid: string; secret: string }> {
  // Several machines may share a database, and a worker id: each ends its own keys only.
  const name = `oz up on ${hostname()}: ${workerId}`
  const { api_keys: keys } = await client.apiKeys.list()
  const now = Date.now()
  const isStale = ({ expires_at }: { expires_at: string | null }) => expires_at === null || Date.parse(expires_at) > now
  const stale = keys.filter((key) => key.scope === 'worker' && key.name === name && isStale(key))
  for (const key of stale) await client.apiKeys.expire(key.uid)
  const created = await client.apiKeys.create({ name, scope: 'worker', worker_id: workerId })
  return { uid: created.api_key.uid, secret: created.raw_api_key }
}

/** What has no flag. JSON is YAML. */
async function writeWorkerConfig(parts: LocalParts): Promise<string> {
  const file = join(parts.options.dataDir, 'worker.yaml')
  const config = parts.backend.backend === 'docker' ? { docker: dockerBlock(parts) } : { direct: directBlock(parts) }
  await writePrivateFile(file, `${JSON.stringify({ backend: config }, null, 2)}\n`)
  return file
}

interface LocalParts {
  worker: LocalWorkerOptions
  backend: LocalBackend
  options: ServerOptions
  env: NodeJS.ProcessEnv
}

/** Where our own `oz` is, and the folders that tasks must not see. */
function directBlock({ worker, options, env }: LocalParts): object {
  return {
    oz_path: ozProgram,
    workspace_root: worker.workspaceRoot,
    state_dir: worker.stateDir,
    hidden_paths: [
      options.dataDir,
      savedLoginFile(env),
      ...[options.masterKeyFile, options.tls?.keyFile]
        .filter((path) => typeof path === 'string')
        .map((path) => resolve(path)),
    ],
  }
}

/** Nothing is hidden, since a container sees nothing of this machine. Its agent is the one that was found, whatever variables the worker has. */
function dockerBlock({ worker, backend }: LocalParts): object {
  return { state_dir: worker.stateDir, bundle: backend.bundle, volumes: worker.volumes }
}

async function readAdminKey(server: RunningServer, options: ServerOptions): Promise<string> {
  if (options.bootstrapApiKey !== null) return options.bootstrapApiKey
  try {
    return (await readFile(server.adminApiKeyFile, 'utf8')).trim()
  } catch (cause) {
    throw new AppError('admin_key_missing', { file: server.adminApiKeyFile }, { cause })
  }
}

/** A certificate of one's own is trusted by one's own programs. */
function trusting(options: ServerOptions, env: NodeJS.ProcessEnv): NodeJS.ProcessEnv {
  return options.tls === null || env.OZ_CA_FILE ? env : { ...env, OZ_CA_FILE: options.tls.certFile }
}
