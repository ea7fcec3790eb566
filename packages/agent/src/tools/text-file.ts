import { readFile, stat } from 'node:fs/promises'

/** A text file as the model sees it, and how to write it back as it was. */
export interface TextFile {
  /** Without byte order mark; line ends as in the file. */
  text: string
  hasByteOrderMark: boolean
  mode: number
}

const maxBytes = 10 * 1024 * 1024
const byteOrderMark = '\uFEFF'

/** undefined when there is no such file. Rejects, in words for the model, for folders, binary and huge files. */
export async function readTextFile(path: string, shownPath: string): Promise<TextFile | undefined> {
  const found = await stat(path).catch((error: NodeJS.ErrnoException) => {
    if (error.code === 'ENOENT') return undefined
    if (error.code === 'ENOTDIR') throw new Error(`${shownPath}: a part of this path is a file, not a folder.`)
    throw error
  })
  if (!found) return undefined
  if (found.isDirectory()) throw new Error(`${shownPath} is a folder.`)
  if (!found.isFile()) throw new Error(`${shownPath} is no regular file.`)
  if (found.size > maxBytes)
    throw new Error(`${shownPath} is too large to be edited (${found.size} bytes); use a command.`)
  const text = decode(await readFile(path))
  if (text === undefined) throw new Error(`${shownPath} is no text file (UTF-8); use a command.`)
  const hasByteOrderMark = text.startsWith(byteOrderMark)
  return { text: hasByteOrderMark ? text.slice(1) : text, hasByteOrderMark, mode: found.mode & 0o7777 }
}

export function encodeText({ text, hasByteOrderMark }: { text: string; hasByteOrderMark: boolean }): string {
  return hasByteOrderMark ? byteOrderMark + text : text
}

function decode(bytes: Uint8Array): string | undefined {
  if (bytes.includes(0)) return undefined
  try {
    return new TextDecoder('utf-8', { fatal: true, ignoreBOM: true }).decode(bytes)
  } catch {
    return undefined
  }
}
