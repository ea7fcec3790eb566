import { readFile } from 'node:fs/promises'
import { homedir, tmpdir } from 'node:os'
import type { Dialer } from '@openoz/machine'
import type { Isolation, TaskUser } from '../isolation.ts'
import type { Link } from '../link.ts'
import type { Mirrors } from '../mirrors.ts'
import { type BaseEnvironment, taskPath } from '../task-environment.ts'
import { type TaskFolder, type TaskRecord, taskFolder } from '../task-folder.ts'
import type { TaskNetwork } from '../task-network.ts'
import type { WorkerOptions } from '../worker-options.ts'
import type { StepReporter } from './backend.ts'
import type { DirectTaskContext } from './direct-context.ts'
import type { SweepHost } from './sweep-folders.ts'

/** The direct backend once it was checked: what starting, adopting and sweeping share. */
export interface DirectHost extends SweepHost<DirectTaskContext> {
  worker: WorkerOptions
  dialer: Dialer
  link: Link
  deliveryTimeoutMs: number
  savingTimeoutMs: number
  unsteadyTimeoutMs: number
  workspaceRoot: string
  installationId: string
  oz: string
  isolation: Isolation
  network: TaskNetwork
  /** undefined: the operator wants none. */
  mirrors: Mirrors | undefined
  /** What a sweep clears of workspaces, and what makes new ones, as well. Other processes do the same: see `removeWorkspace`. */
  alone: SweepHost<DirectTaskContext>['alone']
}

export function contextOf(
  host: DirectHost,
  task: Pick<DirectTaskContext, 'record' | 'paths' | 'user' | 'token' | 'secrets' | 'reporter'>,
): DirectTaskContext {
  const { worker, dialer, link, log, isolation, stateDir, installationId, oz } = host
  const { task_id: runId, execution_id: executionId } = task.record
  return {
    ...task,
    base: baseEnvironment(host, task.paths, task.user),
    isolation,
    stateDir,
    installationId,
    link,
    dialer,
    log: log.child({ runId, executionId }),
    hookTimeoutMs: worker.direct.hookTimeoutMs ?? 600_000,
    deliveryTimeoutMs: host.deliveryTimeoutMs,
    oz,
    serverRootUrl: worker.serverRootUrl,
    savingTimeoutMs: host.savingTimeoutMs,
    unsteadyTimeoutMs: host.unsteadyTimeoutMs,
    teardownCommand: worker.direct.teardownCommand,
  }
}

/** Of a task that an earlier worker process has started. */
export async function formerContext(
  host: DirectHost,
  record: TaskRecord,
  reporter: StepReporter,
): Promise<DirectTaskContext> {
  const { uid, execution_id: executionId } = record
  const user = uid === undefined ? host.isolation.sharedUser : { uid, gid: uid }
  const paths = taskFolder(host.stateDir, executionId)
  const token = await readFile(paths.token, 'utf8').catch((error: unknown) => {
    if (error instanceof Error && 'code' in error && error.code === 'ENOENT') return undefined
    throw error
  })
  const secrets = [host.worker.apiKey, ...(token === undefined ? [] : [token]), ...host.network.secrets]
  return contextOf(host, { record, paths, user, token, secrets, reporter })
}

function baseEnvironment(
  { worker: { env }, isolation }: DirectHost,
  paths: TaskFolder,
  user: TaskUser | undefined,
): BaseEnvironment {
  // Somebody else's home would be closed to the task's user, or open to its predecessors.
  const HOME = user ? paths.agent.home : env.HOME || homedir()
  const TMPDIR = isolation.kind === 'none' ? env.TMPDIR || tmpdir() : paths.agent.temporary
  return { HOME, TMPDIR, PATH: taskPath(env) }
}
