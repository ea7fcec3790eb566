import { readdir, rm, stat } from 'node:fs/promises'
import { join } from 'node:path'
import { endProcessTree, findMarked, isSameProcess, type ProcessIdentity } from '@openoz/machine'
import { z } from 'zod'
import { removeTree } from '../folder-removal.ts'
import { marksOf, stateMark, stateVariable } from '../installation.ts'
import { readEnd } from '../task-end.ts'
import {
  clearGone,
  isKnownHere,
  listTaskFolders,
  lockTask,
  readRecord,
  removeTaskFolder,
  setAside,
  type TaskRecord,
  taskFolder,
} from '../task-folder.ts'
import { leaseLeftMs, silentMs } from '../task-lease.ts'
import { returnUsersOfNobody } from '../task-users.ts'
import { disownWorkspace, listOwned, ownerOf } from '../workspace-owner.ts'
import { followTask, hasWorkerWithoutInstance, shimOf } from './direct-adopt.ts'
import { endEverything, endPersistently } from './direct-ending.ts'
import { type DirectHost, formerContext, type HeldTask, silentReporter } from './direct-host.ts'
import { removeAgain, removeTask } from './direct-removal.ts'
import { folderId, releaseWorkspace, removeWorkspace, removingMark } from './direct-workspace.ts'

/**
 * Clears what nobody on this machine answers for, at the start and every minute, with or without a control plane:
 *
 * - tasks of dead workers of another id whose agents have ended: what runs of them is ended; once their lease is over they are saved and delivered, never
 *   reported: that is their worker's, or its lease's. Agents that still run are left alone: an agent holds its lease itself. (Those of our own id are adopted before, see `direct-adopt.ts`.)
 * - tasks of another control plane: nobody is left for them when the worker's `--server-url` was changed. Named in the log, and set aside after a week.
 * - folders whose record cannot be read: set aside, their processes ended.
 * - processes with the mark of this installation whose task has no folder, users, workspaces and temporary files without an execution.
 *
 * What a live worker process has the lock of is left alone.
 */
export async function sweepMachine(host: DirectHost): Promise<void> {
  const attempt = async (what: string, work: () => Promise<unknown>) => {
    if (host.leaving.aborted) return
    await work().catch((error: unknown) => host.log.warn({ error }, `${what} could not be swept; tried again later`))
  }
  await attempt('Removed folders', () => clearGone(host.stateDir))
  await attempt('What was left of tasks', () => removeAgain(host))
  await attempt('What tasks left', async () => {
    for (const executionId of await listTaskFolders(host.stateDir)) {
      if (host.held.has(executionId)) continue
      await attempt(`What task ${executionId} left`, () => sweepTask(host, executionId))
    }
  })
  await attempt('Processes without a task', () => endStrays(host))
  await attempt('Users of tasks', () => returnUsersOfNobody(host.stateDir, host.installationId))
  await attempt('Workspaces', () => clearWorkspaces(host))
  await attempt('Temporary files', () => clearTemporary(host))
  await attempt('Instances of workers', () => clearInstances(host))
  await attempt('Mirrors', async () => host.mirrors?.sweep())
}

async function sweepTask(host: DirectHost, executionId: string): Promise<void> {
  const paths = taskFolder(host.stateDir, executionId)
  const record = await readRecord(paths)
  if (!record) return sweepUnreadable(host, executionId)
  const { worker } = host
  if (record.server_url !== worker.serverUrl) return sweepElsewhere(host, record)
  // Of our id it waits for the instance that it belongs to.
  if (record.worker_id === worker.workerId || hasWorkerWithoutInstance(record)) return
  const shim = await shimOf(host, record)
  if (shim && isSameProcess(shim)) {
    host.log.debug({ executionId, pid: shim.pid }, 'An agent of another worker id still runs; left alone')
    return
  }
  const isTold = record.ended_at !== undefined || (await readEnd(paths))?.is_reported
  // Until then it is its worker's, should that come back.
  if (!isTold && (await leaseLeftMs(paths)) > 0) return await host.alone(() => endLeftRunning(host, record, shim))
  // So that it does not come back in this moment, and call the one lost that it cannot have.
  const instance = host.instances.borrow(record.instance)
  const lock = instance && lockTask(paths)
  // What else that worker left is its own: nobody keeps it from that while this one waits for the control plane.
  instance?.release()
  if (lock) void clearForeign(host, record, lock)
}

/** What an agent left running must not go on beside the next execution of its run. */
async function endLeftRunning(host: DirectHost, record: TaskRecord, shim: ProcessIdentity | undefined): Promise<void> {
  const instance = host.instances.borrow(record.instance)
  const lock = instance && lockTask(taskFolder(host.stateDir, record.execution_id))
  try {
    if (lock) await endEverything({ ...host, record }, shim)
  } finally {
    lock?.release()
    instance?.release()
  }
}

/** As long as a control plane takes anything of it. */
const longestElsewhereMs = 7 * 24 * 60 * 60_000

/** Of another control plane: nobody here could deliver it, and perhaps nobody comes back who can. */
async function sweepElsewhere(host: DirectHost, record: TaskRecord): Promise<void> {
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
    const shim = await shimOf(host, record)
    if (!isOld || (shim && isSameProcess(shim))) {
      if (isToTell)
        log.warn({ ...about, folder: paths.folder }, 'A task of this worker belongs to another control plane')
      toldElsewhere.add(executionId)
      return
    }
    if (!(await endPersistently({ ...host, record }, shim, { signal: host.leaving }))) return
    // For the operator, who may want its files.
    await releaseWorkspace({ record: { ...record, removes_workspace: false }, stateDir, log })
    const place = await setAside(paths)
    log.error({ ...about, place }, 'A task of another control plane was left here for 7 days; its folder was set aside')
  } finally {
    lock.release()
    instance.release()
  }
}

/** In its own time: it may have to wait for the control plane. Never rejects. */
async function clearForeign(
  host: DirectHost,
  record: TaskRecord,
  lock: NonNullable<ReturnType<typeof lockTask>>,
): Promise<void> {
  const { execution_id: executionId } = record
  const clearing = new AbortController()
  try {
    const context = await formerContext(host, record, silentReporter)
    const held: HeldTask = { lock, context, clearing }
    host.held.set(executionId, held)
    const end = await readEnd(context.paths)
    const shim = await shimOf(host, record)
    if (record.ended_at !== undefined || end?.is_reported) {
      host.held.set(executionId, { lock, context, over: 'spool' })
      return
    }
    if (shim || end?.exit) {
      const task = followTask(host, context, { shim, end })
      await task.close(undefined)
      await task.finish({ abandoned: clearing.signal, signal: host.leaving })
    } else {
      held.mayRun = !(await endPersistently(context, undefined, { signal: host.leaving }))
    }
    await removeTask(host, executionId)
    context.log.info('Swept what an ended task had left, of another worker id')
  } catch (error) {
    if (host.leaving.aborted) return
    host.held.get(executionId)?.lock.release()
    host.held.delete(executionId)
    host.log.warn({ error, executionId }, 'What an ended task left could not be swept; tried again later')
  }
}

/** Torn, of a newer version, or of a process that was killed before it wrote one. */
async function sweepUnreadable(host: DirectHost, executionId: string): Promise<void> {
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
    const { survivors } = await endProcessTree({ marker: marksOf(host.installationId, executionId) }, 0)
    if (survivors.length > 0) return
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

/** By the mark of this installation, so that nothing of another one's, or of a person's own run, is touched. */
async function endStrays({ stateDir, installationId, held, log }: DirectHost): Promise<void> {
  const found = new Set<string>()
  for (const { value } of await findMarked(stateVariable)) {
    const [installation, executionId] = value.split('/')
    if (installation !== installationId || !z.uuid().safeParse(executionId).success || executionId === undefined)
      continue
    if (!held.has(executionId)) found.add(executionId)
  }
  // Afterwards: a task's folder is there before its first process.
  const known = new Set<string>(await listTaskFolders(stateDir))
  for (const executionId of found) {
    if (known.has(executionId)) continue
    // Not by its `OZ_EXECUTION_ID`: tasks write into their marks what they like, the name of somebody else's execution too.
    const marker = `${stateVariable}=${stateMark(installationId, executionId)}`
    const { ended } = await endProcessTree({ marker }, 0)
    if (ended > 0) log.warn({ executionId, ended }, 'Processes of a task that is no more were ended')
  }
}

async function clearWorkspaces(host: DirectHost): Promise<void> {
  const { stateDir, workspaceRoot, log } = host
  const names = await readdir(workspaceRoot).catch((): string[] => [])
  for (const name of names.filter((name) => name.startsWith(removingMark))) await removeTree(join(workspaceRoot, name))
  for (const taskId of await listOwned(stateDir)) {
    await host.alone(async () => {
      const workspace = join(workspaceRoot, taskId)
      // Before its owner: another process may give the run to a new one meanwhile.
      const id = await folderId(workspace)
      const owner = await ownerOf(stateDir, taskId)
      if (owner === undefined || (await isKnownHere(stateDir, owner))) return
      if (id !== undefined) {
        await removeWorkspace(workspace, id)
        log.info({ runId: taskId }, 'Removed a workspace that no task has')
      }
      await disownWorkspace(stateDir, taskId, owner)
    })
  }
}

const oldMs = 60 * 60_000

/** What a process that was killed was in the middle of. Only names that are ours. */
async function clearTemporary({ stateDir, workspaceRoot }: DirectHost): Promise<void> {
  const places = [
    [workspaceRoot, /^\.(probe-\w{6}|write-[0-9a-f-]{36})$/],
    [join(stateDir, 'tasks'), /^\.write-[0-9a-f-]{36}$/],
    [join(stateDir, 'owners'), /\.tmp$/],
    [stateDir, /\.tmp$/],
  ] as const
  for (const [folder, pattern] of places) {
    for (const name of await readdir(folder).catch(() => [])) {
      const path = join(folder, name)
      if (pattern.test(name) && (await isOld(path, oldMs))) await removeTree(path)
    }
  }
}

const longestInstanceMs = 7 * 24 * 60 * 60_000

/** Of worker ids that do not come back. */
async function clearInstances({ stateDir, instances }: DirectHost): Promise<void> {
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
