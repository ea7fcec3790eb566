import { randomBytes } from 'node:crypto'
import { chmod, mkdir, rename, rm, unlink, writeFile } from 'node:fs/promises'
import { basename, dirname, join } from 'node:path'
import type { PlannedFile } from './edit-plan.ts'
import { encodeText } from './text-file.ts'

/**
 * Writes all files or none: every new content is on the disk under another name before the first name is changed, so a full disk or a folder that
 * may not be written stops it while nothing has happened.
 */
export async function writeFiles(files: readonly PlannedFile[]): Promise<void> {
  const written: { temporary: string; path: string }[] = []
  const made: string[] = []
  try {
    for (const file of files) {
      if (file.after === undefined) continue
      const folder = await mkdir(dirname(file.path), { recursive: true })
      if (folder !== undefined) made.push(folder)
      const temporary = join(
        dirname(file.path),
        `.${basename(file.path).slice(0, 200)}.${randomBytes(6).toString('hex')}.tmp`,
      )
      written.push({ temporary, path: file.path })
      await writeFile(temporary, encodeText({ text: file.after, hasByteOrderMark: file.hasByteOrderMark }), {
        flag: 'wx',
      })
      if (file.mode !== undefined) await chmod(temporary, file.mode)
    }
  } catch (error) {
    for (const { temporary } of written) await rm(temporary, { force: true })
    for (const folder of made.reverse()) await rm(folder, { recursive: true, force: true })
    throw error
  }
  for (const { temporary, path } of written) await rename(temporary, path)
  for (const { path, before, after } of files) if (before !== undefined && after === undefined) await unlink(path)
}
