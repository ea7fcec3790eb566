import { readFile } from 'node:fs/promises'
import { homedir, tmpdir } from 'node:os'
import type { Dialer, FolderLock } from '@openoz/machine'
import type { Logger } from 'pino'
import type { Instances } from '../instances.ts'
import type { Isolation, TaskUser } from '../isolation.ts'
import type { Link } from '../link.ts'
import type { Mirrors } from '../mirrors.ts'
import { type BaseEnvironment, taskPath } from '../task-environment.ts'
import { type TaskFolder, type TaskRecord, taskFolder } from '../task-folder.ts'
import type { TaskNetwork } from '../task-network.ts'
import type { WorkerOptions } from '../worker-options.ts'
import type { StepReporter } from './backend.ts'
import type { DirectTaskContext } from './direct-context.ts'
import type { Mirroring } from './direct-mirrors.ts'
import type { DirectTask } from './direct-task.ts'

/** The direct backend once it was checked: what starting, adopting and sweeping share. */
export interface DirectHost {
  worker: WorkerOptions
  dialer: Dialer
  log: Logger
  link: Link
  deliveryTimeoutMs: number
  savingTimeoutMs: number
  unsteadyTimeoutMs: number
  stateDir: string
  workspaceRoot: string
  installationId: string
  instances: Instances
  oz: string
  isolation: Isolation
  network: TaskNetwork
  /** undefined: the operator wants none. */
  mirrors: Mirrors | undefined
  /** Tasks of our worker id at another control plane that the log has named. */
  toldElsewhere: Set<string>
  /** Tasks that this process answers for, by execution: from the first file to the last. */
  held: Map<string, HeldTask>
  /** Aborted when this process lets go of them. */
  leaving: AbortSignal
  /** One at a time: what a sweep clears of workspaces, and what makes new ones. Other processes do the same: see `removeWorkspace`. */
  alone: <T>(work: () => Promise<T>) => Promise<T>
}

export interface HeldTask {
  lock: FolderLock
  /** Absent until its folder is complete. */
  context?: DirectTaskContext
  mirroring?: Mirroring
  task?: DirectTask
  /** Something of it could not be ended: its files are left alone until it is. */
  mayRun?: boolean
  /** Taken over, and its lock or its record could not be written yet. */
  isUnsettled?: boolean
  /** It is saved and delivered for another worker id; aborted when a newer execution of its run comes. */
  clearing?: AbortController
  /** Its end was told, or need not be. `spool`: all that is left is to deliver that. */
  over?: 'spool' | 'all'
}

/** For tasks that are not ours to speak of. */
export const silentReporter: StepReporter = { started() {}, completed() {}, failed() {} }

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
