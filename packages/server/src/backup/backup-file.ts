/**
 * The file of a backup: one line that everybody may read, then encrypted frames.
 *
 *   openoz-backup {"format":1,"made_at":…,"version":…,"schema":…,"salt":…,"key_check":…} <SHA-256 of the JSON>\n
 *   frame: 4 bytes (length of the encrypted part; the highest bit marks the last frame), the encrypted part, 16 bytes of tag
 *   frame …
 *
 * Frames are AES-256-GCM under a key derived from the master key and the file's own salt; the nonce is the frame's number. Each frame also vouches
 * for the line and for its own four bytes. So whatever is changed, left out, exchanged or cut off is noticed, at the latest at the end: reading a
 * file to its end is what proves it. Inside of the frames is a gzip stream (see `records.ts`).
 */
import { createCipheriv, createDecipheriv, createHash, randomBytes } from 'node:crypto'
import { type FileHandle, open } from 'node:fs/promises'
import { AppError } from '@openoz/protocol'
import { z } from 'zod'
import { deriveBackupKeys, type InstallationKey } from './installation-key.ts'

/** Of the file itself. The database's schema has a number of its own. */
const knownFormat = 1

const magic = 'openoz-backup '
const maxHeadBytes = 4096
/** Small enough to keep little in memory, large enough that 20 bytes more per frame are nothing. */
const frameBytes = 64 * 1024
const tagBytes = 16
const lastFrame = 0x8000_0000

const headSchema = z.object({
  format: z.number().int(),
  /** RFC 3339: when the snapshot was taken, by the database's clock. */
  made_at: z.string(),
  /** Of the program that wrote it. */
  version: z.string(),
  /** Number of the last migration. */
  schema: z.number().int(),
  /** Base64. */
  salt: z.string(),
  key_check: z.string(),
})

export type BackupHead = z.infer<typeof headSchema>

/** The line, and what turns plain bytes into frames. */
export function sealBackup(
  about: Pick<BackupHead, 'made_at' | 'version' | 'schema'>,
  masterKey: Buffer,
): { seal: (plain: AsyncIterable<Buffer>) => AsyncGenerator<Buffer> } {
  const salt = randomBytes(32)
  const { encryption, check } = deriveBackupKeys(masterKey, salt)
  const head: BackupHead = {
    format: knownFormat,
    ...about,
    salt: salt.toString('base64'),
    key_check: check.toString('base64'),
  }
  const text = JSON.stringify(head)
  const line = Buffer.from(`${magic}${text} ${sha256(text)}\n`)
  return {
    async *seal(plain) {
      yield line
      let number = 0
      let pending: Buffer = Buffer.alloc(0)
      for await (const bytes of plain) {
        pending = pending.length === 0 ? bytes : Buffer.concat([pending, bytes])
        // Something always stays for the last frame, which says that it is the last.
        for (; pending.length > frameBytes; pending = pending.subarray(frameBytes))
          yield sealFrame(pending.subarray(0, frameBytes), { key: encryption, number: number++, line, isLast: false })
      }
      yield sealFrame(pending, { key: encryption, number, line, isLast: true })
    },
  }
}

interface FrameContext {
  key: Buffer
  number: number
  line: Buffer
}

function sealFrame(plain: Buffer, { isLast, ...context }: FrameContext & { isLast: boolean }): Buffer {
  const start = Buffer.alloc(4)
  start.writeUInt32BE((plain.length | (isLast ? lastFrame : 0)) >>> 0)
  const cipher = createCipheriv('aes-256-gcm', context.key, nonceOf(context.number))
  cipher.setAAD(Buffer.concat([context.line, start]))
  return Buffer.concat([start, cipher.update(plain), cipher.final(), cipher.getAuthTag()])
}

function openFrame(sealed: Buffer, start: Buffer, context: FrameContext): Buffer | undefined {
  const decipher = createDecipheriv('aes-256-gcm', context.key, nonceOf(context.number), { authTagLength: tagBytes })
  decipher.setAAD(Buffer.concat([context.line, start]))
  decipher.setAuthTag(sealed.subarray(-tagBytes))
  try {
    return Buffer.concat([decipher.update(sealed.subarray(0, -tagBytes)), decipher.final()])
  } catch {
    return undefined
  }
}

function nonceOf(number: number): Buffer {
  const nonce = Buffer.alloc(12)
  nonce.writeBigUInt64BE(BigInt(number), 4)
  return nonce
}

export interface OpenedBackup extends AsyncDisposable {
  head: BackupHead
  bytes: number
  /** What was sealed, from the beginning, each time. Rejects with `backup_incomplete` at what is not as it was written. */
  plain(onRead?: (bytes: number) => void): AsyncGenerator<Buffer>
}

/**
 * Opens the file and judges its line. Rejects with `backup_unreadable`, `backup_incomplete` (also what is no backup), `backup_too_new` or
 * `backup_wrong_key`.
 */
export async function openBackup(file: string, key: InstallationKey): Promise<OpenedBackup> {
  const handle = await open(file, 'r').catch((error: NodeJS.ErrnoException) => {
    throw new AppError('backup_unreadable', { file, problem: error.message }, { cause: error })
  })
  try {
    const bytes = (await handle.stat()).size
    const { head, line } = await readHead(handle, file)
    const keys = deriveBackupKeys(key.masterKey, Buffer.from(head.salt, 'base64'))
    if (keys.check.toString('base64') !== head.key_check)
      throw new AppError('backup_wrong_key', { file, keyFile: key.file })
    return {
      head,
      bytes,
      plain: (onRead) => readFrames(handle, { file, key: keys.encryption, line, onRead: onRead ?? (() => {}) }),
      [Symbol.asyncDispose]: () => handle.close(),
    }
  } catch (error) {
    await handle.close()
    throw error
  }
}

async function readHead(handle: FileHandle, file: string): Promise<{ head: BackupHead; line: Buffer }> {
  const start = await readAt(handle, 0, maxHeadBytes)
  const end = start.indexOf('\n')
  const line = start.subarray(0, end + 1)
  const [, json = '', hash] = /^openoz-backup (\{.*\}) ([0-9a-f]{64})\n$/.exec(line.toString('latin1')) ?? []
  if (hash === undefined) {
    const isOurs = start.subarray(0, magic.length).toString('latin1') === magic
    throw incomplete(file, isOurs ? 'its first line is damaged' : 'it is no backup of openoz')
  }
  if (sha256(json) !== hash) throw incomplete(file, 'its first line was changed')
  const found = JSON.parse(json) as { format?: number; version?: string }
  if (found.format !== knownFormat)
    throw new AppError('backup_too_new', {
      file,
      version: found.version,
      what: `file format ${found.format}`,
      known: knownFormat,
    })
  const head = headSchema.safeParse(found)
  if (!head.success) throw incomplete(file, 'its first line is damaged')
  return { head: head.data, line }
}

async function* readFrames(
  handle: FileHandle,
  { file, key, line, onRead }: { file: string; key: Buffer; line: Buffer; onRead: (bytes: number) => void },
): AsyncGenerator<Buffer> {
  let position = line.length
  for (let number = 0; ; number++) {
    const start = await readAt(handle, position, 4)
    if (start.length < 4) throw incomplete(file, 'it ends early')
    const length = start.readUInt32BE()
    const isLast = length >= lastFrame
    const sealedBytes = (length % lastFrame) + tagBytes
    if (sealedBytes > frameBytes + tagBytes) throw changed(file, position)
    const sealed = await readAt(handle, position + 4, sealedBytes)
    if (sealed.length < sealedBytes) throw incomplete(file, 'it ends early')
    const plain = openFrame(sealed, start, { key, number, line })
    if (!plain) throw changed(file, position)
    position += 4 + sealedBytes
    onRead(position)
    yield plain
    if (!isLast) continue
    if ((await readAt(handle, position, 1)).length > 0) throw incomplete(file, 'something was added to its end')
    return
  }
}

/** Up to `length` bytes; fewer only at the end of the file. */
async function readAt(handle: FileHandle, position: number, length: number): Promise<Buffer> {
  const buffer = Buffer.alloc(length)
  let filled = 0
  while (filled < length) {
    const { bytesRead } = await handle.read(buffer, filled, length - filled, position + filled)
    if (bytesRead === 0) break
    filled += bytesRead
  }
  return buffer.subarray(0, filled)
}

function changed(file: string, position: number): AppError {
  return incomplete(file, `it was changed after it was written, at byte ${position} or soon after`)
}

export function incomplete(file: string, problem: string): AppError {
  return new AppError('backup_incomplete', { file, problem })
}

function sha256(text: string): string {
  return createHash('sha256').update(text).digest('hex')
}
