import { removeTree } from '../folder-removal.ts'
import { returnTaskUser } from '../task-users.ts'
import type { DirectTaskContext } from './direct-context.ts'
import { endEverything } from './direct-ending.ts'
import { shimOf } from './direct-former.ts'
import { releaseWorkspace } from './direct-workspace.ts'
import type { HeldTasksParts } from './held-tasks.ts'

/** The end of a task of the direct backend whose end was told: its processes, its workspace, its user. */
export const directRemoval: Pick<HeldTasksParts<DirectTaskContext>, 'endAgain' | 'release' | 'forget'> = {
  async endAgain(context) {
    return (await endEverything(context, await shimOf(context.stateDir, context.record))).length === 0
  },

  async release(context) {
    const { record, paths } = context
    await releaseWorkspace(context)
    await removeTree(paths.agent.folder)
    await removeTree(paths.given)
    return { ...record, removes_workspace: false, process: null }
  },

  async forget({ record, stateDir }) {
    if (record.uid !== undefined) await returnTaskUser(stateDir, record.uid, record.execution_id)
  },
}
