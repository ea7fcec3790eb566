import { rm } from 'node:fs/promises'
import { hostname } from 'node:os'
import { delimiter, join } from 'node:path'
import { nodeCommand } from '@openoz/machine'
import { AppError } from '@openoz/protocol'
import {
  type BackendName,
  directLayout,
  readWorkerConfig,
  type WorkerFlagValues,
  type WorkerOptions,
} from '@openoz/worker'
import { workerProgram } from '../program-files.ts'
import {
  changeService,
  installService,
  serviceArguments,
  serviceEnvironment,
  serviceFiles,
  servicePath,
  systemdRuns,
} from '../service/worker-service.ts'
import { workerEnvironment } from '../stack/worker-environment.ts'
import { workerIdFromHost } from '../stack/worker-id.ts'
import {
  backgroundLog,
  findInBackground,
  saveBackgroundWorker,
  startInBackground,
  stopInBackground,
} from './background-worker.ts'
import { type ChosenBackend, chooseBackend } from './choose-backend.ts'
import { endKey } from './end-key.ts'
import {
  type Installation,
  type InstallPlaces,
  type JoinedWorker,
  makeFolder,
  saveInstallation,
} from './installation.ts'
import { workerCommand } from './put-in-place.ts'
import { checkToken, redeemToken } from './redeem-token.ts'

/**
 * How this machine becomes a worker, in three steps: `planJoin` looks at everything that may be wrong and changes nothing, here or there; `redeemPlan`
 * spends the token; `startAsPlanned` writes what the worker needs and keeps it running: by systemd where that runs, else as a process in the background.
 */

export interface JoinWish {
  token: string
  /** As for `oz-agent-worker`; `backend` may be `auto`. */
  flags: WorkerFlagValues
  env: NodeJS.ProcessEnv
}

export interface JoinPlan extends ChosenBackend {
  wish: JoinWish
  workerId: string
  serverUrl: string
}

/** Where a joined worker runs from, and who is told. */
export interface JoinPlace {
  places: InstallPlaces
  installation: Installation
  say: (line: string) => void
}

export async function planJoin(wish: JoinWish): Promise<JoinPlan> {
  const { flags, env, token } = wish
  const serverUrl = serverOf(wish)
  const { workerId: only } = await checkToken({ serverUrl, token, env })
  const workerId = flags.workerId ?? only ?? workerIdFromHost(hostname())
  if (only !== undefined && only !== workerId)
    throw new AppError('join_token_other_worker', { allowed: only, workerId })
  const chosen = await chooseBackend((flags.backend ?? 'auto') as 'auto' | BackendName, env)
  const plan = { wish, workerId, serverUrl, ...chosen }
  configOf(plan, 'wk-not-known-yet')
  return plan
}

/** Of the flags and variables alone: a login that is saved here was meant for somebody. */
function serverOf({ flags, env }: JoinWish): string {
  const url = flags.serverUrl ?? flags.serverRootUrl ?? env.OZ_SERVER_URL ?? env.WARP_SERVER_ROOT_URL
  if (url === undefined || url === '') {
    throw new AppError('usage', {
      problem: 'Which control plane to join is to be said: --server-url or OZ_SERVER_URL.',
    })
  }
  return url
}

/** What the worker will be told. Throws what is wrong with the flags. */
function configOf({ wish, workerId, backend, serverUrl }: JoinPlan, apiKey: string): WorkerOptions {
  const flags = { ...wish.flags, workerId, backend, serverUrl, apiKey }
  return readWorkerConfig({ flags, env: wish.env })
}

/** Resolves with the key. */
export async function redeemPlan({ wish, serverUrl, workerId }: JoinPlan): Promise<string> {
  return (await redeemToken({ ...wish, serverUrl }, workerId)).api_key
}

/** In place of the worker that this machine was, if it was one. */
export async function startAsPlanned(plan: JoinPlan, apiKey: string, place: JoinPlace): Promise<void> {
  const { places, installation } = place
  const { wish, serverUrl, workerId, backend } = plan
  const before = installation.worker
  if (before) {
    await stopWorker(before, place, wish.env)
    await endKey(before, wish.env)
    await rm(before.keyFile, { force: true })
  }
  const config = configOf(plan, apiKey)
  const stateDir = config.docker?.stateDir ?? directLayout(config).stateDir
  await makeFolder(places.config, installation, 0o700)
  await makeFolder(stateDir, installation)
  const keptBy = keeperHere(wish.env)
  const keyFile =
    keptBy === 'nobody' ? backgroundFile(places) : serviceFiles({ user: keptBy === 'user' }, wish.env).environment
  installation.worker = { serverUrl, workerId, backend, keptBy, stateDir, keyFile }
  await saveInstallation(places, installation)
  const flags = { ...wish.flags, workerId, backend, serverUrl }
  const pid = await startNew({ flags, config }, installation.worker, place)
  report({ plan, worker: installation.worker, pid }, place)
}

/** Starts again what has joined: after a restart of the machine, or with the programs of an update. */
export async function startJoined(
  worker: JoinedWorker,
  place: JoinPlace,
  { env, isUpdate }: { env: NodeJS.ProcessEnv; isUpdate: boolean },
): Promise<void> {
  const { workerId, keptBy, stateDir, keyFile } = worker
  if (keptBy !== 'nobody') {
    await changeService(isUpdate ? 'restart' : 'start', { flags: { user: keptBy === 'user' }, env, say: place.say })
    return
  }
  // Its agents go on, and the next one takes them over.
  if (isUpdate) await stopInBackground(worker, 'SIGUSR2')
  const running = await findInBackground(worker)
  if (running !== undefined) return place.say(`Worker ${workerId} runs already: process ${running}.`)
  const pid = await startInBackground(keyFile, { stateDir })
  place.say(`Worker ${workerId} runs: process ${pid}.`)
}

/** Its agents are ended with it, and their work is saved first. */
export async function stopWorker(
  worker: JoinedWorker,
  { say }: Pick<JoinPlace, 'say'>,
  env: NodeJS.ProcessEnv,
): Promise<void> {
  if (worker.keptBy !== 'nobody') {
    await changeService('stop', { flags: { user: worker.keptBy === 'user' }, env, say })
    return
  }
  const wasRunning = await stopInBackground(worker, 'SIGTERM')
  say(wasRunning ? `Worker ${worker.workerId} has stopped.` : `Worker ${worker.workerId} was not running.`)
}

function keeperHere(env: NodeJS.ProcessEnv): JoinedWorker['keptBy'] {
  const user = process.getuid?.() !== 0
  if (process.platform !== 'linux' || !systemdRuns({ user }, env)) return 'nobody'
  return user ? 'user' : 'machine'
}

function backgroundFile({ config }: InstallPlaces): string {
  return join(config, 'oz-agent-worker.json')
}

/** Its pid, in the background. */
async function startNew(
  worker: { flags: WorkerFlagValues; config: WorkerOptions },
  { keptBy, keyFile, stateDir }: JoinedWorker,
  { places, installation, say }: JoinPlace,
): Promise<number | undefined> {
  const { env: given } = worker.config
  const isOfBundle = installation.bundle !== undefined
  // Its own `oz` before any other that there may be.
  const env = isOfBundle ? { ...given, PATH: [places.bin, given.PATH ?? ''].join(delimiter) } : given
  const program = isOfBundle ? workerCommand(places) : [...nodeCommand(), workerProgram]
  if (keptBy !== 'nobody') {
    await installService(worker, { flags: { user: keptBy === 'user' }, env, say, program })
    return undefined
  }
  const path = servicePath(worker.config, env)
  const background = {
    command: [...program, ...serviceArguments(worker)],
    environment: { ...workerEnvironment(env), ...serviceEnvironment(worker, env), PATH: path } as Record<
      string,
      string
    >,
  }
  await saveBackgroundWorker(keyFile, background)
  return startInBackground(keyFile, { stateDir })
}

function report(
  { plan, worker, pid }: { plan: JoinPlan; worker: JoinedWorker; pid: number | undefined },
  { places, installation, say }: JoinPlace,
): void {
  const { workerId, keptBy, keyFile } = worker
  // Where the names are not on the PATH they are said in full.
  const isOnPath = (plan.wish.env.PATH ?? '').split(delimiter).includes(places.bin)
  const program =
    installation.bundle !== undefined && !isOnPath ? join(places.bin, 'oz-agent-worker') : 'oz-agent-worker'
  const systemctl = keptBy === 'user' ? 'systemctl --user' : 'systemctl'
  const isKept = keptBy !== 'nobody'
  const rows: [string, string][] = [
    ['backend', `${plan.backend} (${plan.why})`],
    [
      'runs',
      isKept
        ? 'as a service of systemd'
        : `in the background, process ${pid}; after a restart of the machine \`${program} join\` starts it`,
    ],
    ['key', `${keyFile}, mode 0600`],
    ['log', isKept ? `journalctl ${keptBy === 'user' ? '--user ' : ''}-u oz-agent-worker` : backgroundLog(worker)],
    ['stop', isKept ? `${systemctl} stop oz-agent-worker` : `${program} leave --stop`],
    ['remove', `${program} leave`],
  ]
  say(`This machine has joined ${plan.serverUrl} as worker ${workerId}.`)
  for (const [name, value] of rows) say(`  ${name.padEnd(9)}${value}`)
}
