import { mkdirSync, rmSync, writeFileSync } from 'node:fs'
import { basename, join } from 'node:path'
import { AppError, messageOf } from '@openoz/protocol'
import {
  bundleLabel,
  checkEngine,
  type Engine,
  type EngineAddress,
  findBundle,
  findEngine,
  inspectImage,
  listContainers,
  listNetworks,
  listVolumes,
  openEngine,
  readInstallationId,
  removeInstallation,
  stateLabel,
} from '@openoz/worker'
import type { Logger } from 'pino'
import { type PrivateEngine, privateEngineProblem, startPrivateEngine } from './private-engine.ts'
import { markerVariable, type RoundFolder } from './round-folder.ts'
import { importRoundImage } from './round-image.ts'

/**
 * The engine on which the containers of a round run: one of the round's own where this machine can have one, which may be killed like everything else of the
 * round; else, or when an image of its is asked for, the one that a worker would find, to which nothing is done.
 */
export interface RoundEngine extends AsyncDisposable {
  readonly api: Engine
  readonly socket: string
  readonly image: string
  /** Folder of the agent bundle. */
  readonly bundle: string
  /** undefined: it is somebody else's. */
  readonly own: PrivateEngine | undefined
  /** What is there that was not there when the round began, and is the round's; but for what all tasks of an engine share. */
  listLeft(): Promise<EngineObject[]>
}

export interface EngineObject {
  what: 'container' | 'volume' | 'network'
  name: string
  labels: Record<string, string>
}

/** Where a worker takes one that nobody has named. */
const usualImage = 'ubuntu:22.04'

export async function openRoundEngine(input: {
  folder: RoundFolder
  /** An image of the engine that a worker would find. */
  image: string | undefined
  env: NodeJS.ProcessEnv
  log: Logger
}): Promise<RoundEngine> {
  const { folder, image, env, log } = input
  await using opened = new AsyncDisposableStack()
  const isOwn = image === undefined && privateEngineProblem() === undefined
  const own = isOwn ? opened.use(await startOwn(folder, env)) : undefined
  const address = own ? { ...unixAddress(own.socket), source: 'the round' } : findLocalEngine(env)
  const api = opened.use(openEngine(address, { env: {}, log }))
  const { platform } = await checkEngine(api)
  const { folder: bundle } = await findBundle({ platform, env })
  const imageName = own ? await importRoundImage(api) : await presentImage(api, image)
  if (!own) {
    // What is left of the round on an engine that goes on is to be removed by whoever ends the round.
    writeFileSync(folder.engineFile, JSON.stringify({ socket: address.socketPath }), { mode: 0o600 })
    opened.defer(() => clearEngine(api, folder, log))
  }
  const before = new Set((await listObjects(api)).map(keyOf))
  const owned = opened.move()
  return {
    ...{ api, own, bundle, socket: address.socketPath, image: imageName },
    async listLeft() {
      const installations = await installationsOf(folder)
      return (await listObjects(api)).filter((found) => {
        const isOfRound = installations.includes(found.labels[stateLabel] ?? '')
        if (isOfRound && found.what === 'volume' && found.labels[bundleLabel] !== undefined) return false
        return isOfRound || (own !== undefined && !before.has(keyOf(found)))
      })
    },
    [Symbol.asyncDispose]: () => owned.disposeAsync(),
  }
}

async function startOwn(folder: RoundFolder, env: NodeJS.ProcessEnv): Promise<PrivateEngine> {
  mkdirSync(folder.engine, { mode: 0o711 })
  const { PATH } = env
  try {
    return await startPrivateEngine({
      ...{ folder: folder.engine, logs: folder.logs, group: basename(folder.path), liveRestore: true },
      env: { ...(PATH === undefined ? {} : { PATH }), [markerVariable]: folder.marker },
    })
  } catch (error) {
    const problem = `the round’s own engine cannot be started (${messageOf(error)}); with --image it takes the one that a worker would find`
    throw new AppError('flag_invalid', { option: '--backend docker', problem }, { cause: error })
  }
}

type LocalAddress = EngineAddress & { kind: 'unix' }

function unixAddress(socketPath: string): Omit<LocalAddress, 'source'> {
  return { kind: 'unix', socketPath, display: `unix://${socketPath}` }
}

/** What the commands of a round do they write to files of this machine. */
function findLocalEngine(env: NodeJS.ProcessEnv): LocalAddress {
  const address = findEngine(env)
  if (address.kind === 'unix') return address
  const problem = `a round needs an engine of this machine, and ${address.source} names ${address.display}`
  throw new AppError('flag_invalid', { option: '--backend docker', problem })
}

/** Nothing is pulled for a round. */
async function presentImage(api: Engine, image = usualImage): Promise<string> {
  if (await inspectImage(api, image)) return image
  const problem = `the engine has no ${image}, and a round pulls nothing. Name one that it has, with a shell`
  throw new AppError('flag_invalid', { option: '--image', problem })
}

/** Of somebody else's engine, when the round is over or was ended: everything with the marks of the round's workers, shared volumes included. */
async function clearEngine(api: Engine, folder: Pick<RoundFolder, 'stateDirs'>, log: Logger): Promise<void> {
  // Else what has one would be its worker's to remove.
  for (const stateDir of folder.stateDirs) rmSync(join(stateDir, 'tasks'), { recursive: true, force: true })
  // Twice: the volume of the agent is one installation's, and containers of another may have it.
  for (const stateDir of [...folder.stateDirs, ...folder.stateDirs]) {
    if ((await readId(stateDir)) !== undefined) await removeInstallation(api, { stateDir, log })
  }
}

/** For the guard, which has nothing of a round but its folder. */
export async function clearEngineAt(socket: string, folder: RoundFolder, log: Logger): Promise<void> {
  await using api = openEngine({ ...unixAddress(socket), source: 'the round' }, { env: {}, log })
  await clearEngine(api, folder, log)
}

/** The marks of the round's workers on what they make. */
export async function installationsOf({ stateDirs }: Pick<RoundFolder, 'stateDirs'>): Promise<string[]> {
  const found = await Promise.all(stateDirs.map(readId))
  return found.filter((id) => id !== undefined)
}

/** undefined: no worker has begun there. */
async function readId(stateDir: string): Promise<string | undefined> {
  return await readInstallationId(stateDir).catch(() => undefined)
}

async function listObjects(api: Engine): Promise<EngineObject[]> {
  const all = { labels: [] }
  const [containers, volumes, networks] = await Promise.all([
    listContainers(api, all),
    listVolumes(api, all),
    listNetworks(api, all),
  ])
  return [
    ...containers.map(({ Id, Names, Labels }) => ({
      ...{ what: 'container' as const, name: Names[0]?.slice(1) ?? Id, labels: Labels },
    })),
    ...volumes.map(({ Name, Labels }) => ({ what: 'volume' as const, name: Name, labels: Labels ?? {} })),
    ...networks.map(({ Name, Labels }) => ({ what: 'network' as const, name: Name, labels: Labels ?? {} })),
  ]
}

function keyOf({ what, name }: EngineObject): string {
  return `${what} ${name}`
}
