import { randomUUID } from 'node:crypto'
import { copyFile, mkdir, writeFile } from 'node:fs/promises'
import { join } from 'node:path'
import type { Turn } from './turn.ts'
import { type SavedState, saveWorkspace } from './workspace/save.ts'

/** Saves the repositories as blobs and says so. Does nothing before there is a workspace. */
export async function saveToControlPlane(turn: Turn, hurry: AbortSignal | undefined): Promise<void> {
  const { channel, events, stop } = turn
  const signal = hurry ? AbortSignal.any([stop.ours, hurry]) : stop.ours
  const saved = await save(turn, signal, (file, contentType) => channel.uploadBlob({ file }, { contentType, signal }))
  if (!saved) return
  events.emitFinal({ type: 'workspace_saved', data: { repositories: saved.repositories, left_out: saved.leftOut } })
}

/** For an agent that has lost its control plane: beside the spool, where an operator finds it. Never rejects. */
export async function saveLocally(turn: Turn): Promise<void> {
  const { log, spoolDir } = turn
  if (spoolDir === undefined) return
  const folder = join(spoolDir, 'saved-workspace')
  try {
    await mkdir(folder, { recursive: true, mode: 0o700 })
    const saved = await save(turn, AbortSignal.timeout(60_000), async (file) => {
      const id = randomUUID()
      await copyFile(file, join(folder, id))
      return id
    })
    if (!saved) return
    await writeFile(join(folder, 'saved.json'), JSON.stringify(saved, undefined, 2), { mode: 0o600 })
    log.warn({ folder }, 'the control plane is away; what the run changed was saved in this folder')
  } catch (error) {
    log.error({ err: error, folder }, 'what the run changed could not be saved')
  }
}

async function save(
  { workspace, hello, taskEnv }: Turn,
  signal: AbortSignal,
  store: (file: string, contentType: string) => Promise<string>,
): Promise<SavedState | undefined> {
  if (!workspace || workspace.repositories.length === 0) return undefined
  const maxBytes = hello.limits.workspace_max_bytes
  return saveWorkspace({ repositories: workspace.repositories, env: taskEnv, maxBytes, signal, store })
}
