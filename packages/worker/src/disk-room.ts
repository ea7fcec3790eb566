import { statfsSync } from 'node:fs'
import { describeError } from '@openoz/protocol'
import type { Logger } from 'pino'

/**
 * Room on the disk of the state folder. A task writes there what must not be lost (its events, its end), so none is begun without some, and one that
 * ended badly when there was none has ended for that.
 */

/** Twice what an agent's spool grows to by default is far more; this is what a start, a few commands and an end take. */
const minFreeBytes = 64 * 1024 * 1024
/** A task has about 30 files here, beside those of its HOME. */
const minFreeFiles = 256
/** Below this nothing of use can be written: some file systems never give away their last blocks. */
const fullBytes = 64 * 1024
const fullFiles = 4
/** Of small disks no more than this part is asked for. */
const part = 10

interface Room {
  bytes: number
  files: number
  totalBytes: number
  totalFiles: number
}

/** Why no task can begin here, in words for people; undefined when one can, or when nobody can say. */
export function lackOfRoom(folder: string): string | undefined {
  const room = roomOf(folder)
  if (!room) return undefined
  const { bytes, files, totalBytes, totalFiles } = room
  const hasBytes = bytes >= Math.min(minFreeBytes, totalBytes / part)
  // Some file systems make inodes as they go, and say 0 of 0.
  const hasFiles = totalFiles === 0 || files >= Math.min(minFreeFiles, totalFiles / part)
  if (hasBytes && hasFiles) return undefined
  return describeError('disk_full', { what: 'a new task', folder, free: hasBytes ? inodes(files) : size(bytes) })
}

/** What `look` says; the log hears of each change, once. */
export function watchRoom(look: () => string | undefined, log: Logger): () => string | undefined {
  let isLacking = false
  return () => {
    const problem = look()
    if (problem !== undefined && !isLacking) log.error({ problem }, 'No new tasks are taken for now')
    if (problem === undefined && isLacking) log.info('Tasks are taken again')
    isLacking = problem !== undefined
    return problem
  }
}

/** That the disk is full, in words for people; undefined when it is not, or when nobody can say. */
export function fullDisk(folder: string): string | undefined {
  const room = roomOf(folder)
  if (!room) return undefined
  const isOutOfFiles = room.totalFiles > 0 && room.files < fullFiles
  if (room.bytes >= fullBytes && !isOutOfFiles) return undefined
  return noRoom(folder)
}

/** That something could not be written for want of room, whatever there is by now. */
export function noRoom(folder: string): string {
  const room = roomOf(folder)
  const hasBytes = room !== undefined && room.bytes >= fullBytes && room.totalFiles > 0 && room.files < fullFiles
  const free = room === undefined ? 'an unknown amount is' : hasBytes ? inodes(room.files) : size(room.bytes)
  return describeError('disk_full', { what: 'the run', folder, free })
}

function roomOf(folder: string): Room | undefined {
  try {
    const { bavail, bsize, blocks, ffree, files } = statfsSync(folder)
    return { bytes: bavail * bsize, files: ffree, totalBytes: blocks * bsize, totalFiles: files }
  } catch {
    return undefined
  }
}

function size(bytes: number): string {
  return bytes < 1024 * 1024 ? `${Math.floor(bytes / 1024)} KiB` : `${Math.floor(bytes / 1024 / 1024)} MiB`
}

function inodes(files: number): string {
  return `${files} inodes`
}
