import { randomUUID } from 'node:crypto'
import { access, chown, constants, mkdir, rename, rm, stat, writeFile } from 'node:fs/promises'
import { join } from 'node:path'
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

export function workspaceFailure(error: unknown): TaskFailure {
  const words = error instanceof Error ? error.message : 'unknown error'
  return new TaskFailure('workspace_setup', `The workspace could not be made: ${words}`, { cause: error })
}

export async function isFolder(path: string): Promise<boolean> {
  return (await stat(path).catch(() => undefined))?.isDirectory() ?? false
}
