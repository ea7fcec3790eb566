import { closeSync, constants, renameSync, rmSync, writeSync } from 'node:fs'
import { join } from 'node:path'
import { isDiskFull } from './disk-full.ts'
import { openPlainFile, readSmallFile, writeNewFile } from './plain-file.ts'

/** The file `acked` of a spool: one decimal number. Written in one step, and also on a full disk. */
export const ackedTemporary = '.acked.tmp'

export function readAcked(folder: string): number {
  const n = Number(readSmallFile(join(folder, 'acked'), 64)?.trim())
  return Number.isSafeInteger(n) && n > 0 ? n : 0
}

/** False when the disk is full: an acknowledgement must still free space then. At worst events are sent twice, which the other side knows. */
export function writeAcked(folder: string, n: number): boolean {
  const temporary = join(folder, ackedTemporary)
  try {
    // Left by a kill, or put there by somebody.
    rmSync(temporary, { recursive: true, force: true })
    writeNewFile(temporary, `${n}\n`)
    renameSync(temporary, join(folder, 'acked'))
    return true
  } catch (error) {
    if (isDiskFull(error)) return overwriteAcked(folder, n)
    throw error
  }
}

/** On a full disk, into the block that it has: one short write, which no kill can cut in two. */
function overwriteAcked(folder: string, n: number): boolean {
  let descriptor: number | undefined
  try {
    descriptor = openPlainFile(join(folder, 'acked'), constants.O_RDWR)
    const line = `${String(n).padEnd(20)}\n`
    return writeSync(descriptor, line, 0) === line.length
  } catch {
    return false
  } finally {
    if (descriptor !== undefined) closeSync(descriptor)
  }
}
