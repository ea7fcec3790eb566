import { constants } from 'node:os'
import { type FolderLock, identifyProcess, inGroups, isSameProcess, sleep } from '@openoz/machine'
import type { Logger } from 'pino'
import type { Instances } from '../instances.ts'
import { readEnd, type TaskEndRecord } from '../task-end.ts'
import {
  backendOf,
  listTaskFolders,
  lockTask,
  readRecord,
  type TaskRecord,
  taskFolder,
  writeRecord,
} from '../task-folder.ts'
import type { WorkerOptions } from '../worker-options.ts'
import {
  type AdoptedTask,
  type BackendName,
  type StepReporter,
  type Task,
  TaskFailure,
  type TaskRefs,
} from './backend.ts'
import { failureOf, noteFailure } from './ended-task.ts'
import type { HeldContext, HeldTask, HeldTasks } from './held-tasks.ts'

/**
 * Takes over the tasks of dead processes of our worker id, in whatever state they left them:
 *
 * - with `end.json`: the task has ended; what is left is to save, deliver and report it.
 * - with something that runs it, or did (a process, a container): it is followed as if we had started it. Of one that has ended meanwhile that tells how.
 * - without: the agent never ran. What runs of its setup is ended.
 *
 * Only tasks of instances that we hold, and only with the lock of the folder: another process may do the same at this moment. What was given to another
 * backend in the same state folder is that one's.
 *
 * What the disk refuses keeps no task from being followed: our hello names its instance, and would call it dead. Its instance, which is ours, keeps
 * others away until the next sweep gets what is missing.
 */
export interface FolderHost<C extends HeldContext> {
  backend: BackendName
  worker: Pick<WorkerOptions, 'workerId' | 'serverUrl'>
  stateDir: string
  instances: Instances
  held: HeldTasks<C>
  /** Aborted when this process lets go of its tasks. */
  leaving: AbortSignal
  log: Logger
}

/** What a backend knows of tasks that earlier processes have left. `R`: what runs one, or did, as far as there is a trace of it. */
export interface FormerTasks<C extends HeldContext, R> {
  /** undefined: its agent never began. */
  find(record: TaskRecord): Promise<R | undefined>
  /** The record, with what was found. */
  recordOf(record: TaskRecord, found: R | undefined): TaskRecord
  /** Rejects with Node's error when it cannot be read now. */
  contextOf(record: TaskRecord, reporter: StepReporter): Promise<C>
  /** From where it is; `end`: it has ended, in the time of an earlier process. */
  follow(context: C, found: R | undefined, end: TaskEndRecord | undefined): Task & { readonly isSpoolKept: boolean }
  /** Ends whatever runs of it, and tries that for a while. False: something may still run. Never rejects. */
  end(record: TaskRecord, found: R | undefined): Promise<boolean>
}

/** The hello waits for all of them, and each of them for the disk. */
const adoptedAtOnce = 16

export async function adoptTasks<C extends HeldContext, R>(
  host: FolderHost<C>,
  former: FormerTasks<C, R>,
  reporterOf: (task: TaskRefs) => StepReporter,
): Promise<AdoptedTask[]> {
  const adopted: AdoptedTask[] = []
  for (const held of host.held.all()) if (held.isUnsettled) await settle(held)
  host.instances.takeOver()
  const found = await untilReadable(host, () => listTaskFolders(host.stateDir))
  await inGroups(adoptedAtOnce, found, async (executionId) => {
    if (host.held.has(executionId) || host.leaving.aborted) return
    try {
      const taken = await take(host, executionId)
      const task = taken && (await takeOver(host, former, { ...taken, reporterOf }))
      if (task) adopted.push(task)
    } catch (error) {
      host.held.letGo(executionId)
      host.log.warn({ error, executionId }, 'A task that outlived its worker could not be taken over')
    }
  })
  return adopted
}

interface Taken {
  record: TaskRecord
  /** undefined: the disk refuses it. */
  lock: FolderLock | undefined
}

async function take<C extends HeldContext>(host: FolderHost<C>, executionId: string): Promise<Taken | undefined> {
  const { backend, stateDir, worker, instances } = host
  const paths = taskFolder(stateDir, executionId)
  const isOurs = (record: TaskRecord | undefined): record is TaskRecord =>
    record?.worker_id === worker.workerId &&
    record.server_url === worker.serverUrl &&
    backendOf(record) === backend &&
    instances.holds(record.instance)
  const found = await untilReadable(host, () => readRecord(paths))
  if (!isOurs(found) || hasWorkerWithoutInstance(found)) return undefined
  let lock: FolderLock | undefined
  try {
    lock = lockTask(paths)
    if (!lock) return undefined
  } catch (error) {
    host.log.warn({ error, executionId }, 'A task that outlived its worker is followed without its lock; tried again')
    return { record: found, lock: undefined }
  }
  // Whoever had the lock until now may have gone on meanwhile.
  const record = await untilReadable(host, () => readRecord(paths)).catch(() => found)
  if (isOurs(record)) return { record, lock }
  lock.release()
  return undefined
}

const readAgainMs = 200

/** Waits while this process or this machine is out of files or memory: that says nothing about a task. Rejects with Node's other errors. */
async function untilReadable<T>(
  { leaving, log }: Pick<FolderHost<HeldContext>, 'leaving' | 'log'>,
  read: () => Promise<T>,
): Promise<T> {
  for (;;) {
    try {
      return await read()
    } catch (error) {
      const code = error instanceof Error && 'code' in error ? String(error.code) : ''
      if (leaving.aborted || !['EMFILE', 'ENFILE', 'ENOMEM'].includes(code)) throw error
      log.warn({ error }, 'The tasks of this machine cannot be read; tried again')
      await sleep(readAgainMs, leaving)
    }
  }
}

/** Lock and record, where the disk has refused them. Never rejects. */
async function settle<C extends HeldContext>(held: HeldTask<C>): Promise<void> {
  const { context } = held
  if (!context) return
  const { record, paths, log } = context
  try {
    if (held.lock === noLock) held.lock = lockTask(paths) ?? noLock
    await writeRecord(paths, record)
    held.isUnsettled = held.lock === noLock
  } catch (error) {
    held.isUnsettled = true
    log.warn({ error }, 'That a task was taken over could not be written down; tried again')
  }
}

const noLock: FolderLock = { release() {} }

/** A live process of a version that had neither instances nor locks. */
export function hasWorkerWithoutInstance({ worker, instance }: TaskRecord): boolean {
  return instance === undefined && worker !== null && worker.pid !== process.pid && isSameProcess(worker)
}

/** undefined when there is nothing to report any more: then it is held for the sweeps. */
async function takeOver<C extends HeldContext, R>(
  host: FolderHost<C>,
  former: FormerTasks<C, R>,
  { record: left, lock, reporterOf }: Taken & { reporterOf: (task: TaskRefs) => StepReporter },
): Promise<AdoptedTask | undefined> {
  const { task_id, execution_id, started_at } = left
  const refs = { task_id, execution_id }
  const paths = taskFolder(host.stateDir, execution_id)
  const found = await former.find(left)
  const worker = identifyProcess(process.pid) ?? null
  const record = { ...former.recordOf(left, found), worker, instance: host.instances.own }
  const context = await untilReadable(host, () => former.contextOf(record, reporterOf(refs)))
  const held: HeldTask<C> = { lock: lock ?? noLock, context }
  host.held.hold(execution_id, held)
  const end = await readEnd(paths)
  await settle(held)
  const adopted = (phase: AdoptedTask['phase'], task: Promise<Task>): AdoptedTask => {
    task.catch(() => {})
    return { refs, startedAt: new Date(started_at), phase, task }
  }

  if (isTold(left, end)) {
    host.held.holdTold(execution_id, held)
    return undefined
  }
  if (end && !end.exit) return adopted('ended', Promise.reject(failureOf(end)))
  if (!end && found === undefined) return adopted('never_started', endUnstarted(held, context, former))
  const task = former.follow(context, found, end)
  held.task = task
  return adopted(end ? 'ended' : 'running', Promise.resolve(task))
}

/** What is left of it is its spool. */
export function isTold(record: TaskRecord, end: TaskEndRecord | undefined): boolean {
  return record.ended_at !== undefined || end?.is_reported === true
}

/** Always rejects, and keeps no other task waiting. */
async function endUnstarted<C extends HeldContext, R>(
  held: HeldTask<C>,
  context: C,
  former: FormerTasks<C, R>,
): Promise<never> {
  held.mayRun = !(await former.end(context.record, undefined))
  const failure = neverStarted()
  await noteFailure(context, failure)
  throw failure
}

/** As a killed agent: to be tried again. */
function neverStarted(): TaskFailure {
  const exitCode = 128 + constants.signals.SIGKILL
  return new TaskFailure('agent_invocation', 'The worker was killed before the agent had started.', { exitCode })
}
