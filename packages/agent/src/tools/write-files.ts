import { randomBytes } from 'node:crypto'
import { chmod, chown, copyFile, link, lstat, mkdir, readlink, rename, rm, symlink, writeFile } from 'node:fs/promises'
import { basename, dirname, join } from 'node:path'
import { isDiskFull } from '../disk-full.ts'
import type { PlannedFile } from './edit-plan.ts'
import { fileFailure } from './file-failure.ts'
import { encodeText } from './text-file.ts'

/**
 * Changes all names or none: every new content is on the disk under another name before the first name is changed, so a full disk or a folder that
 * may not be written stops it while nothing has happened. A file that is moved stays the same file, with all that the system knows of it.
 */
export async function writeFiles(files: readonly PlannedFile[]): Promise<void> {
  const ready: { temporary: string; path: string }[] = []
  const made: string[] = []
  let current = ''
  try {
    for (const { path, change } of files) {
      if (change.kind === 'remove') continue
      current = path
      const folder = await mkdir(dirname(path), { recursive: true })
      if (folder !== undefined) made.push(folder)
      const name = `.${basename(path).slice(0, 60)}.${randomBytes(6).toString('hex')}.tmp`
      const temporary = join(dirname(path), name)
      ready.push({ temporary, path })
      if (change.kind === 'move') await linkOrCopy(change.from, temporary)
      else await writeText(temporary, change)
    }
  } catch (error) {
    for (const { temporary } of ready) await rm(temporary, { force: true })
    for (const folder of made.reverse()) await rm(folder, { recursive: true, force: true })
    throw isDiskFull(error) ? error : new Error(`${reasonOf(error, current)} Nothing was written.`, { cause: error })
  }
  for (const { temporary, path } of ready) {
    await rename(temporary, path)
    // Where both were names of the same file already, the system leaves both.
    await rm(temporary, { force: true })
  }
  for (const { path, change } of files) if (change.kind === 'remove') await rm(path)
}

async function writeText(path: string, change: PlannedFile['change'] & { kind: 'write' }): Promise<void> {
  const { attributes } = change
  await writeFile(path, encodeText(change), { flag: 'wx' })
  if (!attributes) return
  // Only root may give files away; for everybody else the file becomes their own, as with any editor.
  await chown(path, attributes.uid, attributes.gid).catch(() => {})
  await chmod(path, attributes.mode)
}

/** A second name for the same file; a copy where the file system has no such thing. */
async function linkOrCopy(from: string, to: string): Promise<void> {
  const found = await lstat(from)
  if (found.isSymbolicLink()) return symlink(await readlink(from), to)
  try {
    await link(from, to)
  } catch {
    await copyFile(from, to)
    await chmod(to, found.mode & 0o7777)
  }
}

function reasonOf(error: unknown, path: string): string {
  const failure = fileFailure(error, path)
  return failure instanceof Error ? failure.message : String(failure)
}
