import { readFileSync } from 'node:fs'
import { join } from 'node:path'
import { z } from 'zod'
import { checkpointFile, type KeptCheckpoint, type KeptWorkspace, keptWorkName, workspaceFile } from './kept-work.ts'

/** What a dead agent has left. A part that cannot be read is as if it were not there. */
export function readKeptWork(spoolDir: string): { workspace?: KeptWorkspace; checkpoint?: KeptCheckpoint } {
  const folder = join(spoolDir, keptWorkName)
  return {
    workspace: orNothing(() => readWorkspace(join(folder, workspaceFile))),
    checkpoint: orNothing(() => readCheckpoint(join(folder, checkpointFile))),
  }
}

const keptWorkspace = z.object({
  version: z.literal(1),
  workspace: z.object({
    folder: z.string(),
    toolsFolder: z.string(),
    repositories: z.array(
      z.object({
        dir: z.string(),
        folder: z.string(),
        url: z.string().optional(),
        base: z.string().nullable(),
        isKept: z.boolean(),
      }),
    ),
    found: z.array(z.string()).optional(),
  }),
  max_bytes: z.number(),
})

const keptCheckpoint = z.object({
  version: z.literal(1),
  harness: z.string(),
  format: z.string(),
  step: z.int().min(0),
  takenMessageIds: z.array(z.string()),
})

function readWorkspace(file: string): KeptWorkspace {
  const { workspace, max_bytes } = keptWorkspace.parse(JSON.parse(readFileSync(file, 'utf8')))
  return { workspace, maxBytes: max_bytes }
}

function readCheckpoint(file: string): KeptCheckpoint {
  const bytes = readFileSync(file)
  const end = bytes.indexOf('\n')
  const { version: _, ...about } = keptCheckpoint.parse(JSON.parse(bytes.subarray(0, end).toString('utf8')))
  return { ...about, data: bytes.subarray(end + 1) }
}

function orNothing<T>(read: () => T): T | undefined {
  try {
    return read()
  } catch {
    return undefined
  }
}
