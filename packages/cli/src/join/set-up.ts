import { rm } from 'node:fs/promises'
import { delimiter } from 'node:path'
import { bundleFolder } from '@openoz/machine'
import { AppError } from '@openoz/protocol'
import { verifyBundle, type WorkerFlagValues } from '@openoz/worker'
import { onStopSignals, type StopSignals } from '../stop-signals.ts'
import {
  type Installation,
  type InstallPlaces,
  installPlaces,
  removeFolders,
  saveInstallation,
} from './installation.ts'
import {
  giveBack,
  type JoinPlace,
  type JoinPlan,
  planJoin,
  redeemPlan,
  startAsPlanned,
  startJoined,
  stopFormer,
  type WorkerKey,
} from './join-worker.ts'
import { removeInstallationFile, withInstallation } from './lock-installation.ts'
import {
  assertNamesAreFree,
  bundleFolderOf,
  leadTo,
  placeBundle,
  removeOldBundles,
  removePrograms,
} from './put-in-place.ts'

interface SetUpContext {
  flags: WorkerFlagValues
  env: NodeJS.ProcessEnv
  say: (line: string) => void
}

/**
 * `oz-agent-worker join`: this machine becomes a worker, with the programs that it has. Without a token the worker that it has become is started again.
 */
export async function joinMachine({ flags, env, say }: SetUpContext): Promise<void> {
  const places = installPlaces(env)
  const plan = await planOf({ flags, env }, places)
  using stop = onStopSignals()
  await withInstallation(places, async ({ installation }) => {
    const place = { places, installation, say }
    if (plan) {
      const key = await takeKey(plan, { place, stop, undo: async () => {} })
      return startAsPlanned(plan, key, place)
    }
    if (installation.worker) return startJoined(installation.worker, place, { env, isUpdate: false })
    const problem = 'A join token is needed, in OZ_JOIN_TOKEN; `oz worker join-token` makes one.'
    throw new AppError('usage', { problem })
  })
}

/**
 * `oz-agent-worker set-up`, which `install.sh` starts from the bundle that it has unpacked: puts that bundle into place, and joins if there is a token.
 * What can be refused is asked for before anything is written. What fails, or is stopped by a signal, before the new worker is started leaves what was there
 * before; from then on signals wait for the end.
 */
export async function setUpMachine({ flags, env, say }: SetUpContext): Promise<void> {
  const from = bundleFolder()
  if (from === undefined) throw new AppError('usage', { problem: '`set-up` is for install.sh, in a bundle.' })
  // Who calls may keep their files to themselves; programs are for everybody who runs tasks.
  process.umask(0o022)
  const places = installPlaces(env)
  const manifest = await verifyBundle(from)
  await assertNamesAreFree(places)
  const plan = await planOf({ flags, env }, places)

  using stop = onStopSignals()
  await withInstallation(places, async ({ before, installation }) => {
    const place = { places, installation, say }
    const undo = () => undoSetUp(places, { before, installation, placed: manifest.hash })
    const putInPlace = async () => {
      await saveInstallation(places, installation)
      await placeBundle({ from, manifest, signal: stop.first }, place)
      installation.bundle = manifest.hash
      await saveInstallation(places, installation)
      await leadTo(manifest.hash, place)
      await saveInstallation(places, installation)
    }
    let key: WorkerKey | undefined
    if (plan) key = await takeKey(plan, { place, stop, prepare: putInPlace, undo })
    else
      await putInPlace().catch(async (error: unknown) => {
        await undo()
        throw stop.first.aborted ? interrupted(false) : error
      })
    say(`openoz ${manifest.oz} is installed in ${places.bundles}, and its programs in ${places.bin}.`)
    if (!(env.PATH ?? '').split(delimiter).includes(places.bin)) say(`${places.bin} is not on your PATH.`)
    if (plan && key) await startAsPlanned(plan, key, place)
    else if (installation.worker && before?.bundle !== manifest.hash) {
      await startJoined(installation.worker, place, { env, isUpdate: true })
    }
    // The same one again replaces nothing, and agents may still be at work in the one before.
    if (before?.bundle !== manifest.hash) await removeOldBundles(places, [manifest.hash, before?.bundle])
  })
}

async function planOf(
  { flags, env }: Pick<SetUpContext, 'flags' | 'env'>,
  places: InstallPlaces,
): Promise<JoinPlan | undefined> {
  // Nothing that is started from here is to have it.
  const { OZ_JOIN_TOKEN: token, ...rest } = env
  return token ? planJoin({ token, flags, env: rest }, places) : undefined
}

interface TakeKey {
  place: JoinPlace
  stop: StopSignals
  /** Before the token is spent. */
  prepare?: () => Promise<void>
  undo: () => Promise<void>
}

/** Until the worker that this machine was has stopped, everything can be undone; the new key is ended then. */
async function takeKey(plan: JoinPlan, { place, stop, prepare = async () => {}, undo }: TakeKey): Promise<WorkerKey> {
  let key: WorkerKey | undefined
  try {
    await prepare()
    stop.first.throwIfAborted()
    key = await redeemPlan(plan, place, stop.first)
    stop.first.throwIfAborted()
    await stopFormer(plan, place, stop.first)
    stop.first.throwIfAborted()
    return key
  } catch (error) {
    await giveBack(plan, key, place)
    await undo()
    throw stop.first.aborted ? interrupted(key !== undefined) : error
  }
}

function interrupted(isSpent: boolean): AppError {
  const token = isSpent ? 'The join token is used up: ask for another one.' : 'A join token was not used.'
  return new AppError('installation_interrupted', { token })
}

async function undoSetUp(
  places: InstallPlaces,
  { before, installation, placed }: { before: Installation | undefined; installation: Installation; placed: string },
): Promise<void> {
  if (before?.bundle !== placed) await rm(bundleFolderOf(places, placed), { recursive: true, force: true })
  if (before) {
    if (before.bundle !== undefined) await leadTo(before.bundle, { places, installation })
    else await removePrograms(places)
    await saveInstallation(places, { ...before, folders: installation.folders })
    return
  }
  await removePrograms(places)
  await removeInstallationFile(places)
  await removeFolders(installation)
}
