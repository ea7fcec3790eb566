import { execFile } from 'node:child_process'
import { randomUUID } from 'node:crypto'
import { access, chown, constants, mkdir, rename, rm, stat, writeFile } from 'node:fs/promises'
import { join } from 'node:path'
import { promisify } from 'node:util'
import { AppError } from '@openoz/protocol'
import { removeTree } from '../folder-removal.ts'
import type { TaskUser } from '../isolation.ts'
import type { TaskRecord } from '../task-folder.ts'
import { TaskFailure } from './backend.ts'

export async function makeWorkspace(
  { workspace, removes_workspace }: TaskRecord,
  user: TaskUser | undefined,
): Promise<void> {
  if (await isFolder(workspace)) {
    // Left by an earlier execution of the run: kept for the operator, or not cleaned up.
    if (removes_workspace) await removeTree(workspace)
    else await rename(workspace, `${workspace}.${new Date().toISOString().replaceAll(':', '-')}`)
  }
  await mkdir(workspace, { mode: 0o700 })
  if (user) await chown(workspace, user.uid, user.gid)
}

/** Rejects with `workspace_root_not_writable`. */
export async function makeWritable(folder: string): Promise<void> {
  try {
    // Others may pass, not look: tasks of root's worker have users of their own.
    await mkdir(folder, { recursive: true, mode: process.getuid?.() === 0 ? 0o711 : 0o700 })
    await access(folder, constants.W_OK | constants.X_OK)
    // Read-only and full file systems look writable until one writes.
    const probe = join(folder, `.write-${randomUUID()}`)
    await writeFile(probe, 'probe')
    await rm(probe)
  } catch (error) {
    const problem = error instanceof Error && 'code' in error ? String(error.code) : 'unknown error'
    throw new AppError('workspace_root_not_writable', { folder, problem })
  }
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
