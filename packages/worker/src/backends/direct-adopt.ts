import { constants } from 'node:os'
import { type FolderLock, identifyProcess, inGroups, isSameProcess, type ProcessIdentity, sleep } from '@openoz/machine'
import { readEnd } from '../task-end.ts'
import {
  listTaskFolders,
  lockTask,
  readRecord,
  readShim,
  type TaskRecord,
  taskFolder,
  writeRecord,
} from '../task-folder.ts'
import { type AdoptedTask, type StepReporter, type Task, TaskFailure, type TaskRefs } from './backend.ts'
import { type DirectTaskContext, exposedOf } from './direct-context.ts'
import { endPersistently } from './direct-ending.ts'
import { type DirectHost, formerContext, type HeldTask } from './direct-host.ts'
import { DirectTask, failureOf, noteFailure } from './direct-task.ts'

/** The hello waits for all of them, and each of them for the disk. */
const adoptedAtOnce = 16

/**
 * Takes over the tasks of dead processes of our worker id, in whatever state they left them:
 *
 * - with `end.json`: the task has ended; what is left is to save, deliver and report it.
 * - with a process, in the record or written by the shim itself: it is followed as if we had started it. Most still run; of one that has ended
 *   meanwhile the file `exit` tells how.
 * - without: the agent never ran. What runs of its setup is ended.
 *
 * Only tasks of instances that we hold, and only with the lock of the folder: another process may do the same at this moment.
 *
 * What the disk refuses keeps no task from being followed: our hello names its instance, and would call it dead. Its instance, which is ours, keeps
 * others away until the next sweep gets what is missing.
 */
export async function adoptTasks(
  host: DirectHost,
  reporterOf: (task: TaskRefs) => StepReporter,
): Promise<AdoptedTask[]> {
  const adopted: AdoptedTask[] = []
  for (const held of host.held.values()) if (held.isUnsettled) await settle(held)
  host.instances.takeOver()
  const found = await untilReadable(host, () => listTaskFolders(host.stateDir))
  await inGroups(adoptedAtOnce, found, async (executionId) => {
    if (host.held.has(executionId) || host.leaving.aborted) return
    try {
      const taken = await take(host, executionId)
      const task = taken && (await takeOver(host, taken, reporterOf))
      if (task) adopted.push(task)
    } catch (error) {
      const { held } = host
      held.get(executionId)?.lock.release()
      held.delete(executionId)
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

async function take(host: DirectHost, executionId: string): Promise<Taken | undefined> {
  const { stateDir, worker, instances } = host
  const paths = taskFolder(stateDir, executionId)
  const isOurs = (record: TaskRecord | undefined): record is TaskRecord =>
    record?.worker_id === worker.workerId && record.server_url === worker.serverUrl && instances.holds(record.instance)
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
async function untilReadable<T>({ leaving, log }: DirectHost, read: () => Promise<T>): Promise<T> {
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
async function settle(held: HeldTask): Promise<void> {
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
async function takeOver(
  host: DirectHost,
  { record: former, lock }: Taken,
  reporterOf: (task: TaskRefs) => StepReporter,
): Promise<AdoptedTask | undefined> {
  const { task_id, execution_id, started_at } = former
  const refs = { task_id, execution_id }
  const paths = taskFolder(host.stateDir, execution_id)
  const shim = await shimOf(host, former)
  const worker = identifyProcess(process.pid) ?? null
  const record = { ...former, worker, instance: host.instances.own, process: shim ?? null }
  const context = await untilReadable(host, () => formerContext(host, record, reporterOf(refs)))
  const held: HeldTask = { lock: lock ?? noLock, context }
  host.held.set(execution_id, held)
  const end = await readEnd(paths)
  await settle(held)
  const adopted = (phase: AdoptedTask['phase'], task: Promise<Task>): AdoptedTask => {
    task.catch(() => {})
    return { refs, startedAt: new Date(started_at), phase, task }
  }

  if (former.ended_at !== undefined || end?.is_reported) {
    held.over = 'spool'
    return undefined
  }
  if (end && !end.exit) return adopted('ended', Promise.reject(failureOf(end)))
  if (!end && !shim) return adopted('never_started', endUnstarted(host, held, context))
  const task = followTask(host, context, { shim, end })
  return adopted(end ? 'ended' : 'running', Promise.resolve(task))
}

/** Always rejects, and keeps no other task waiting. */
async function endUnstarted({ leaving }: DirectHost, held: HeldTask, context: DirectTaskContext): Promise<never> {
  held.mayRun = !(await endPersistently(context, undefined, { signal: leaving }))
  const failure = neverStarted()
  await noteFailure(context, failure)
  throw failure
}

export function followTask(
  host: DirectHost,
  context: DirectTaskContext,
  state: { shim: ProcessIdentity | undefined; end: Awaited<ReturnType<typeof readEnd>> },
): DirectTask {
  const { user, paths, record } = context
  const { depth } = context.isolation.wrap([], { user, workspace: record.workspace, exposed: exposedOf(paths) })
  const task = new DirectTask(context, { ...state, depth }, host.leaving)
  const held = host.held.get(record.execution_id)
  if (held) held.task = task
  return task
}

/** The record names it once it runs; until then only itself. */
export async function shimOf({ stateDir }: DirectHost, record: TaskRecord): Promise<ProcessIdentity | undefined> {
  return record.process ?? (await readShim(taskFolder(stateDir, record.execution_id)))
}

/** As a killed agent: to be tried again. */
function neverStarted(): TaskFailure {
  const exitCode = 128 + constants.signals.SIGKILL
  return new TaskFailure('agent_invocation', 'The worker was killed before the agent had started.', { exitCode })
}
