import { randomUUID } from 'node:crypto'
import { copyFile, mkdir, rm, writeFile } from 'node:fs/promises'
import { join } from 'node:path'
import type { LiveExecution } from './live-execution.ts'
import { isNothing, type SavedState, saveWorkspace } from './workspace/save.ts'

/**
 * Saves the workspace as blobs and says so, also when there is nothing in it: whoever goes on from here must neither miss anything nor get back
 * what was deleted. Does nothing before there is a workspace. Rejects when it cannot, or must stop.
 */
export async function saveToControlPlane(execution: LiveExecution): Promise<void> {
  const { channel, events, stop, unsaved } = execution
  const signal = stop.saving
  const store = (file: string, contentType: string) => channel.uploadBlob({ file }, { contentType, signal })
  const saved = await save(execution, signal, store)
  if (saved) {
    events.emitFinal({ type: 'workspace_saved', data: { repositories: saved.repositories, left_out: saved.leftOut } })
  }
  unsaved.delete('workspace')
}

/** Beside the spool: a copy that a machine keeps until it was delivered. Its name is known to the worker (`task-folder.ts`). */
export const savedWorkName = 'saved-workspace'
/** The same once its content is in the spool as well: whoever delivers that removes it. */
export const spooledWorkName = 'saved-workspace.spooled'
/** Afterwards what is kept is the worker's to save; see `kept-work.ts`. */
const localSaveMs = 60_000

/**
 * For an agent that has lost its lease: beside the spool, where an operator finds it should the control plane stay away. Ends before the agent must
 * be dead: git runs programs that a repository names. Never rejects.
 */
export async function saveLocally(execution: LiveExecution): Promise<void> {
  const { log, spoolDir, lease } = execution
  const limitMs = Math.min(localSaveMs, lease.leftMs() * 0.8)
  if (spoolDir === undefined || limitMs <= 0) return
  const folder = join(spoolDir, savedWorkName)
  try {
    await mkdir(folder, { recursive: true, mode: 0o700 })
    const saved = await save(execution, AbortSignal.timeout(limitMs), async (file) => {
      const id = randomUUID()
      await copyFile(file, join(folder, id))
      return id
    })
    if (!saved || isNothing(saved)) return await rm(folder, { recursive: true, force: true })
    await writeFile(join(folder, 'saved.json'), JSON.stringify(saved, undefined, 2), { mode: 0o600 })
    log.warn({ folder }, 'the control plane is away; what the run changed was saved in this folder')
  } catch (error) {
    log.error({ err: error, folder }, 'what the run changed could not be saved')
  }
}

async function save(
  { workspace, hello, taskEnv }: LiveExecution,
  signal: AbortSignal,
  store: (file: string, contentType: string) => Promise<string>,
): Promise<SavedState | undefined> {
  if (!workspace) return undefined
  const maxBytes = hello.limits.workspace_max_bytes
  return saveWorkspace({ ...workspace, env: taskEnv, maxBytes, signal, store })
}
