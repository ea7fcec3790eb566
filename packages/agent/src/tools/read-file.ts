import { open, readdir, readFile, realpath, stat } from 'node:fs/promises'
import { basename, dirname, resolve } from 'node:path'
import { closeNames } from './close-names.ts'
import { errorCode, fileFailure } from './file-failure.ts'
import { type LineRange, linesOf, linesOfFile } from './file-lines.ts'
import { fingerprintOf } from './files-seen.ts'
import { imageKind } from './image-file.ts'
import { notebookText } from './notebook.ts'
import { maxPdfBytes, pdfText } from './pdf-text.ts'
import { decodeText, maxTextFileBytes, readSmallFile } from './text-file.ts'
import type { ToolCall } from './tool.ts'

/** What models' providers take. */
export const maxImageBytes = 5 * 1024 * 1024
const maxImageSide = 8_000
const shownNames = 50

export interface ReadFile {
  content: string
  lines?: LineRange
  totalLines?: number
  note?: string
  image?: { mediaType: string; data: Uint8Array }
}

type Options = ToolCall & { maxCharacters: number }

/**
 * A file as a model can take it in, by what is in it. Reading is not bound to the workspace: a command could do the same. Rejects, in words for the
 * model, with what is in its way.
 */
export async function readAnyFile(name: string, range: LineRange | undefined, options: Options): Promise<ReadFile> {
  const path = await existing(name, resolve(options.workspace.toolsFolder, name))
  // Of this process, not of the task: and some of them never end.
  if (/^\/(proc|sys)\//.test(path)) throw new Error(`${name} is a file of the kernel; read it by a command.`)
  try {
    const found = await stat(path)
    if (found.isDirectory()) throw new Error(await describeFolder(name, path))
    if (!found.isFile()) throw new Error(`${name} is no regular file.`)
    const bytes = await readSmallFile(path, name, options)
    if (bytes === 'too_large') return await readLargeFile({ name, path, size: found.size }, range, options)
    options.state.files.saw(path, fingerprintOf(bytes))
    return await readBytes(name, bytes, range, options)
  } catch (error) {
    throw fileFailure(error, name)
  }
}

async function readBytes(
  name: string,
  bytes: Buffer,
  range: LineRange | undefined,
  options: Options,
): Promise<ReadFile> {
  if (isPdf(bytes)) return readPdf(name, bytes, range, options)
  const image = readImage(name, bytes)
  if (image) return image
  const text = decodeText(bytes)?.text
  if (text === undefined) throw new Error(refusal(name, bytes))
  if (text === '') return { content: '', totalLines: 0, note: 'The file is empty.' }
  const cells = name.toLowerCase().endsWith('.ipynb') && !range ? notebookText(text) : undefined
  if (cells !== undefined) {
    const { content, note } = linesOf(cells, undefined, options.maxCharacters)
    const isCut = note === undefined ? '' : ' Cut here; ask for lines of the JSON to see the rest.'
    return { content, note: `Cells and their output. To edit, read the JSON by asking for lines.${isCut}` }
  }
  const read = named(name, () => linesOf(text, range, options.maxCharacters))
  return text.startsWith('version https://git-lfs.github.com/') ? { ...read, note: lfsNote } : read
}

const lfsNote = 'This is only the pointer to a file that Git LFS keeps. `git lfs pull` fetches it.'

/** Beyond what is read as a whole: a part of a text, or a PDF. */
async function readLargeFile(
  { name, path, size }: { name: string; path: string; size: number },
  range: LineRange | undefined,
  options: Options,
): Promise<ReadFile> {
  const head = await beginning(path)
  if (isPdf(head) && size <= maxPdfBytes) return readPdf(name, await readFile(path, options), range, options)
  if (head.includes(0)) throw new Error(refusal(name, head, size))
  if (!range) {
    throw new Error(
      `${name} has ${size} bytes; files above ${maxTextFileBytes} bytes are read by \`lines\` only. ` +
        `Search it with grep, or take a part of it by a command.`,
    )
  }
  try {
    return await linesOfFile(path, range, options)
  } catch (error) {
    options.signal.throwIfAborted()
    throw inFile(name, error)
  }
}

async function readPdf(
  name: string,
  bytes: Uint8Array,
  range: LineRange | undefined,
  options: Options,
): Promise<ReadFile> {
  try {
    const { content, pages, totalPages, note } = await pdfText(bytes, range, options)
    const about = `Pages ${pages.start} to ${pages.end} of ${totalPages}.`
    return { content, note: note === undefined ? about : `${about} ${note}` }
  } catch (error) {
    options.signal.throwIfAborted()
    throw inFile(name, error)
  }
}

function readImage(name: string, bytes: Buffer): ReadFile | undefined {
  const kind = imageKind(bytes)
  if (!kind) return undefined
  const { mediaType, size } = kind
  const advice = 'Make a smaller copy by a command and read that.'
  if (!size) throw new Error(`${name} begins like a picture (${mediaType}), but is broken.`)
  if (bytes.length > maxImageBytes)
    throw new Error(`${name}: ${bytes.length} bytes are too many for a picture. ${advice}`)
  const { width, height } = size
  if (Math.max(width, height) > maxImageSide)
    throw new Error(`${name}: ${width}×${height} pixels are too many. ${advice}`)
  return {
    content: `[picture: ${mediaType}, ${width}×${height} pixels, ${bytes.length} bytes]`,
    image: { mediaType, data: bytes },
  }
}

function isPdf(bytes: Buffer): boolean {
  return bytes.toString('latin1', 0, 5) === '%PDF-'
}

function refusal(name: string, bytes: Buffer, size = bytes.length): string {
  const start = bytes.readUIntBE(0, Math.min(bytes.length, 2))
  if (start === 0xfffe || start === 0xfeff) {
    return `${name} is text in UTF-16; \`iconv -f UTF-16 -t UTF-8\` shows it.`
  }
  const kind = bytes.includes(0) ? 'a binary file' : 'no text in UTF-8'
  return `${name} is ${kind} (${size} bytes) and was not read; look at it by a command, such as \`file\` or \`xxd\`.`
}

async function beginning(path: string): Promise<Buffer> {
  await using file = await open(path)
  const { buffer, bytesRead } = await file.read(Buffer.alloc(8192))
  return buffer.subarray(0, bytesRead)
}

function named<T>(name: string, read: () => T): T {
  try {
    return read()
  } catch (error) {
    throw inFile(name, error)
  }
}

function inFile(name: string, error: unknown): unknown {
  return error instanceof Error && errorCode(error) === undefined ? new Error(`${name} ${error.message}`) : error
}

async function existing(name: string, path: string): Promise<string> {
  try {
    return await realpath(path)
  } catch (error) {
    if (errorCode(error) !== 'ENOENT') throw fileFailure(error, name)
    throw new Error(await describeMissing(name, path))
  }
}

/** Looks for what was meant in the nearest folder that there is. */
async function describeMissing(name: string, path: string): Promise<string> {
  for (let at = path; dirname(at) !== at; at = dirname(at)) {
    const folder = dirname(at)
    const names = await readdir(folder).catch(() => undefined)
    if (!names) continue
    const close = closeNames(basename(at), names)
    const where = at === path ? '' : ` The folder ${at} is not there either.`
    const meant = close.length > 0 ? ` ${folder} has ${close.join(', ')}.` : ''
    return `${name} does not exist.${where}${meant}`
  }
  return `${name} does not exist.`
}

async function describeFolder(name: string, path: string): Promise<string> {
  const entries = await readdir(path, { withFileTypes: true })
  const names = entries.map((entry) => (entry.isDirectory() ? `${entry.name}/` : entry.name)).sort()
  const more = names.length > shownNames ? ` and ${names.length - shownNames} more` : ''
  const list = names.length === 0 ? 'It is empty.' : `It has ${names.slice(0, shownNames).join(', ')}${more}.`
  return `${name} is a folder. ${list} file_glob lists files below a folder.`
}
