import { endProcessTree, isSameProcess, type ProcessIdentity } from '@openoz/machine'
import { marksOf } from '../installation.ts'
import { readShim, type TaskRecord, taskFolder } from '../task-folder.ts'
import { leaseLeftMs } from '../task-lease.ts'
import { type DirectTaskContext, exposedOf } from './direct-context.ts'
import { endEverything, endPersistently } from './direct-ending.ts'
import { type DirectHost, formerContext } from './direct-host.ts'
import { DirectTask } from './direct-task.ts'
import { releaseWorkspace } from './direct-workspace.ts'
import type { SweptTasks } from './sweep-folders.ts'

/** What the direct backend knows of tasks that earlier processes have left: by their shims, which outlive workers. */
export function directFormer(host: DirectHost): SweptTasks<DirectTaskContext, ProcessIdentity> {
  const { stateDir, installationId, leaving } = host
  const endingOf = (record: TaskRecord) => {
    const { task_id: runId, execution_id: executionId } = record
    return { record, installationId, log: host.log.child({ runId, executionId }) }
  }
  return {
    find: (record) => shimOf(stateDir, record),
    isRunning: (shim) => isSameProcess(shim),
    recordOf: (record, shim) => ({ ...record, process: shim ?? null }),
    contextOf: (record, reporter) => formerContext(host, record, reporter),
    follow(context, shim, end) {
      const { user, paths, record, isolation } = context
      const { depth } = isolation.wrap([], { user, workspace: record.workspace, exposed: exposedOf(paths) })
      return new DirectTask(context, { shim, end, depth }, leaving)
    },
    end: (record, shim) => endPersistently(endingOf(record), shim, { signal: leaving }),
    leaseLeftMs: ({ execution_id }) => leaseLeftMs(taskFolder(stateDir, execution_id)),
    async endLeftRunning(record, shim) {
      await endEverything(endingOf(record), shim)
    },
    async endUnknown(executionId) {
      const { survivors } = await endProcessTree({ marker: marksOf(installationId, executionId) }, 0)
      return survivors.length === 0
    },
    leaveFiles: (record) =>
      releaseWorkspace({ record: { ...record, removes_workspace: false }, stateDir, log: host.log }),
  }
}

/** The record names it once it runs; until then only itself. */
export async function shimOf(stateDir: string, record: TaskRecord): Promise<ProcessIdentity | undefined> {
  return record.process ?? (await readShim(taskFolder(stateDir, record.execution_id)))
}
