import { constants } from 'node:os'
import { type FolderLock, identifyProcess, isSameProcess, type ProcessIdentity } from '@openoz/machine'
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
import { type DirectHost, formerContext } from './direct-host.ts'
import { DirectTask, endEverything, failureOf, noteFailure } from './direct-task.ts'

/**
 * Takes over the tasks of dead processes of our worker id, in whatever state they left them:
 *
 * - with `end.json`: the task has ended; what is left is to save, deliver and report it.
 * - with a process, in the record or written by the shim itself: it is followed as if we had started it. Most still run; of one that has ended
 *   meanwhile the file `exit` tells how.
 * - without: the agent never ran. What runs of its setup is ended.
 *
 * Only tasks of instances that we hold, and only with the lock of the folder: another process may do the same at this moment.
 */
export async function adoptTasks(
  host: DirectHost,
  reporterOf: (task: TaskRefs) => StepReporter,
): Promise<AdoptedTask[]> {
  const adopted: AdoptedTask[] = []
  host.instances.takeOver()
  for (const executionId of await listTaskFolders(host.stateDir)) {
    if (host.held.has(executionId) || host.leaving.aborted) continue
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
  }
  return adopted
}

interface Taken {
  record: TaskRecord
  lock: FolderLock
}

async function take({ stateDir, worker, instances }: DirectHost, executionId: string): Promise<Taken | undefined> {
  const paths = taskFolder(stateDir, executionId)
  const isOurs = (record: TaskRecord | undefined): record is TaskRecord =>
    record?.worker_id === worker.workerId && record.server_url === worker.serverUrl && instances.holds(record.instance)
  const found = await readRecord(paths)
  if (!isOurs(found) || hasWorkerWithoutInstance(found)) return undefined
  const lock = lockTask(paths)
  if (!lock) return undefined
  // Whoever had the lock until now may have gone on meanwhile.
  const record = await readRecord(paths)
  if (isOurs(record)) return { record, lock }
  lock.release()
  return undefined
}

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
  const context = await formerContext(host, record, reporterOf(refs))
  host.held.set(execution_id, { lock, context })
  const end = await readEnd(paths)
  await writeRecord(paths, record)
  const adopted = (phase: AdoptedTask['phase'], task: Promise<Task>): AdoptedTask => {
    task.catch(() => {})
    return { refs, startedAt: new Date(started_at), phase, task }
  }

  if (former.ended_at !== undefined || end?.is_reported) {
    host.held.set(execution_id, { lock, context, over: 'spool' })
    return undefined
  }
  if (end && !end.exit) return adopted('ended', Promise.reject(failureOf(end)))
  if (!end && !shim) {
    await endEverything(context, undefined)
    const failure = neverStarted()
    await noteFailure(context, failure)
    return adopted('never_started', Promise.reject(failure))
  }
  const task = followTask(host, context, { shim, end })
  return adopted(end ? 'ended' : 'running', Promise.resolve(task))
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
