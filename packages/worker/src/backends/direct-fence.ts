import { listTaskFolders, lockTask, readRecord, type TaskRecord, taskFolder } from '../task-folder.ts'
import { shimOf } from './direct-adopt.ts'
import { type DirectHost, formerContext, silentReporter } from './direct-host.ts'
import { removeTask } from './direct-removal.ts'
import { endEverything } from './direct-task.ts'

/**
 * A new execution of a run was given to us, and the control plane has taken our claim: so earlier ones are over, whatever their processes think, and
 * whichever worker of this machine they belong to. That one may hang; its task is ended without it. Its workspace has a new owner afterwards, so that
 * it keeps its hands off when it goes on.
 */
export async function fenceFormerExecutions(host: DirectHost, taskId: string, except: string): Promise<void> {
  for (const executionId of await listTaskFolders(host.stateDir)) {
    // Ours are over, or they would not have let the offer in.
    if (executionId === except || host.held.has(executionId)) continue
    const record = await readRecord(taskFolder(host.stateDir, executionId))
    if (record?.task_id === taskId) await fence(host, record)
  }
}

async function fence(host: DirectHost, record: TaskRecord): Promise<void> {
  const { execution_id: executionId } = record
  const paths = taskFolder(host.stateDir, executionId)
  const lock = lockTask(paths)
  const shim = await shimOf(host, record)
  if (!lock) {
    host.log.warn(
      { runId: record.task_id, executionId },
      'Another worker of this machine still has an earlier execution of the run; it is ended',
    )
    return endEverything({ ...host, record }, shim)
  }
  const context = await formerContext(host, record, silentReporter)
  host.held.set(executionId, { lock, context, over: 'spool' })
  await endEverything(context, shim)
  await removeTask(host, executionId)
}
