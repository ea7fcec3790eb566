import { backendOf, listTaskFolders, lockTask, readRecord, type TaskRecord, taskFolder } from '../task-folder.ts'
import { silentReporter } from './backend.ts'
import type { DirectTaskContext } from './direct-context.ts'
import { endPersistently } from './direct-ending.ts'
import { shimOf } from './direct-former.ts'
import { type DirectHost, formerContext } from './direct-host.ts'
import { saveLeftWork } from './direct-save.ts'
import type { HeldTask } from './held-tasks.ts'

const savingMs = 30_000

/**
 * A new execution of a run was given to us, and the control plane has taken our claim: so earlier ones are over, whatever their processes think, and
 * whichever worker of this machine they belong to. That one may hang; its task is ended without it. Its workspace has a new owner afterwards, so that
 * it keeps its hands off when it goes on.
 */
export async function fenceFormerExecutions(host: DirectHost, taskId: string, except: string): Promise<void> {
  for (const executionId of await listTaskFolders(host.stateDir)) {
    if (executionId === except) continue
    const held = host.held.get(executionId)
    if (held) {
      // Ours are over, or they would not have let the offer in; what we clear for another worker id is not.
      if (!host.held.isOver(executionId) && held.context?.record.task_id === taskId) await endClearing(host, held)
      continue
    }
    const record = await readRecord(taskFolder(host.stateDir, executionId))
    if (record?.task_id === taskId && backendOf(record) === host.backend) await fence(host, record)
  }
}

/** Its saver must not look at the folder while that becomes another one: it would say that nothing was there. */
async function endClearing(host: DirectHost, { context, clearing }: HeldTask<DirectTaskContext>): Promise<void> {
  clearing?.abort()
  if (context) await endPersistently(context, await shimOf(host.stateDir, context.record), { signal: host.leaving })
}

async function fence(host: DirectHost, record: TaskRecord): Promise<void> {
  const { execution_id: executionId } = record
  const paths = taskFolder(host.stateDir, executionId)
  const lock = lockTask(paths)
  const shim = await shimOf(host.stateDir, record)
  if (!lock) {
    host.log.warn(
      { runId: record.task_id, executionId },
      'Another worker of this machine still has an earlier execution of the run; it is ended',
    )
    await endPersistently({ ...host, record }, shim, { signal: host.leaving })
    return
  }
  const context = await formerContext(host, record, silentReporter)
  const held: HeldTask<DirectTaskContext> = { lock, context }
  host.held.hold(executionId, held)
  await host.held.giveUp(executionId, async () => {
    held.mayRun = !(await endPersistently(context, shim, { signal: host.leaving }))
    // Evidence, as long as the folder is its own; the next execution does not wait long for it.
    if (!held.mayRun) await saveLeftWork(context, AbortSignal.any([host.leaving, AbortSignal.timeout(savingMs)]))
  })
}
