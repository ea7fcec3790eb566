import { mkdirSync, renameSync, rmSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'
import type { HarnessCheckpoint } from './harnesses/harness.ts'
import type { Workspace } from './workspace/prepare.ts'

/**
 * What of an execution the control plane does not have yet, on the local disk, so that an agent that dies without a word leaves it to its worker:
 *
 *   <spool>/kept/workspace.json   where the workspace is and what it began from; there from the first tool on until all of it is saved
 *   <spool>/kept/checkpoint       the conversation after the last thing that was done: a line of JSON about it, then its bytes
 *
 * The agent writes, with synchronous calls: what was done must be on disk before anything else is done. A file appears whole or not at all.
 * After the agent's death its worker starts `saveKeptWork`, which reads (`kept-work-reader.ts`, apart, so that no agent loads at its start what
 * only reading needs). The worker itself only looks whether the folder is there, and its name is known to it (`task-folder.ts`).
 */
export interface KeptWork {
  /** From now on there is something to save. Never throws. */
  keepWorkspace(kept: KeptWorkspace): void
  /** The conversation as of now; replaces the one before. Quick, never throws. */
  keepCheckpoint(checkpoint: KeptCheckpoint): void
  /** The control plane has all of it, or will have it from the spool: there is nothing left for a saver to do. Never throws. */
  saved(): void
}

export interface KeptWorkspace {
  workspace: Workspace
  /** As the control plane said: `limits.workspace_max_bytes`. */
  maxBytes: number
}

/** `harness` names the program that reads `data`. */
export type KeptCheckpoint = HarnessCheckpoint & { harness: string }

export const keptWorkName = 'kept'
export const workspaceFile = 'workspace.json'
export const checkpointFile = 'checkpoint'

/** `onProblem` is told once when something could not be kept (a full disk): the work itself goes on. */
export function openKeptWork(spoolDir: string, onProblem: (error: unknown) => void = () => {}): KeptWork {
  const folder = join(spoolDir, keptWorkName)
  let hasProblem = false
  const attempt = (work: () => void) => {
    try {
      work()
    } catch (error) {
      if (!hasProblem) onProblem(error)
      hasProblem = true
    }
  }
  return {
    keepWorkspace: ({ workspace, maxBytes }) =>
      attempt(() => {
        const kept = { version: 1, workspace, max_bytes: maxBytes }
        replace(folder, workspaceFile, [JSON.stringify(kept)])
      }),
    keepCheckpoint: ({ data, ...about }) =>
      attempt(() => replace(folder, checkpointFile, [`${JSON.stringify({ version: 1, ...about })}\n`, data])),
    // The workspace last: who finds it without a checkpoint saves too much, not too little.
    saved: () => attempt(() => removeKeptWork(spoolDir)),
  }
}

/** For an execution that nobody saves anything of after its agent's death. */
export const noKeptWork: KeptWork = { keepWorkspace() {}, keepCheckpoint() {}, saved() {} }

export function removeKeptWork(spoolDir: string): void {
  const folder = join(spoolDir, keptWorkName)
  for (const name of [checkpointFile, workspaceFile]) rmSync(join(folder, name), { force: true })
  rmSync(folder, { recursive: true, force: true })
}

/** Not synced: the kernel keeps it through the death of the process, and after a power cut the workspace is gone as well. */
function replace(folder: string, name: string, parts: (string | Uint8Array)[]): void {
  mkdirSync(folder, { recursive: true, mode: 0o700 })
  const temporary = join(folder, `.${name}.tmp`)
  try {
    const content = Buffer.concat(parts.map((part) => Buffer.from(part)))
    writeFileSync(temporary, content, { mode: 0o600 })
    renameSync(temporary, join(folder, name))
  } catch (error) {
    // What is there of it takes room that others may need.
    rmSync(temporary, { force: true })
    throw error
  }
}
