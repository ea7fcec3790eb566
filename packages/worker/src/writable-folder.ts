import { randomUUID } from 'node:crypto'
import { access, constants, mkdir, rm, writeFile } from 'node:fs/promises'
import { join } from 'node:path'
import { AppError } from '@openoz/protocol'

/** Makes it where it is missing. Rejects with `workspace_root_not_writable`. */
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
