import { mkdir } from 'node:fs/promises'
import { join } from 'node:path'
import { writePrivateFile } from '@openoz/machine'
import { repositoriesOf, type TaskAssignment } from '@openoz/protocol'
import type { Logger } from 'pino'
import { createMirrors, type Mirrors } from '../mirrors.ts'
import type { TaskNetwork } from '../task-network.ts'
import type { WorkerOptions } from '../worker-options.ts'
import type { DirectTaskContext } from './direct-context.ts'

/** Mirrors of one task on their way. */
export interface Mirroring {
  /** Once they touch its folder no more. Never rejects. */
  stop(): Promise<void>
}

/** undefined: the operator wants none. */
export async function openMirrors(options: {
  worker: WorkerOptions
  stateDir: string
  network: TaskNetwork
  log: Logger
}): Promise<Mirrors | undefined> {
  const { worker, stateDir, network, log } = options
  const { serverUrl, apiKey, env } = worker
  if (env.OZ_GIT_MIRRORS === 'off') return undefined
  const folder = join(stateDir, 'mirrors')
  await mkdir(folder, { recursive: true, mode: 0o700 })
  const file = join(stateDir, 'git-authorities.pem')
  if (network.authorities) await writePrivateFile(file, network.authorities.all)
  const authorities = network.authorities && file
  return createMirrors({ folder, serverUrl, apiKey, env, authorities, log })
}

/** Beside everything else: an agent starts and says hello however slow a host of repositories is. */
export async function mirrorForTask(
  mirrors: Mirrors | undefined,
  assignment: TaskAssignment,
  { paths, user, reporter, log }: DirectTaskContext,
): Promise<Mirroring | undefined> {
  if (!mirrors) return undefined
  const sources = repositoriesOf(assignment.task.agent_config_snapshot?.environment)
  const stop = new AbortController()
  const isOtherUser = user !== undefined && user.uid !== process.getuid?.()
  const { done } = await mirrors.offer(sources, {
    folder: paths.given,
    isOtherUser,
    signal: stop.signal,
    reporter,
    log,
  })
  return {
    async stop() {
      stop.abort(new Error('the task has ended'))
      await done
    },
  }
}
