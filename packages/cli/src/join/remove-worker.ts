import { readdir, rm } from 'node:fs/promises'
import { join } from 'node:path'
import { lockFolder } from '@openoz/machine'
import { AppError, messageOf } from '@openoz/protocol'
import { createLogger } from '../log.ts'
import { changeService, reachSystemd, removeServiceFiles, uninstallService } from '../service/worker-service.ts'
import { backgroundFiles, stopInBackground } from './background-worker.ts'
import type { Installation, JoinedWorker } from './installation.ts'

/** What a worker leaves on its machine and its engine, when the machine becomes another worker or none. */
interface RemoveContext {
  env: NodeJS.ProcessEnv
  say: (line: string) => void
}

/**
 * Its agents are ended with it, and their work is saved first. Rejects with `worker_out_of_reach` when it goes on; who has removed the service by hand, or
 * has lost its systemd, gets rid of the rest all the same. With `signal` aborted it stops, and nobody waits for that.
 */
export async function stopWorker(
  worker: JoinedWorker,
  { env, say, signal }: RemoveContext & { signal?: AbortSignal },
): Promise<void> {
  const { keptBy, workerId, stateDir } = worker
  if (keptBy === 'nobody') {
    const wasRunning = await stopInBackground(worker, 'SIGTERM', signal)
    say(wasRunning ? `Worker ${workerId} has stopped.` : `Worker ${workerId} was not running.`)
    return
  }
  const flags = { user: keptBy === 'user' }
  try {
    const reached = await reachSystemd(flags, env)
    if (!reached) throw new Error(flags.user ? 'the systemd of this user does not answer' : 'systemd does not answer')
    await changeService('stop', { flags, env: reached, say })
  } catch (cause) {
    const problem = messageOf(cause).replace(/\.$/, '')
    if (await isInUse(stateDir)) throw new AppError('worker_out_of_reach', { workerId, problem }, { cause })
    say(`Worker ${workerId} does not run. Its service could not be told to stop: ${problem}.`)
  }
}

/** What starts it, and its key with that. */
export async function removeKeeper({ keptBy, keyFile }: JoinedWorker, { env, say }: RemoveContext): Promise<void> {
  if (keptBy !== 'nobody') {
    const flags = { user: keptBy === 'user' }
    const reached = await reachSystemd(flags, env)
    try {
      if (reached) await uninstallService({ flags, env: reached, say })
    } catch (error) {
      say(`systemd could not be told that the service is gone: ${messageOf(error)}`)
    }
    await removeServiceFiles(flags, env)
  }
  await rm(keyFile, { force: true })
}

/** What the worker has on the engine, its own and not that of whoever asks. It may be away, or gone for good: the machine leaves all the same. */
export async function removeContainers(
  { stateDir, engine: variables }: JoinedWorker,
  { env, say }: RemoveContext,
): Promise<void> {
  if (await isInUse(stateDir)) return
  const { findEngine, openEngine, removeInstallation } = await import('@openoz/worker')
  const ofWorker = variables === undefined ? env : { ...withoutEngine(env), ...variables }
  try {
    const log = createLogger({ name: 'leave', level: 'error', env })
    await using engine = openEngine(findEngine(ofWorker), { env: ofWorker, log })
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

/** By which a worker finds its engine. */
export function engineVariables(env: NodeJS.ProcessEnv): Record<string, string> {
  const found = Object.entries(env).filter(([name, value]) => name.startsWith('DOCKER_') && value)
  return Object.fromEntries(found) as Record<string, string>
}

function withoutEngine(env: NodeJS.ProcessEnv): NodeJS.ProcessEnv {
  return Object.fromEntries(Object.entries(env).filter(([name]) => !name.startsWith('DOCKER_')))
}

/** A folder that was there before, or that another worker uses, is not ours to remove; and work that exists nowhere else is nobody's. */
export async function removeState(
  { stateDir }: JoinedWorker,
  { installation, say }: { installation: Pick<Installation, 'folders'>; say: (line: string) => void },
): Promise<void> {
  for (const name of backgroundFiles) await rm(join(stateDir, name), { force: true })
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

/** By a worker that runs. */
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
