import { existsSync } from 'node:fs'
import { rm } from 'node:fs/promises'
import { hostname } from 'node:os'
import { delimiter, dirname, join } from 'node:path'
import { nodeCommand } from '@openoz/machine'
import { AppError } from '@openoz/protocol'
import {
  type BackendName,
  directLayout,
  readWorkerConfig,
  type WorkerFlagValues,
  type WorkerOptions,
} from '@openoz/worker'
import { isSameServer } from '../connection.ts'
import { workerProgram } from '../program-files.ts'
import {
  changeService,
  installService,
  reachSystemd,
  serviceArguments,
  serviceEnvironment,
  serviceFiles,
  servicePath,
} from '../service/worker-service.ts'
import { workerEnvironment } from '../stack/worker-environment.ts'
import { workerIdFromHost } from '../stack/worker-id.ts'
import {
  findInBackground,
  type StartedWorker,
  saveBackgroundWorker,
  startInBackground,
  stopInBackground,
} from './background-worker.ts'
import { type ChosenBackend, chooseBackend } from './choose-backend.ts'
import { endKey, endWorkerKey, keyLeft, readWorkerKey } from './end-key.ts'
import {
  type Installation,
  type InstallPlaces,
  type JoinedWorker,
  makeFolder,
  removeFolders,
  saveInstallation,
} from './installation.ts'
import { type JoinAttempt, readAttempt, removeAttempt, saveAttempt } from './join-attempt.ts'
import { reportJoined } from './join-report.ts'
import { workerCommand } from './put-in-place.ts'
import { checkToken, redeemToken } from './redeem-token.ts'
import { engineVariables, removeContainers, removeKeeper, removeState, stopWorker } from './remove-worker.ts'

/**
 * How this machine becomes a worker. `planJoin` looks at everything that may be wrong and changes nothing, here or there; `redeemPlan` spends the token and
 * `stopFormer` stops the worker that the machine was: until then `giveBack` undoes both. `startAsPlanned` writes what the worker needs and keeps it
 * running: by systemd where that answers, else as a process in the background.
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
  keptBy: JoinedWorker['keptBy']
  /** Of this token, by an installer that was killed. */
  attempt: JoinAttempt | undefined
}

/** Where a joined worker runs from, and who is told. */
export interface JoinPlace {
  places: InstallPlaces
  installation: Installation
  say: (line: string) => void
}

export interface WorkerKey {
  apiKey: string
  keyId: string
}

export async function planJoin({ flags, env: given, token }: JoinWish, places: InstallPlaces): Promise<JoinPlan> {
  const { keptBy, env } = await keeperHere(given)
  const wish = { flags, env, token }
  const serverUrl = serverOf(wish)
  const attempt = await readAttempt(places, token)
  // It may be spent by now, and is answered all the same.
  const { workerId: only } = attempt ?? (await checkToken({ serverUrl, token, env }))
  const workerId = flags.workerId ?? only ?? workerIdFromHost(hostname())
  if (only !== undefined && only !== workerId)
    throw new AppError('join_token_other_worker', { allowed: only, workerId })
  const chosen = await chooseBackend((flags.backend ?? 'auto') as 'auto' | BackendName, env)
  const plan = { wish, workerId, serverUrl, keptBy, attempt, ...chosen }
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

/** Resolves with the key, which nothing has yet. */
export async function redeemPlan(
  { wish, serverUrl, workerId, attempt }: JoinPlan,
  { places, installation }: JoinPlace,
  signal: AbortSignal,
): Promise<WorkerKey> {
  const { nonce } = attempt ?? (await saveAttempt(places, { token: wish.token, workerId }))
  const former = installation.worker
  const isSame = former?.workerId === workerId && isSameServer(former.serverUrl, serverUrl)
  const workerKey = former && isSame ? await readWorkerKey(former) : undefined
  const { api_key, key_id } = await redeemToken({ ...wish, serverUrl }, { workerId, nonce, workerKey, signal })
  return { apiKey: api_key, keyId: key_id }
}

/** Before the new one is started. What the new one does not have in common with it goes when nothing can be undone any more. */
export async function stopFormer({ wish }: JoinPlan, place: JoinPlace, signal: AbortSignal): Promise<void> {
  const former = place.installation.worker
  if (!former) return
  try {
    await stopWorker(former, { env: wish.env, say: place.say, signal })
    signal.throwIfAborted()
  } catch (error) {
    if (signal.aborted) place.say(`Worker ${former.workerId} stops; \`oz-agent-worker join\` starts it again.`)
    throw error
  }
}

/** The key opens nothing any more, and nothing is known of the token. */
export async function giveBack(
  { serverUrl, workerId, wish }: JoinPlan,
  key: WorkerKey | undefined,
  { places, say }: JoinPlace,
): Promise<void> {
  if (key && !(await endKey({ serverUrl, env: wish.env, ...key }))) say(keyLeft({ serverUrl, workerId, ...key }))
  await removeAttempt(places)
}

/** In place of the worker that this machine was, if it was one. */
export async function startAsPlanned(plan: JoinPlan, key: WorkerKey, place: JoinPlace): Promise<void> {
  const { places, installation } = place
  const { wish, serverUrl, workerId, backend, keptBy } = plan
  const config = configOf(plan, key.apiKey)
  const stateDir = config.docker?.stateDir ?? directLayout(config).stateDir
  const files = serviceFiles({ user: keptBy === 'user' }, wish.env)
  const keyFile = keptBy === 'nobody' ? backgroundFile(places) : files.environment
  const about = { serverUrl, workerId, backend, keptBy, stateDir, keyFile }
  const worker: JoinedWorker = { ...about, keyId: key.keyId, engine: engineVariables(wish.env) }
  if (installation.worker) await removeFormer(installation.worker, worker, { ...place, env: wish.env })
  await makeFolder(stateDir, installation)
  if (keptBy === 'user') await makeFolder(dirname(files.unit), installation)
  installation.worker = worker
  await saveInstallation(places, installation)
  const flags = { ...wish.flags, workerId, backend, serverUrl }
  let started: StartedWorker | undefined
  try {
    started = await startNew({ flags, config }, worker, place)
  } finally {
    // Without the file the key is lost, and the installer that is started again gets another one.
    if (existsSync(keyFile)) await removeAttempt(places)
  }
  reportJoined({ worker, why: plan.why, started, env: wish.env }, place)
  if (started?.problem) throw started.problem
}

/** Its key, what starts it, and what it has where the new one does not look. */
async function removeFormer(
  former: JoinedWorker,
  next: JoinedWorker,
  { installation, env, say }: JoinPlace & { env: NodeJS.ProcessEnv },
): Promise<void> {
  await endWorkerKey(former, { env, say })
  if (former.keptBy === next.keptBy) await rm(former.keyFile, { force: true })
  else await removeKeeper(former, { env, say })
  const isElsewhere = former.stateDir !== next.stateDir
  if (former.backend === 'docker' && (isElsewhere || next.backend !== 'docker'))
    await removeContainers(former, { env, say })
  if (!isElsewhere) return
  await removeState(former, { installation, say })
  await removeFolders({ folders: installation.folders.filter((folder) => folder === former.stateDir) })
}

/** Starts again what has joined: after a restart of the machine, or with the programs of an update. */
export async function startJoined(
  worker: JoinedWorker,
  place: JoinPlace,
  { env, isUpdate }: { env: NodeJS.ProcessEnv; isUpdate: boolean },
): Promise<void> {
  const { workerId, keptBy, stateDir, keyFile } = worker
  if (keptBy !== 'nobody') {
    const flags = { user: keptBy === 'user' }
    const reached = (await reachSystemd(flags, env)) ?? env
    await changeService(isUpdate ? 'restart' : 'start', { flags, env: reached, say: place.say })
    return
  }
  // Its agents go on, and the next one takes them over.
  if (isUpdate) await stopInBackground(worker, 'SIGUSR2')
  const running = await findInBackground(worker)
  if (running !== undefined) return place.say(`Worker ${workerId} runs already: process ${running}.`)
  const { pid, problem } = await startInBackground(keyFile, { stateDir })
  if (problem) throw problem
  place.say(`Worker ${workerId} runs: process ${pid}.`)
}

/** Who can keep a worker running here, and the variables for whoever asks that. */
async function keeperHere(env: NodeJS.ProcessEnv): Promise<Pick<JoinPlan, 'keptBy'> & { env: NodeJS.ProcessEnv }> {
  const user = process.getuid?.() !== 0
  const reached = process.platform === 'linux' ? await reachSystemd({ user }, env) : undefined
  return reached ? { keptBy: user ? 'user' : 'machine', env: reached } : { keptBy: 'nobody', env }
}

function backgroundFile({ config }: InstallPlaces): string {
  return join(config, 'oz-agent-worker.json')
}

/** Undefined where systemd starts it. */
async function startNew(
  worker: { flags: WorkerFlagValues; config: WorkerOptions },
  { keptBy, keyFile, stateDir }: JoinedWorker,
  { places, installation, say }: JoinPlace,
): Promise<StartedWorker | undefined> {
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
