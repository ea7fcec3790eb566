import { readdir, rm } from 'node:fs/promises'
import { join } from 'node:path'
import { lockFolder } from '@openoz/machine'
import { messageOf } from '@openoz/protocol'
import { createLogger } from '../log.ts'
import { uninstallService } from '../service/worker-service.ts'
import { endKey } from './end-key.ts'
import {
  type Installation,
  type InstallPlaces,
  installationFile,
  installPlaces,
  type JoinedWorker,
  readInstallation,
  removeFolders,
} from './installation.ts'
import { stopWorker } from './join-worker.ts'
import { removePrograms } from './put-in-place.ts'

interface LeaveContext {
  env: NodeJS.ProcessEnv
  say: (line: string) => void
  /** The worker stops, and everything stays. */
  stopOnly: boolean
}

/**
 * `oz-agent-worker leave`: the way back. The worker saves and ends its agents, its key is ended, and everything goes that was made by `join` and by
 * `install.sh`, the program that runs this among it. What others have put into our folders stays, and is named.
 */
export async function leaveMachine({ env, say, stopOnly }: LeaveContext): Promise<void> {
  const places = installPlaces(env)
  const installation = await readInstallation(places)
  if (!installation) {
    say('This machine has joined nothing, and nothing was installed by install.sh.')
    return
  }
  const { worker } = installation
  if (stopOnly) {
    if (worker) await stopWorker(worker, { say }, env)
    else say('This machine has not joined.')
    return
  }
  if (worker) await removeWorker(worker, { installation, env, say })
  if (installation.bundle !== undefined) await removePrograms(places)
  await rm(installationFile(places), { force: true })
  const kept = await removeFolders(installation)
  say('Removed.')
  for (const folder of kept.filter((path) => isOurs(path, places)))
    say(`${folder} stays: there is something else in it.`)
}

async function removeWorker(
  worker: JoinedWorker,
  { installation, env, say }: { installation: Installation; env: NodeJS.ProcessEnv; say: (line: string) => void },
): Promise<void> {
  await stopWorker(worker, { say }, env)
  const isEnded = await endKey(worker, env)
  if (!isEnded)
    say(`${worker.serverUrl} could not be asked to end the key of ${worker.workerId}; \`oz api-key expire\` does it.`)
  if (worker.keptBy === 'nobody') await rm(worker.keyFile, { force: true })
  else await uninstallService({ flags: { user: worker.keptBy === 'user' }, env, say })
  if (worker.backend === 'docker') await removeContainers(worker, { env, say })
  await removeState(worker, { installation, say })
}

/** What the worker has on the engine. That one may be away, or gone for good: the machine leaves all the same. */
async function removeContainers(
  { stateDir }: JoinedWorker,
  { env, say }: { env: NodeJS.ProcessEnv; say: (line: string) => void },
): Promise<void> {
  if (await isInUse(stateDir)) return
  const { findEngine, openEngine, removeInstallation } = await import('@openoz/worker')
  try {
    const log = createLogger({ name: 'leave', level: 'error', env })
    await using engine = openEngine(findEngine(env), { env, log })
    const { kept, used } = await removeInstallation(engine, { stateDir, log })
    for (const container of kept) say(`The container ${container} stays, with its volumes: it was kept on purpose.`)
    for (const volume of used)
      say(`The volume ${volume} stays: a container uses it. \`docker volume rm ${volume}\` removes it after that one.`)
  } catch (error) {
    say(`What the worker has on its engine could not be removed: ${messageOf(error)}`)
    say(
      'It has the label oz-worker-state: `docker ps -a --filter label=oz-worker-state`, and the same of networks and volumes.',
    )
  }
}

/** A folder that was there before, or that another worker uses, is not ours to remove; and work that exists nowhere else is nobody's. */
async function removeState(
  { stateDir }: JoinedWorker,
  { installation, say }: { installation: Installation; say: (line: string) => void },
): Promise<void> {
  for (const name of ['worker.log', 'worker.pid']) await rm(join(stateDir, name), { force: true })
  if (!installation.folders.includes(stateDir)) return say(`${stateDir} stays: it was there before.`)
  if (await isInUse(stateDir)) return say(`${stateDir} stays: another worker uses it.`)
  const kept: string[] = []
  for (const name of ['tasks', 'saved-workspaces'])
    if ((await namesIn(join(stateDir, name))).length > 0) kept.push(name)
  for (const name of await namesIn(stateDir)) {
    if (!kept.includes(name)) await rm(join(stateDir, name), { recursive: true, force: true })
  }
  for (const name of kept) say(`${join(stateDir, name)} stays: it holds work that has never reached the control plane.`)
}

function namesIn(folder: string): Promise<string[]> {
  return readdir(folder).catch((): string[] => [])
}

async function isInUse(stateDir: string): Promise<boolean> {
  const folder = join(stateDir, 'instances')
  return (await namesIn(folder)).some((name) => {
    try {
      const lock = lockFolder(join(folder, name))
      if ('heldBy' in lock) return true
      lock.release()
    } catch {
      // No folder of an instance, or one that is gone by now.
    }
    return false
  })
}

/** Parents that others use as well, like `~/.local`, go without saying. */
function isOurs(folder: string, { bundles, config }: InstallPlaces): boolean {
  return [bundles, config].includes(folder)
}
