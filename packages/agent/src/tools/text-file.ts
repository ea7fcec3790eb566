import { open, stat } from 'node:fs/promises'
import { errorCode, fileFailure } from './file-failure.ts'

/** What may be edited, and read as a whole: far above every file that people write. */
export const maxTextFileBytes = 10 * 1024 * 1024
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

/** Never more than the limit, also when the file grows while it is read. Rejects, in words for the model, when it cannot be read. */
export async function readSmallFile(path: string, shownPath: string): Promise<Buffer | 'too_large'> {
  try {
    await using file = await open(path)
    const { size } = await file.stat()
    if (size > maxTextFileBytes) return 'too_large'
    const chunks: Buffer[] = []
    let length = 0
    for (;;) {
      const chunk = Buffer.allocUnsafe(Math.max(size - length, 0) + 1024)
      const { bytesRead } = await file.read(chunk)
      if (bytesRead === 0) return Buffer.concat(chunks)
      length += bytesRead
      if (length > maxTextFileBytes) return 'too_large'
      chunks.push(chunk.subarray(0, bytesRead))
    }
  } catch (error) {
    if (errorCode(error) === 'ENOENT') throw new Error(`${shownPath} does not exist.`)
    throw fileFailure(error, shownPath)
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
