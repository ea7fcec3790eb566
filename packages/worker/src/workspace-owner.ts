import { randomUUID } from 'node:crypto'
import { link, readdir, readFile, rename, rm } from 'node:fs/promises'
import { join } from 'node:path'
import { writePrivateFile } from '@openoz/machine'
import { z } from 'zod'

/**
 * Which execution a run's workspace belongs to: `<state>/owners/<run id>` holds the execution's id. A workspace is named by the run, since a run that
 * goes on finds its files where they were; so two executions of a run mean the same folder, and two workers of one machine may have one each, of which
 * the first hangs. The newest takes it over by replacing the file; only the owner saves or removes what lies there.
 *
 * A workspace without such a file is nobody's: kept for the operator, and never removed.
 */
function ownersFolder(stateDir: string): string {
  return join(stateDir, 'owners')
}

export async function claimWorkspace(stateDir: string, taskId: string, executionId: string): Promise<void> {
  await writePrivateFile(join(ownersFolder(stateDir), taskId), executionId)
}

export async function ownerOf(stateDir: string, taskId: string): Promise<string | undefined> {
  return await readFile(join(ownersFolder(stateDir), taskId), 'utf8').catch(() => undefined)
}

/**
 * Once the workspace is gone, or is the operator's. Taken away before it is looked at: whoever hangs between look and removal would remove what a newer
 * execution has put there meanwhile.
 */
export async function disownWorkspace(stateDir: string, taskId: string, executionId: string): Promise<void> {
  const file = join(ownersFolder(stateDir), taskId)
  const taken = `${file}.${randomUUID()}.tmp`
  try {
    await rename(file, taken)
  } catch (error) {
    if (error instanceof Error && 'code' in error && error.code === 'ENOENT') return
    throw error
  }
  // Unless there is a still newer one.
  if ((await readFile(taken, 'utf8')) !== executionId) await link(taken, file).catch(() => {})
  await rm(taken, { force: true })
}

/** Run ids of all workspaces that belong to an execution. */
export async function listOwned(stateDir: string): Promise<string[]> {
  const names = await readdir(ownersFolder(stateDir)).catch(() => [])
  return names.filter((name) => z.uuid().safeParse(name).success)
}
