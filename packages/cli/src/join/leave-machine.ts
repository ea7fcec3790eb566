import { existsSync } from 'node:fs'
import { endWorkerKey } from './end-key.ts'
import {
  type Installation,
  type InstallPlaces,
  installPlaces,
  type JoinedWorker,
  readInstallation,
  removeFolders,
} from './installation.ts'
import { removeAttempt } from './join-attempt.ts'
import { removeInstallationFile, withInstallation } from './lock-installation.ts'
import { removePrograms } from './put-in-place.ts'
import { removeContainers, removeKeeper, removeState, stopWorker } from './remove-worker.ts'

interface LeaveContext {
  env: NodeJS.ProcessEnv
  say: (line: string) => void
  /** The worker stops, and everything stays. */
  stopOnly: boolean
}

/**
 * `oz-agent-worker leave`: the way back. The worker saves and ends its agents, its key is ended, and everything goes that was made by `join` and by
 * `install.sh`, the program that runs this among it, and what they had begun when they were killed. What others have put into our folders stays, and is named.
 */
export async function leaveMachine({ env, say, stopOnly }: LeaveContext): Promise<void> {
  const places = installPlaces(env)
  if (stopOnly) {
    const worker = (await readInstallation(places))?.worker
    if (worker) await withInstallation(places, () => stopWorker(worker, { say, env }))
    else say('This machine has not joined.')
    return
  }
  if (!existsSync(places.config) && !existsSync(places.bundles)) return say(nothingHere)
  const left = await withInstallation(places, async ({ before, installation }) => {
    if (before?.worker) await removeWorker(before.worker, { installation, env, say })
    const hadPrograms = await removePrograms(places)
    const lost = await removeAttempt(places)
    if (lost)
      say(
        `A join as ${lost.workerId} was cut short. Nobody knows its key, if it has one; \`oz api-key expire\` ends it.`,
      )
    await removeInstallationFile(places)
    return before || hadPrograms ? installation : undefined
  })
  if (!left) return say(nothingHere)
  const kept = await removeFolders({ folders: [...new Set([...left.folders, places.bundles])] })
  say('Removed.')
  for (const folder of kept.filter((path) => isOurs(path, places)))
    say(`${folder} stays: there is something else in it.`)
}

const nothingHere = 'This machine has joined nothing, and nothing was installed by install.sh.'

async function removeWorker(
  worker: JoinedWorker,
  { installation, env, say }: { installation: Installation; env: NodeJS.ProcessEnv; say: (line: string) => void },
): Promise<void> {
  await stopWorker(worker, { say, env })
  await endWorkerKey(worker, { env, say })
  await removeKeeper(worker, { env, say })
  if (worker.backend === 'docker') await removeContainers(worker, { env, say })
  await removeState(worker, { installation, say })
}

/** Parents that others use as well, like `~/.local`, go without saying. */
function isOurs(folder: string, { bundles, config }: InstallPlaces): boolean {
  return [bundles, config].includes(folder)
}
