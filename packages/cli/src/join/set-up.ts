import { rm } from 'node:fs/promises'
import { delimiter } from 'node:path'
import { bundleFolder } from '@openoz/machine'
import { AppError } from '@openoz/protocol'
import { verifyBundle, type WorkerFlagValues } from '@openoz/worker'
import {
  type Installation,
  type InstallPlaces,
  installationFile,
  installPlaces,
  makeFolder,
  readInstallation,
  removeFolders,
  saveInstallation,
} from './installation.ts'
import { type JoinPlan, planJoin, redeemPlan, startAsPlanned, startJoined } from './join-worker.ts'
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
  const installation = (await readInstallation(places)) ?? { folders: [] }
  const place = { places, installation, say }
  const plan = await planOf({ flags, env })
  if (plan) return startAsPlanned(plan, await redeemPlan(plan), place)
  if (installation.worker) return startJoined(installation.worker, place, { env, isUpdate: false })
  const problem = 'A join token is needed, in OZ_JOIN_TOKEN; `oz worker join-token` makes one.'
  throw new AppError('usage', { problem })
}

/**
 * `oz-agent-worker set-up`, which `install.sh` starts from the bundle that it has unpacked: puts that bundle into place, and joins if there is a token.
 * What can be refused is asked for before anything is written, and what fails until the token is spent leaves what was there before.
 */
export async function setUpMachine({ flags, env, say }: SetUpContext): Promise<void> {
  const from = bundleFolder()
  if (from === undefined) throw new AppError('usage', { problem: '`set-up` is for install.sh, in a bundle.' })
  // Who calls may keep their files to themselves; programs are for everybody who runs tasks.
  process.umask(0o022)
  const places = installPlaces(env)
  const manifest = await verifyBundle(from)
  await assertNamesAreFree(places)
  const before = await readInstallation(places)
  const plan = await planOf({ flags, env })

  const installation: Installation = before ? { ...before } : { folders: [] }
  const place = { places, installation, say }
  let apiKey = ''
  try {
    await makeFolder(places.config, installation, 0o700)
    await saveInstallation(places, installation)
    await placeBundle({ from, manifest }, place)
    if (plan) apiKey = await redeemPlan(plan)
    await leadTo(manifest.hash, place)
    installation.bundle = manifest.hash
    await saveInstallation(places, installation)
  } catch (error) {
    await undo(places, { before, installation, placed: manifest.hash })
    throw error
  }
  say(`openoz ${manifest.oz} is installed in ${places.bundles}, and its programs in ${places.bin}.`)
  if (!(env.PATH ?? '').split(delimiter).includes(places.bin)) say(`${places.bin} is not on your PATH.`)
  if (plan) await startAsPlanned(plan, apiKey, place)
  else if (installation.worker && before?.bundle !== manifest.hash) {
    await startJoined(installation.worker, place, { env, isUpdate: true })
  }
  await removeOldBundles(places, [manifest.hash, before?.bundle])
}

async function planOf({ flags, env }: Pick<SetUpContext, 'flags' | 'env'>): Promise<JoinPlan | undefined> {
  // Nothing that is started from here is to have it.
  const { OZ_JOIN_TOKEN: token, ...rest } = env
  return token ? planJoin({ token, flags, env: rest }) : undefined
}

async function undo(
  places: InstallPlaces,
  { before, installation, placed }: { before: Installation | undefined; installation: Installation; placed: string },
): Promise<void> {
  if (before?.bundle !== placed) await rm(bundleFolderOf(places, placed), { recursive: true, force: true })
  if (before) {
    if (before.bundle !== undefined) await leadTo(before.bundle, { places, installation })
    await saveInstallation(places, { ...before, folders: installation.folders })
    return
  }
  await removePrograms(places)
  await rm(installationFile(places), { force: true })
  await removeFolders(installation)
}
