import { readdir, rm, stat } from 'node:fs/promises'
import { join } from 'node:path'
import type { FolderLock } from '@openoz/machine'
import { z } from 'zod'
import { removeTree } from '../folder-removal.ts'
import { readEnd } from '../task-end.ts'
import {
  backendOf,
  clearGone,
  listTaskFolders,
  lockTask,
  readRecord,
  removeTaskFolder,
  setAside,
  type TaskRecord,
  taskFolder,
} from '../task-folder.ts'
import { silentMs } from '../task-lease.ts'
import { silentReporter } from './backend.ts'
import type { HeldContext, HeldTask } from './held-tasks.ts'
import { type FolderHost, type FormerTasks, hasWorkerWithoutInstance, isTold } from './take-over.ts'

/**
 * Clears what lies in the state folder and nobody on this machine answers for, at the start and every minute, with or without a control plane:
 *
 * - tasks of dead workers of another id whose agents have ended: what runs of them is ended; once their lease is over they are saved and delivered, never
 *   reported: that is their worker's, or its lease's. Agents that still run are left alone: an agent holds its lease itself. (Those of our own id are
 *   adopted before, see `take-over.ts`.)
 * - tasks of another control plane: nobody is left for them when the worker's `--server-url` was changed. Named in the log, and set aside after a week.
 * - folders whose record cannot be read: set aside, what runs of them ended.
 *
 * What a live worker process has the lock of is left alone, and so is what was given to another backend. What a backend has made elsewhere it sweeps itself.
 */
export interface SweepHost<C extends HeldContext> extends FolderHost<C> {
  /** Tasks of our worker id at another control plane that the log has named. */
  toldElsewhere: Set<string>
  /** One at a time: what a new execution ends of earlier ones of its run, and what a sweep has for a moment that may be one of them. */
  alone: <T>(work: () => Promise<T>) => Promise<T>
}

export interface SweptTasks<C extends HeldContext, R> extends FormerTasks<C, R> {
  /** Its agent. */
  isRunning(found: R): boolean | Promise<boolean>
  /** How long it may still be its dead worker's, which the control plane takes back with all that it names. 0: it is not any more. */
  leaseLeftMs(record: TaskRecord): Promise<number>
  /** Ends what its agent has left running beside itself, if it can be done now. May reject. */
  endLeftRunning(record: TaskRecord, found: R | undefined): Promise<void>
  /** Of one of which nothing but the id is known. True: nothing of it runs. May reject. */
  endUnknown(executionId: string): Promise<boolean>
  /** What the backend has made for it becomes the operator's, who may want its files. May reject. */
  leaveFiles(record: TaskRecord): Promise<void>
}

type Attempt = (what: string, work: () => Promise<unknown>) => Promise<void>

/** What one thing of a sweep throws keeps the next from nothing; after `leaving` none begins. */
export function createAttempts({ leaving, log }: Pick<FolderHost<HeldContext>, 'leaving' | 'log'>): Attempt {
  return async (what, work) => {
    if (leaving.aborted) return
    await work().catch((error: unknown) => log.warn({ error }, `${what} could not be swept; tried again later`))
  }
}

export async function sweepFolders<C extends HeldContext, R>(
  host: SweepHost<C>,
  former: SweptTasks<C, R>,
  attempt: Attempt,
): Promise<void> {
  await attempt('Removed folders', () => clearGone(host.stateDir))
  await attempt('What was left of tasks', () => host.held.removeAgain())
  await attempt('What tasks left', async () => {
    for (const executionId of await listTaskFolders(host.stateDir)) {
      if (host.held.has(executionId)) continue
      await attempt(`What task ${executionId} left`, () => sweepTask(host, former, executionId))
    }
  })
}

async function sweepTask<C extends HeldContext, R>(
  host: SweepHost<C>,
  former: SweptTasks<C, R>,
  executionId: string,
): Promise<void> {
  const paths = taskFolder(host.stateDir, executionId)
  const record = await readRecord(paths)
  if (!record) return sweepUnreadable(host, former, executionId)
  const { worker, backend } = host
  if (backendOf(record) !== backend) return
  if (record.server_url !== worker.serverUrl) return sweepElsewhere(host, former, record)
  // Of our id it waits for the instance that it belongs to.
  if (record.worker_id === worker.workerId || hasWorkerWithoutInstance(record)) return
  const found = await former.find(record)
  if (found !== undefined && (await former.isRunning(found))) {
    host.log.debug({ executionId }, 'An agent of another worker id still runs; left alone')
    return
  }
  // Until then it is its worker's, should that come back.
  if (!isTold(record, await readEnd(paths)) && (await former.leaseLeftMs(record)) > 0)
    return await host.alone(() => endLeftRunning(host, former, { record, found }))
  // So that it does not come back in this moment, and call the one lost that it cannot have.
  const instance = host.instances.borrow(record.instance)
  const lock = instance && lockTask(paths)
  // What else that worker left is its own: nobody keeps it from that while this one waits for the control plane.
  instance?.release()
  if (lock) void clearForeign(host, former, { record, lock })
}

/** What an agent left running must not go on beside the next execution of its run. */
async function endLeftRunning<C extends HeldContext, R>(
  host: SweepHost<C>,
  former: SweptTasks<C, R>,
  { record, found }: { record: TaskRecord; found: R | undefined },
): Promise<void> {
  const instance = host.instances.borrow(record.instance)
  const lock = instance && lockTask(taskFolder(host.stateDir, record.execution_id))
  try {
    if (lock) await former.endLeftRunning(record, found)
  } finally {
    lock?.release()
    instance?.release()
  }
}

/** As long as a control plane takes anything of it. */
const longestElsewhereMs = 7 * 24 * 60 * 60_000

/** Of another control plane: nobody here could deliver it, and perhaps nobody comes back who can. */
async function sweepElsewhere<C extends HeldContext, R>(
  host: SweepHost<C>,
  former: SweptTasks<C, R>,
  record: TaskRecord,
): Promise<void> {
  const { execution_id: executionId, server_url: itsServer, worker_id: workerId } = record
  const { worker, stateDir, log, toldElsewhere } = host
  const paths = taskFolder(stateDir, executionId)
  const isOld = (await silentMs(paths)) > longestElsewhereMs
  const isToTell = workerId === worker.workerId && !toldElsewhere.has(executionId)
  if ((!isOld && !isToTell) || hasWorkerWithoutInstance(record)) return
  const instance = host.instances.borrow(record.instance)
  const lock = instance && lockTask(paths)
  // A worker of that control plane has it.
  if (!lock) return instance?.release()
  try {
    const about = { executionId, runId: record.task_id, itsServer, server: worker.serverUrl }
    const found = await former.find(record)
    if (!isOld || (found !== undefined && (await former.isRunning(found)))) {
      if (isToTell)
        log.warn({ ...about, folder: paths.folder }, 'A task of this worker belongs to another control plane')
      toldElsewhere.add(executionId)
      return
    }
    if (!(await former.end(record, found))) return
    await former.leaveFiles(record)
    const place = await setAside(paths)
    log.error({ ...about, place }, 'A task of another control plane was left here for 7 days; its folder was set aside')
  } finally {
    lock.release()
    instance.release()
  }
}

/** In its own time: it may have to wait for the control plane. Never rejects. */
async function clearForeign<C extends HeldContext, R>(
  host: SweepHost<C>,
  former: SweptTasks<C, R>,
  { record, lock }: { record: TaskRecord; lock: FolderLock },
): Promise<void> {
  const { execution_id: executionId } = record
  const clearing = new AbortController()
  try {
    const context = await former.contextOf(record, silentReporter)
    const held: HeldTask<C> = { lock, context, clearing }
    host.held.hold(executionId, held)
    const end = await readEnd(context.paths)
    const found = await former.find(record)
    if (isTold(record, end)) return host.held.holdTold(executionId, { lock, context })
    if (found !== undefined || end?.exit) {
      const task = former.follow(context, found, end)
      held.task = task
      await task.close(undefined)
      await task.finish({ abandoned: clearing.signal, signal: host.leaving })
    } else {
      held.mayRun = !(await former.end(record, undefined))
    }
    await host.held.remove(executionId)
    context.log.info('Swept what an ended task had left, of another worker id')
  } catch (error) {
    if (host.leaving.aborted) return
    host.held.letGo(executionId)
    host.log.warn({ error, executionId }, 'What an ended task left could not be swept; tried again later')
  }
}

/** Torn, of a newer version, or of a process that was killed before it wrote one. */
async function sweepUnreadable<C extends HeldContext, R>(
  host: SweepHost<C>,
  former: SweptTasks<C, R>,
  executionId: string,
): Promise<void> {
  const paths = taskFolder(host.stateDir, executionId)
  const hadOwner = (await stat(paths.owner).catch(() => undefined)) !== undefined
  const { mtimeMs } = await stat(paths.folder)
  // In the very moment of its making.
  if (!hadOwner && Date.now() - mtimeMs < 60_000) return
  const lock = lockTask(paths)
  if (!lock) return
  try {
    // Whoever had the lock until now may have written it.
    if (await readRecord(paths)) return
    const hasRecord = (await stat(paths.record).catch(() => undefined)) !== undefined
    if (!(await former.endUnknown(executionId))) return
    if (!hasRecord) return await removeTaskFolder(paths)
    const place = await setAside(paths)
    host.log.error(
      { executionId, place },
      'The record of a task cannot be read; its processes were ended, and its folder set aside',
    )
  } finally {
    lock.release()
  }
}

const oldMs = 60 * 60_000

/** What processes that were killed were in the middle of. Only names that are ours: in folders of the backend, and in those of the state folder. */
export async function clearTemporary(stateDir: string, places: [folder: string, pattern: RegExp][]): Promise<void> {
  const own: typeof places = [
    [join(stateDir, 'tasks'), /^\.write-[0-9a-f-]{36}$/],
    [join(stateDir, 'owners'), /\.tmp$/],
    [stateDir, /\.tmp$/],
  ]
  for (const [folder, pattern] of [...places, ...own]) {
    for (const name of await readdir(folder).catch(() => [])) {
      const path = join(folder, name)
      if (pattern.test(name) && (await isOld(path, oldMs))) await removeTree(path)
    }
  }
}

const longestInstanceMs = 7 * 24 * 60 * 60_000

/** Of worker ids that do not come back. */
export async function clearInstances({
  stateDir,
  instances,
}: Pick<FolderHost<HeldContext>, 'stateDir' | 'instances'>): Promise<void> {
  const folder = join(stateDir, 'instances')
  for (const name of await readdir(folder).catch(() => [])) {
    const path = join(folder, name)
    const isHalf = !z.uuid().safeParse(name).success
    if (!(await isOld(path, isHalf ? oldMs : longestInstanceMs))) continue
    const lock = isHalf ? { release() {} } : instances.borrow(name)
    if (!lock || instances.all.some((instance) => instance === name)) continue
    await rm(path, { recursive: true, force: true })
  }
}

async function isOld(path: string, ms: number): Promise<boolean> {
  const found = await stat(path).catch(() => undefined)
  return found !== undefined && Date.now() - found.mtimeMs > ms
}
