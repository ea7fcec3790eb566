import { execFile } from 'node:child_process'
import { randomUUID } from 'node:crypto'
import { chown, lchown, lstat, mkdir, rename, stat } from 'node:fs/promises'
import { dirname, join } from 'node:path'
import { promisify } from 'node:util'
import { removeTree } from '../folder-removal.ts'
import type { TaskUser } from '../isolation.ts'
import { claimWorkspace, disownWorkspace, ownerOf } from '../workspace-owner.ts'
import { TaskFailure } from './backend.ts'
import type { DirectTaskContext } from './direct-context.ts'

/** Ours from here on; see `workspace-owner.ts`. */
export async function makeWorkspace(
  { record, stateDir }: Pick<DirectTaskContext, 'record' | 'stateDir'>,
  user: TaskUser | undefined,
): Promise<void> {
  const { workspace, removes_workspace, task_id, execution_id } = record
  await claimWorkspace(stateDir, task_id, execution_id)
  let former: string | undefined
  // Left by an earlier execution of the run: not cleaned up, or kept for the operator.
  if (removes_workspace) former = await moveAway(workspace)
  else if (await isFolder(workspace)) {
    await rename(workspace, `${workspace}.${new Date().toISOString().replaceAll(':', '-')}`)
  }
  await mkdir(workspace, { mode: 0o700 })
  if (user) await chown(workspace, user.uid, user.gid)
  record.workspace_id = await folderId(workspace)
  // Afterwards, so that the new one has another number.
  if (former !== undefined) await removeTree(former)
}

/** Which folder it is, whatever its name becomes. Numbers of removed ones are given out again, hence the time. */
export async function folderId(path: string): Promise<string | undefined> {
  const found = await lstat(path, { bigint: true }).catch(() => undefined)
  return found && `${found.dev}:${found.ino}:${found.birthtimeNs}`
}

/** False also where the task has a folder that all share. */
export async function ownsItsWorkspace({
  record,
  stateDir,
}: Pick<DirectTaskContext, 'record' | 'stateDir'>): Promise<boolean> {
  const owner = await ownerOf(stateDir, record.task_id)
  // A shared folder has no owner, nor have workspaces that a version without owners made.
  return owner === undefined || owner === record.execution_id
}

/** What `removeWorkspace` has put out of the way. */
export const removingMark = '.removing-'

/**
 * First out of the way, in one step, and only then looked at: a worker that is frozen in the middle of it must not take from the next execution's when
 * it goes on. With `id` (see `folderId`), another folder of that name is put back.
 */
export async function removeWorkspace(workspace: string, id?: string): Promise<void> {
  const gone = await moveAway(workspace)
  if (gone === undefined) return
  if (id === undefined || (await folderId(gone)) === id) return await removeTree(gone)
  await rename(gone, workspace)
}

/** undefined when there was nothing. */
async function moveAway(workspace: string): Promise<string | undefined> {
  const gone = join(dirname(workspace), `${removingMark}${randomUUID()}`)
  try {
    await rename(workspace, gone)
    return gone
  } catch (error) {
    if (error instanceof Error && 'code' in error && error.code === 'ENOENT') return undefined
    throw error
  }
}

/** Removes it, or leaves it to the operator, as its task was told; nothing when it has another owner by now. */
export async function releaseWorkspace({
  record,
  stateDir,
  log,
}: Pick<DirectTaskContext, 'record' | 'stateDir' | 'log'>): Promise<void> {
  const { workspace, workspace_id, removes_workspace, uid, task_id, execution_id } = record
  if (!(await ownsItsWorkspace({ record, stateDir }))) {
    log.info({ workspace }, 'The workspace belongs to a newer execution of the run')
    return
  }
  if (removes_workspace) await removeWorkspace(workspace, workspace_id)
  else {
    log.info({ workspace }, 'The workspace is kept')
    // Its user may be a later task's: nobody but us goes in from now on.
    if (uid !== undefined) await lchown(workspace, 0, 0).catch(() => {})
  }
  await disownWorkspace(stateDir, task_id, execution_id)
}

/**
 * Tells the file system that the folders in this one have nothing to do with each other, as those of /home: ext4 then gives each a region of the
 * disk of its own. Without a journal, ext4 looks at every file that was deleted from a region in the last minutes before it makes one there, so
 * that a checkout of 5,000 files after the removal of another takes seconds, and 0.2 s elsewhere on that disk. Never rejects: other file
 * systems do not know the flag and do not need it.
 */
export async function layFoldersApart(folder: string): Promise<void> {
  // Of what a link leads to, which chattr would refuse.
  await promisify(execFile)('chattr', ['+T', `${folder}/.`], { timeout: 5_000 }).catch(() => {})
}

export function workspaceFailure(error: unknown): TaskFailure {
  const words = error instanceof Error ? error.message : 'unknown error'
  return new TaskFailure('workspace_setup', `The workspace could not be made: ${words}`, { cause: error })
}

export async function isFolder(path: string): Promise<boolean> {
  return (await stat(path).catch(() => undefined))?.isDirectory() ?? false
}
