import { readFile, stat } from 'node:fs/promises'
import { type Dialer, isSameProcess } from '@openoz/machine'
import type { Logger } from 'pino'
import { deliverSpool } from '../spool-delivery.ts'
import { listTaskFolders, readRecord, removeTaskFolder, type TaskRecord, taskFolder } from '../task-folder.ts'
import { returnUsersExceptOf } from '../task-users.ts'
import { cleanUp, endEverything } from './direct-task.ts'

/**
 * Clears what no live process answers for: tasks of worker processes that are gone, and our own whose spool could not be delivered. Tasks of
 * other live workers are left alone, and so are agents that outlived their worker and still work: an agent holds its lease itself. The next
 * process of their worker takes them over (`listOutlivers`); where there is none, their folders are swept once they have ended.
 *
 * In two phases: first processes and workspaces, which is quick and must not overlap with the start of a task of the same run; then the
 * spools, which may have to wait for the control plane.
 */
export interface SweepScope {
  stateDir: string
  serverUrl: string
  isActive: (executionId: string) => boolean
  /** Saves what the agent of an ended task has left; never rejects. */
  saveLeft: (record: TaskRecord, signal: AbortSignal) => Promise<void>
  log: Logger
}

/** As long as the control plane takes what an execution that is over still has to say. */
const lateEvidenceMs = 15 * 60_000

/** Returns the executions whose spools are left to deliver. */
export async function clearEnded(scope: SweepScope, signal: AbortSignal): Promise<TaskRecord[]> {
  const left: TaskRecord[] = []
  for (const executionId of await listTaskFolders(scope.stateDir)) {
    if (signal.aborted) break
    try {
      const record = await endedTask(executionId, scope)
      if (!record) continue
      await endEverything({ record, log: scope.log }, record.process ?? undefined)
      await scope.saveLeft(record, signal)
      left.push(await clearTask(record, scope))
    } catch (error) {
      scope.log.warn({ error, executionId }, 'What an ended task left could not be swept; tried again later')
    }
  }
  return left
}

export async function deliverLeft(
  records: TaskRecord[],
  options: SweepScope & { dialer: Dialer; deliveryTimeoutMs: number; signal: AbortSignal },
): Promise<void> {
  const { stateDir, dialer, deliveryTimeoutMs, signal } = options
  for (const record of records) {
    if (signal.aborted) return
    const paths = taskFolder(stateDir, record.execution_id)
    const log = options.log.child({ executionId: record.execution_id })
    const token = await readFile(paths.token, 'utf8').catch(() => undefined)
    const delivery = await deliverSpool({
      folder: paths.spool,
      token,
      dialer,
      log,
      timeoutMs: deliveryTimeoutMs,
      signal,
    })
    if (delivery === 'kept') {
      if (!isTooLate(record)) continue
      log.warn({ runId: record.task_id }, 'The last events of an ended task could not be delivered in time; given up')
    }
    await cleanUp({ record, paths, stateDir, log })
    log.info({ runId: record.task_id, delivery }, 'Swept what an ended task had left')
  }
  if (!signal.aborted) await returnUsersExceptOf(stateDir, new Set(await listTaskFolders(stateDir)))
}

/** Sweeps are made while there is a connection, so an outage of the control plane, which adds to its deadlines, does not count. */
function isTooLate({ ended_at }: TaskRecord): boolean {
  return ended_at !== undefined && Date.now() - Date.parse(ended_at) > lateEvidenceMs
}

/** Tasks of this worker id whose worker process is gone, before anybody has told their end: most of their agents still run. */
export async function listOutlivers({ stateDir, serverUrl }: SweepScope, workerId: string): Promise<TaskRecord[]> {
  const found: TaskRecord[] = []
  for (const executionId of await listTaskFolders(stateDir)) {
    const record = await readRecord(taskFolder(stateDir, executionId))
    if (record?.worker_id !== workerId || record.server_url !== serverUrl) continue
    const hasWorker = record.worker !== null && isSameProcess(record.worker)
    if (!hasWorker && record.process && record.ended_at === undefined) found.push(record)
  }
  return found
}

/** A new execution of a run was given to us, so earlier ones are over, whatever their processes think. */
export async function clearFormerExecutions(taskId: string, scope: SweepScope): Promise<void> {
  for (const executionId of await listTaskFolders(scope.stateDir)) {
    if (scope.isActive(executionId)) continue
    const record = await readRecord(taskFolder(scope.stateDir, executionId))
    if (record?.task_id === taskId && !isOfOtherWorker(record)) await clearTask(record, scope)
  }
}

async function endedTask(executionId: string, { stateDir, serverUrl, isActive, log }: SweepScope) {
  if (isActive(executionId)) return undefined
  const paths = taskFolder(stateDir, executionId)
  const record = await readRecord(paths)
  if (!record) {
    const { mtimeMs } = await stat(paths.folder)
    // Another worker may be about to write it.
    if (Date.now() - mtimeMs > 60_000) await removeTaskFolder(paths)
    return undefined
  }
  if (record.server_url !== serverUrl || isOfOtherWorker(record)) return undefined
  if (record.process && isSameProcess(record.process)) {
    log.info({ executionId, pid: record.process.pid }, 'An agent outlived its worker and still runs; left alone')
    return undefined
  }
  return record
}

async function clearTask(record: TaskRecord, { stateDir, log }: SweepScope): Promise<TaskRecord> {
  const paths = taskFolder(stateDir, record.execution_id)
  await endEverything({ record, log }, record.process ?? undefined)
  await cleanUp({ record, paths, stateDir, log }, { keepsSpool: true })
  return { ...record, removes_workspace: false, process: null }
}

function isOfOtherWorker({ worker }: TaskRecord): boolean {
  return worker !== null && worker.pid !== process.pid && isSameProcess(worker)
}
