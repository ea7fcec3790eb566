import { closeSync, constants, fstatSync, openSync, readSync, unlinkSync, writeSync } from 'node:fs'

/**
 * Files in a folder that somebody else may have written to: a worker that is root opens what a task left. So no link is followed, nothing but a
 * plain file is opened (a pipe would wait for its other end), and new files are new.
 */

const { O_CREAT, O_EXCL, O_NOFOLLOW = 0, O_NONBLOCK = 0, O_RDONLY, O_WRONLY } = constants

/** Returns the descriptor. Throws Node's error, `ELOOP` for a link; and for what is no plain file, or has a second name unless `mayBeLinked`. */
export function openPlainFile(file: string, flags: number, { mayBeLinked = false } = {}): number {
  const descriptor = openSync(file, flags | O_NOFOLLOW | O_NONBLOCK)
  const stat = fstatSync(descriptor)
  if (stat.isFile() && (mayBeLinked || stat.nlink === 1)) return descriptor
  closeSync(descriptor)
  throw new Error(`${file} is no plain file of one name`)
}

/** undefined when there is none, when it is larger, or when it is not plain. */
export function readSmallFile(file: string, maxBytes: number, options?: { mayBeLinked: boolean }): string | undefined {
  let descriptor: number
  try {
    descriptor = openPlainFile(file, O_RDONLY, options)
  } catch {
    return undefined
  }
  try {
    const buffer = Buffer.alloc(maxBytes + 1)
    const length = readSync(descriptor, buffer, 0, buffer.length, 0)
    return length > maxBytes ? undefined : buffer.toString('utf8', 0, length)
  } finally {
    closeSync(descriptor)
  }
}

/** Makes the file (0600). Throws Node's error, `EEXIST` too; a file that could not be written whole is removed. */
export function writeNewFile(file: string, content: string): void {
  const descriptor = openSync(file, O_WRONLY | O_CREAT | O_EXCL | O_NOFOLLOW, 0o600)
  try {
    writeSync(descriptor, content)
  } catch (error) {
    unlinkSync(file)
    throw error
  } finally {
    closeSync(descriptor)
  }
}
