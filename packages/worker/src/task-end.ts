import { open, readFile, rename, writeFile } from 'node:fs/promises'
import { join } from 'node:path'
import { isDiskFull, writePrivateFile } from '@openoz/machine'
import { z } from 'zod'
import type { TaskFolder } from './task-folder.ts'

/**
 * How a task ended, on disk (`end.json`) before anything else is done about it: a worker that is killed while it saves, delivers or reports leaves a
 * successor that goes on where it was. Written again as the steps are done; the folder goes when the control plane has handled the report.
 */
const taskExit = z.discriminatedUnion('type', [
  z.object({ type: z.literal('exited'), code: z.int() }),
  z.object({ type: z.literal('killed'), signal: z.int() }),
  z.object({ type: z.literal('vanished') }),
])

const taskEnd = z.object({
  version: z.literal(1),
  /** Absent when the agent never ran; then `failure` says why, or `cause`. */
  exit: taskExit.optional(),
  failure: z.object({ reason: z.string(), message: z.string(), exit_code: z.int().optional() }).optional(),
  /** Why it was stopped, if it was. */
  cause: z.enum(['cancel', 'abandon', 'shutdown']).optional(),
  last_words: z.string(),
  ran_out_of_memory: z.boolean(),
  /** Absent with the above: of the machine, nobody knows whose. */
  out_of_memory: z.literal('task').optional(),
  /** What its container was limited to. */
  memory_limit_bytes: z.int().optional(),
  /** What ran its container has stopped, and ended it with that. */
  engine_stopped: z.boolean().optional(),
  /** What became of what the agent had not saved; absent until that is decided. */
  left: z.enum(['none', 'saved', 'lost']).optional(),
  is_torn_down: z.boolean().optional(),
  /** The control plane knows. What is left is a spool that could not be delivered. */
  is_reported: z.boolean().optional(),
  ended_at: z.string(),
})
export type TaskEndRecord = z.infer<typeof taskEnd>

/** More than any end takes, of which the last words are most. */
const roomBytes = 16 * 1024

/** Takes the room for the end, while there is some: the task may fill the disk. Never rejects. */
export async function keepRoomForEnd(paths: TaskFolder): Promise<void> {
  await writeFile(roomFile(paths), ' '.repeat(roomBytes), { mode: 0o600 }).catch(() => {})
}

/** Rejects when the disk is full, and what was kept for it is used up. */
export async function writeEnd(paths: TaskFolder, end: TaskEndRecord): Promise<void> {
  const text = `${JSON.stringify(end, null, 2)}\n`
  try {
    await writePrivateFile(endFile(paths), text)
  } catch (error) {
    if (!isDiskFull(error) || !(await writeIntoRoom(paths, text))) throw error
    // In the place of what the end before has freed, if it can be had.
    await keepRoomForEnd(paths)
  }
}

/** In place, then under its name in one step. Blanks after it are no content. False: it does not fit, or there is none. */
async function writeIntoRoom(paths: TaskFolder, text: string): Promise<boolean> {
  const bytes = Buffer.alloc(roomBytes, ' ')
  if (bytes.write(text) < Buffer.byteLength(text)) return false
  try {
    const handle = await open(roomFile(paths), 'r+')
    try {
      if ((await handle.stat()).size !== roomBytes) return false
      await handle.write(bytes, 0, roomBytes, 0)
      await handle.sync()
    } finally {
      await handle.close()
    }
    await rename(roomFile(paths), endFile(paths))
    return true
  } catch {
    return false
  }
}

/** undefined when there is none; one that cannot be read is none either, and what it would tell is found out again. */
export async function readEnd(paths: TaskFolder): Promise<TaskEndRecord | undefined> {
  try {
    return taskEnd.parse(JSON.parse(await readFile(endFile(paths), 'utf8')))
  } catch {
    return undefined
  }
}

function roomFile({ folder }: TaskFolder): string {
  return join(folder, 'end.room')
}

function endFile({ folder }: TaskFolder): string {
  return join(folder, 'end.json')
}
