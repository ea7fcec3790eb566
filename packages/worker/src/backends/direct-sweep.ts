import { readdir } from 'node:fs/promises'
import { join } from 'node:path'
import { endProcessTree, findMarked } from '@openoz/machine'
import { z } from 'zod'
import { removeTree } from '../folder-removal.ts'
import { stateMark, stateVariable } from '../installation.ts'
import { isKnownHere, listTaskFolders } from '../task-folder.ts'
import { returnUsersOfNobody } from '../task-users.ts'
import { disownWorkspace, listOwned, ownerOf } from '../workspace-owner.ts'
import { directFormer } from './direct-former.ts'
import type { DirectHost } from './direct-host.ts'
import { folderId, removeWorkspace, removingMark } from './direct-workspace.ts'
import { clearInstances, clearTemporary, createAttempts, sweepFolders } from './sweep-folders.ts'

/**
 * Clears what nobody on this machine answers for: what lies in the state folder (see `sweep-folders.ts`), then processes with the mark of this installation
 * whose task has no folder, users, workspaces and temporary files without an execution.
 */
export async function sweepMachine(host: DirectHost): Promise<void> {
  const attempt = createAttempts(host)
  await sweepFolders(host, directFormer(host), attempt)
  await attempt('Processes without a task', () => endStrays(host))
  await attempt('Users of tasks', () => returnUsersOfNobody(host.stateDir, host.installationId))
  await attempt('Workspaces', () => clearWorkspaces(host))
  const ours = /^\.(probe-\w{6}|write-[0-9a-f-]{36})$/
  await attempt('Temporary files', () => clearTemporary(host.stateDir, [[host.workspaceRoot, ours]]))
  await attempt('Instances of workers', () => clearInstances(host))
  await attempt('Mirrors', async () => host.mirrors?.sweep())
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
