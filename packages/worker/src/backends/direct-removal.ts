import { removeTree } from '../folder-removal.ts'
import { deliverSpool } from '../spool-delivery.ts'
import { readEnd } from '../task-end.ts'
import { removeTaskFolder, writeRecord } from '../task-folder.ts'
import { returnTaskUser } from '../task-users.ts'
import { shimOf } from './direct-adopt.ts'
import { endEverything } from './direct-ending.ts'
import type { DirectHost, HeldTask } from './direct-host.ts'
import { noteReported } from './direct-task.ts'
import { releaseWorkspace } from './direct-workspace.ts'

/** The end of a task whose end was told: what of it is removed now, and what has to wait for its spool to be delivered. */

/** Nobody looks for it after that, and the control plane refuses it long before. */
const longestKeptMs = 7 * 24 * 60 * 60_000

/** Removes what was made for a task, or what there is of it. What cannot be removed is tried again by the next sweep. Never rejects. */
export async function removeTask(host: DirectHost, executionId: string): Promise<void> {
  const held = host.held.get(executionId)
  if (!held) return
  held.over ??= held.task?.isSpoolKept ? 'spool' : 'all'
  await held.mirroring?.stop()
  const { context } = held
  if (!context) return
  const { record, paths, log } = context
  try {
    if (!(await isAtRest(host, held))) return
    await releaseWorkspace(context)
    await removeTree(paths.agent.folder)
    await removeTree(paths.given)
    if (held.over === 'spool') {
      await noteReported(context)
      // By the time that it is delivered the workspace may be another execution's.
      context.record = { ...record, removes_workspace: false, process: null }
      await writeRecord(paths, context.record)
    } else {
      await removeTaskFolder(paths, (place) =>
        log.warn({ place }, 'What the task had changed never reached the control plane; it was kept in this folder'),
      )
      if (record.uid !== undefined) await returnTaskUser(host.stateDir, record.uid, executionId)
      host.held.delete(executionId)
    }
  } catch (error) {
    log.error({ error }, 'Something of a task could not be removed; the next sweep tries again')
  }
}

/** What could not be ended before is tried again: root must not remove folders that a task still changes. */
async function isAtRest(host: DirectHost, held: HeldTask): Promise<boolean> {
  const { context, task } = held
  held.mayRun ??= task?.mayRun
  if (context && held.mayRun)
    held.mayRun = (await endEverything(context, await shimOf(host, context.record))).length > 0
  return !held.mayRun
}

/** What `removeTask` could not do before. Never rejects. */
export async function removeAgain(host: DirectHost): Promise<void> {
  for (const [executionId, { over }] of [...host.held]) if (over === 'all') await removeTask(host, executionId)
}

/** Never rejects. */
export async function deliverKept(host: DirectHost, signal: AbortSignal): Promise<void> {
  for (const [executionId, held] of [...host.held]) {
    if (held.over !== 'spool' || !held.context || signal.aborted) continue
    await deliverOne(host, { executionId, held }, signal).catch((error: unknown) =>
      host.log.warn({ error, executionId }, 'What an ended task left could not be swept; tried again later'),
    )
  }
}

async function deliverOne(
  host: DirectHost,
  { executionId, held }: { executionId: string; held: HeldTask },
  signal: AbortSignal,
): Promise<void> {
  const { context } = held
  if (!context || !(await isAtRest(host, held))) return
  const { paths, token, dialer, log, record } = context
  const timeoutMs = Math.min(host.deliveryTimeoutMs, 30_000)
  const delivery = await deliverSpool({ folder: paths.spool, token, dialer, log, timeoutMs, signal })
  if (delivery === 'kept') {
    const endedAt = (await readEnd(paths))?.ended_at ?? record.ended_at ?? record.started_at
    if (Date.now() - Date.parse(endedAt) < longestKeptMs) return
    log.warn('The last events of an ended task could not be delivered in time; given up')
  }
  held.over = 'all'
  await removeTask(host, executionId)
  log.info({ delivery }, 'Swept what an ended task had left')
}
