import { execFileSync } from 'node:child_process'
import { chmodSync, existsSync, mkdirSync, mkdtempSync, rmSync } from 'node:fs'
import { join } from 'node:path'
import { freeBytes } from '../data-dir.ts'

export interface ScratchFolder extends Disposable {
  path: string
}

/** A folder that goes away with the test. Short and open to pass through, as a data folder's parent has to be for root. */
export function scratchFolder(): ScratchFolder {
  const path = mkdtempSync('/tmp/oz-pg-')
  chmodSync(path, 0o711)
  return { path, [Symbol.dispose]: () => rmSync(path, { recursive: true, force: true }) }
}

/** A file system of its own in memory. Throws where mounting is not allowed: see `canMount`. */
export function tinyDisk(megabytes: number): ScratchFolder & { remount(option: 'ro' | 'rw'): void } {
  const folder = scratchFolder()
  execFileSync('mount', ['-t', 'tmpfs', '-o', `size=${megabytes}m,mode=0711`, 'openoz-test', folder.path])
  return {
    path: folder.path,
    remount: (option) => void execFileSync('mount', ['-o', `remount,${option}`, folder.path]),
    [Symbol.dispose]() {
      execFileSync('umount', ['--lazy', folder.path])
      folder[Symbol.dispose]()
    },
  }
}

export const isRoot = process.getuid?.() === 0

/** Only root on Linux may mount; in some containers not even root. */
export const canMount = isRoot && process.platform === 'linux' && tryMount()

/** Fills a disk except for `bytes`. */
export function fillDisk(folder: string, bytes: number): void {
  const size = (freeBytes(folder) ?? 0) - bytes
  execFileSync(
    'dd',
    ['if=/dev/zero', `of=${join(folder, 'ballast')}`, 'bs=4096', `count=${Math.max(0, Math.floor(size / 4096))}`],
    { stdio: 'ignore' },
  )
}

function tryMount(): boolean {
  const probe = mkdtempSync('/tmp/oz-mount-')
  mkdirSync(probe, { recursive: true })
  try {
    execFileSync('mount', ['-t', 'tmpfs', 'openoz-test', probe], { stdio: 'ignore' })
    execFileSync('umount', [probe])
    return true
  } catch {
    return false
  } finally {
    if (existsSync(probe)) rmSync(probe, { recursive: true, force: true })
  }
}
