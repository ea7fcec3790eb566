import { randomBytes } from 'node:crypto'
import { link, mkdir, open, rename, unlink } from 'node:fs/promises'
import { dirname } from 'node:path'
import { AppError } from '@openoz/protocol'

/**
 * Writes a file that only its owner can read (0600), in one step: readers see the old content or the new, never a part, and it is on
 * disk when this resolves. The folder is made (0700) when it is missing. With `exclusive` an existing file is left alone and the call
 * rejects with Node's `EEXIST`.
 */
export async function writePrivateFile(
  file: string,
  content: string | Uint8Array,
  { exclusive = false }: { exclusive?: boolean } = {},
): Promise<void> {
  const folder = dirname(file)
  await mkdir(folder, { recursive: true, mode: 0o700 })
  const temporary = `${file}.${process.pid}.${randomBytes(6).toString('hex')}.tmp`
  const handle = await open(temporary, 'wx', 0o600)
  try {
    try {
      await handle.writeFile(content)
      await handle.sync()
    } finally {
      await handle.close()
    }
    // A link fails where a rename would replace.
    if (exclusive) await link(temporary, file)
    else await rename(temporary, file)
  } catch (error) {
    await unlink(temporary).catch(() => {})
    throw error
  }
  if (exclusive) await unlink(temporary)
  await syncFolder(folder)
}

/**
 * Reads a file that holds a secret. Rejects with `private_file_exposed` when group or others may read or write it, or when it belongs
 * to neither us nor root; and with Node's own error when it cannot be read. On Windows, where modes mean nothing, it just reads.
 */
export async function readPrivateFile(file: string): Promise<string> {
  const handle = await open(file, 'r')
  try {
    // Of the open file, not of the name: the name may mean another file a moment later.
    const { mode, uid } = await handle.stat()
    const ours = process.getuid?.()
    if (ours !== undefined && ((mode & 0o077) !== 0 || (uid !== ours && uid !== 0))) {
      throw new AppError('private_file_exposed', { file })
    }
    return await handle.readFile('utf8')
  } finally {
    await handle.close()
  }
}

/** A rename is durable once its folder is. Folders cannot be opened on Windows; there it is left to the system. */
async function syncFolder(folder: string): Promise<void> {
  const handle = await open(folder, 'r').catch(() => undefined)
  if (!handle) return
  try {
    await handle.sync().catch(() => {})
  } finally {
    await handle.close()
  }
}
