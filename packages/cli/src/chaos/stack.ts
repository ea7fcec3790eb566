import { randomBytes } from 'node:crypto'
import { mkdirSync, writeFileSync } from 'node:fs'
import type { NetConnectOpts } from 'node:net'
import { join } from 'node:path'
import { type EmbeddedPostgres, startEmbeddedPostgres } from '@openoz/server'
import type { Logger } from 'pino'
import { ozProgram, workerProgram } from '../program-files.ts'
import { leaseVariables } from './lease-times.ts'
import { type Link, startLink } from './link.ts'
import { type RoundPlan, workerIds } from './plan.ts'
import { randomStream } from './random.ts'
import type { RoundEngine } from './round-engine.ts'
import { markerVariable, type RoundFolder } from './round-folder.ts'
import { type SupervisedProcess, startSupervised } from './supervised-process.ts'

/** A private copy of everything: database, servers and workers on free ports, and between any two of them a link that can go wrong. */
export interface Stack extends AsyncDisposable {
  database: EmbeddedPostgres
  servers: SupervisedProcess[]
  workers: SupervisedProcess[]
  /** undefined: agents are processes of this machine. Not the stack's to end. */
  engine: RoundEngine | undefined
  links: { workers: Link; agents: Link; people: Link; database: Link[] }
  apiKey: string
  /** Folders in which workers keep their state. */
  stateDirs: string[]
  workspaceRoots: string[]
  stopWorkers(): Promise<boolean[]>
  stopServers(): Promise<boolean[]>
}

/** Longer than any program of ours takes to end politely. */
const stopGraceMs = 45_000

export async function startStack(input: {
  plan: RoundPlan
  folder: RoundFolder
  modelUrl: string
  engine: RoundEngine | undefined
  log: Logger
  signal: AbortSignal
}): Promise<Stack> {
  const { plan, folder, modelUrl, engine, log, signal } = input
  await using opened = new AsyncDisposableStack()
  const database = opened.use(await startEmbeddedPostgres({ dataDir: join(folder.machine, 'database'), log, signal }))
  const { host, port } = database.connection
  const socket: NetConnectOpts = { path: join(host, `.s.PGSQL.${port}`) }

  const ports: (number | undefined)[] = []
  const liveServers = () => ports.flatMap((live) => (live === undefined ? [] : [{ host: '127.0.0.1', port: live }]))
  const links = {
    workers: opened.use(await startLink(liveServers)),
    agents: opened.use(await startLink(liveServers)),
    people: opened.use(await startLink(liveServers)),
    database: [] as Link[],
  }
  const apiKey = `wk-${randomBytes(24).toString('hex')}`
  const servers: SupervisedProcess[] = []
  const workers: SupervisedProcess[] = []
  const stopAll = async (list: SupervisedProcess[]) => Promise.all(list.map((program) => program.stop(stopGraceMs)))
  opened.defer(async () => void (await stopAll(servers)))
  opened.defer(async () => void (await stopAll(workers)))

  for (let index = 0; index < plan.servers; index++) {
    const link = opened.use(await startLink(() => [socket]))
    links.database.push(link)
    const { user, password, database: name } = database.connection
    servers.push(
      startSupervised({
        name: `server-${index}`,
        args: serverArguments(plan, index, { folder, agentPort: links.agents.port }),
        env: {
          ...baseEnvironment(folder, `server-${index}`),
          ...leaseVariables,
          DATABASE_URL: `postgres://${user}:${encodeURIComponent(password)}@127.0.0.1:${link.port}/${name}`,
          OZ_MASTER_KEY_FILE: folder.masterKey,
          OZ_BOOTSTRAP_API_KEY: apiKey,
          OPENAI_API_KEY: 'sk-chaos',
          OPENAI_BASE_URL: `${modelUrl}/v1`,
        },
        logFile: join(folder.logs, `server-${index}.log`),
        random: randomStream(plan.seed, `restarts of server ${index}`),
        signal,
        onLine(line) {
          ports[index] = portIn(line) ?? ports[index]
        },
        onEnd() {
          ports[index] = undefined
        },
      }),
    )
  }

  const { stateDirs } = folder
  for (const [index, workerId] of workerIds.entries()) {
    const stateDir = stateDirs[Math.min(index, 1)] ?? ''
    const name = `worker-${index}`
    workers.push(
      startSupervised({
        name,
        args: workerArguments({ folder, name, workerId, stateDir, engine, ports: links }),
        env: {
          ...baseEnvironment(folder, name),
          OZ_API_KEY: apiKey,
          ...(engine ? { DOCKER_HOST: `unix://${engine.socket}` } : {}),
        },
        logFile: join(folder.logs, `${name}.log`),
        random: randomStream(plan.seed, `restarts of ${name}`),
        signal,
      }),
    )
  }

  const owned = opened.move()
  return {
    database,
    servers,
    workers,
    engine,
    links,
    apiKey,
    stateDirs,
    workspaceRoots: stateDirs.map((dir) => join(dir, 'workspaces')),
    stopWorkers: () => stopAll(workers),
    stopServers: () => stopAll(servers),
    [Symbol.asyncDispose]: () => owned.disposeAsync(),
  }
}

function serverArguments(
  plan: RoundPlan,
  index: number,
  { folder, agentPort }: { folder: RoundFolder; agentPort: number },
): string[] {
  return [
    ...[ozProgram, '--output-format', 'ndjson', 'server', '--listen', '127.0.0.1:0'],
    ...['--data-dir', join(folder.machine, `server-${index}`), '--public-url', `http://127.0.0.1:${agentPort}`],
    ...(plan.withoutNotify.includes(index) ? ['--no-notify'] : []),
  ]
}

function workerArguments(worker: {
  folder: RoundFolder
  name: string
  workerId: string
  stateDir: string
  engine: RoundEngine | undefined
  ports: { workers: Link; agents: Link }
}): string[] {
  const { folder, name, workerId, stateDir, engine, ports } = worker
  const common = { state_dir: stateDir, environment: [{ name: markerVariable, value: folder.marker }] }
  const { ledger, effect } = folder
  const backend = engine
    ? {
        docker: {
          ...common,
          bundle: engine.bundle,
          default_image: engine.image,
          image_pull_policy: 'Never',
          volumes: [`${ledger}:${ledger}`, `${effect}:${effect}:ro`],
        },
      }
    : { direct: { ...common, oz_path: ozProgram, readable_paths: [ledger, effect] } }
  const file = join(folder.machine, `${name}.yaml`)
  // JSON is YAML.
  writeFileSync(file, JSON.stringify({ backend }), { mode: 0o600 })
  return [
    ...[workerProgram, '--backend', engine ? 'docker' : 'direct', '--worker-id', workerId, '--config-file', file],
    // What leaves its tasks to its successor is told to by another signal. So the last SIGTERM of a round ends idle agents too.
    ...['--drain', 'stop', '--max-concurrent-tasks', '4', '--server-url', `http://127.0.0.1:${ports.workers.port}`],
    ...['--server-root-url', `http://127.0.0.1:${ports.agents.port}`],
  ]
}

/** No login, key or proxy of whoever started the round. */
function baseEnvironment(folder: RoundFolder, name: string): NodeJS.ProcessEnv {
  const home = join(folder.machine, `home-${name}`)
  mkdirSync(home, { recursive: true, mode: 0o700 })
  const { PATH, LANG } = process.env
  return {
    ...(PATH === undefined ? {} : { PATH }),
    ...(LANG === undefined ? {} : { LANG }),
    HOME: home,
    XDG_CONFIG_HOME: join(home, 'config'),
    XDG_DATA_HOME: join(home, 'data'),
    XDG_STATE_HOME: join(home, 'state'),
    XDG_CACHE_HOME: join(home, 'cache'),
    TMPDIR: folder.temporary,
    [markerVariable]: folder.marker,
  }
}

/** Of the line that a server prints once it is ready. */
function portIn(line: string): number | undefined {
  try {
    const { type, url } = JSON.parse(line) as { type?: string; url?: string }
    return type === 'server_ready' && url !== undefined ? Number(new URL(url).port) : undefined
  } catch {
    return undefined
  }
}
