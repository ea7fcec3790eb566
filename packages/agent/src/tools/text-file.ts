import { constants } from 'node:fs'
import { open, stat } from 'node:fs/promises'
import { firstEnd } from '../child-end.ts'
import { errorCode, fileFailure } from './file-failure.ts'

/** What may be edited, and read as a whole: far above every file that people write. */
export const maxTextFileBytes = 10 * 1024 * 1024
/** The slowest network drive is faster; what takes longer waits for something. */
const maxReadMs = 30_000
const byteOrderMark = '\uFEFF'

/** A text file as the model sees it, and how to write it back as it was. */
export interface TextContent {
  /** Without byte order mark; line ends as in the file. */
  text: string
  hasByteOrderMark: boolean
}

/** Rejects, in words for the model, for what is no text file, or too large to be edited. */
export async function readTextFile(path: string, shownPath: string): Promise<TextContent> {
  const bytes = await readSmallFile(path, shownPath)
  if (bytes === 'too_large') {
    const { size } = await stat(path)
    throw new Error(`${shownPath} is too large to be edited (${size} bytes); use a command.`)
  }
  const content = decodeText(bytes)
  if (!content) throw new Error(`${shownPath} is no text file (UTF-8); use a command.`)
  return content
}

/**
 * Never more than the limit, also when the file grows while it is read, and never for ever: some files only look regular. Rejects, in words for the
 * model, when it cannot be read, or with the signal's reason.
 */
export async function readSmallFile(
  path: string,
  shownPath: string,
  { signal }: { signal?: AbortSignal } = {},
): Promise<Buffer | 'too_large'> {
  signal?.throwIfAborted()
  const reading = readWhole(path, shownPath)
  // A call of the system cannot be taken back: one that nobody waits for any more ends when it ends.
  reading.catch(() => {})
  try {
    const read = await firstEnd(reading, { timeoutMs: maxReadMs, signal })
    signal?.throwIfAborted()
    if (read !== 'stopped' && read !== 'timed_out') return read
    throw new Error(`${shownPath} could not be read within ${maxReadMs / 1_000} s; look at it by a command.`)
  } catch (error) {
    if (errorCode(error) === 'ENOENT') throw new Error(`${shownPath} does not exist.`)
    throw fileFailure(error, shownPath)
  }
}

async function readWhole(path: string, shownPath: string): Promise<Buffer | 'too_large'> {
  // Otherwise to open a pipe would be to wait for somebody who writes.
  await using file = await open(path, constants.O_RDONLY | constants.O_NONBLOCK)
  const found = await file.stat()
  if (found.isDirectory()) throw new Error(`${shownPath} is a folder.`)
  if (!found.isFile()) throw new Error(`${shownPath} is no regular file.`)
  if (found.size > maxTextFileBytes) return 'too_large'
  const chunks: Buffer[] = []
  let length = 0
  for (;;) {
    const chunk = Buffer.allocUnsafe(Math.max(found.size - length, 0) + 1024)
    const { bytesRead } = await file.read(chunk)
    if (bytesRead === 0) return Buffer.concat(chunks)
    length += bytesRead
    if (length > maxTextFileBytes) return 'too_large'
    chunks.push(chunk.subarray(0, bytesRead))
  }
}

/** undefined: no text in UTF-8. */
export function decodeText(bytes: Uint8Array): TextContent | undefined {
  if (bytes.includes(0)) return undefined
  try {
    const text = new TextDecoder('utf-8', { fatal: true, ignoreBOM: true }).decode(bytes)
    const hasByteOrderMark = text.startsWith(byteOrderMark)
    return { text: hasByteOrderMark ? text.slice(1) : text, hasByteOrderMark }
  } catch {
    return undefined
  }
}

export function encodeText({ text, hasByteOrderMark }: TextContent): string {
  return hasByteOrderMark ? byteOrderMark + text : text
}
