import { messageOf } from '@openoz/protocol'
import { z } from 'zod'
import { wholeCharacters } from '../live-output.ts'
import { pathText } from './edit.ts'
import { maxImageBytes, type ReadFile, readAnyFile } from './read-file.ts'
import type { Tool, ToolCall, ToolOutput } from './tool.ts'

const lineNumber = z.int().min(1).max(1_000_000_000)
const input = z.object({
  files: z
    .array(
      z.object({
        path: pathText.describe('Relative to the folder that commands start in, or absolute.'),
        lines: z
          .array(z.object({ start: lineNumber, end: lineNumber }))
          .max(20)
          .optional()
          .describe('Only these lines, from 1, both ends included. Default: the whole file. For a PDF: pages.'),
      }),
    )
    .min(1)
    .max(50),
})
type Input = z.infer<typeof input>

/** About 15,000 and 45,000 tokens. */
const maxFileCharacters = 60_000
const maxCallCharacters = 180_000
/** Providers take a hundred or fewer in a whole conversation. */
const maxImages = 10
const shownCharacters = 4_000

export const readFiles: Tool<Input> = {
  name: 'read_files',
  kind: 'read',
  describe: () =>
    `Reads files, several in one call. The content comes exactly as it is, without line numbers, so that parts of it can be copied into ` +
    `edit_files; \`lines\` says which lines they are. At most ${maxFileCharacters} characters per file and ${maxCallCharacters} per call: ` +
    `what is longer is cut, and can be read on with \`lines\`. Pictures (PNG, JPEG, GIF, WebP, up to ${maxImageBytes / 1024 / 1024} MB) are ` +
    `shown, a PDF as the text of its pages, a notebook as its cells (with \`lines\`: as the JSON that it is). Other binary files are refused.`,
  input,
  title: ({ files }) => {
    const paths = files.map(({ path }) => path)
    return `Read ${paths.slice(0, 3).join(', ')}${paths.length > 3 ? ` and ${paths.length - 3} more` : ''}`
  },
  locations: ({ files }) => files.map(({ path, lines }) => ({ path, line: lines?.[0]?.start })),
  run: read,
}

interface ShownFile {
  path: string
  content: string
  lines?: { start: number; end: number }
  total_lines?: number
  note?: string
}

async function read({ files }: Input, call: ToolCall): Promise<ToolOutput> {
  const read: ShownFile[] = []
  const failed: { path: string; error: string }[] = []
  const images: NonNullable<ToolOutput['images']> = []
  let room = maxCallCharacters
  for (const { path, lines } of files) {
    for (const range of lines && lines.length > 0 ? lines : [undefined]) {
      call.signal.throwIfAborted()
      try {
        if (room <= 0) throw new Error('not read: the answer would become too long. Read it in another call.')
        if (range && range.end < range.start) throw new Error(`lines: ${range.end} comes before ${range.start}.`)
        const maxCharacters = Math.min(room, maxFileCharacters)
        const file = await readAnyFile(path, range, { ...call, maxCharacters })
        if (file.image && images.length >= maxImages) throw new Error(`not shown: ${maxImages} pictures per call.`)
        if (file.image) images.push(file.image)
        const shown = toShown(path, file, call)
        room -= shown.content.length
        read.push(shown)
      } catch (error) {
        call.signal.throwIfAborted()
        failed.push({ path, error: messageOf(error) })
      }
    }
  }
  return {
    result: { files: read, failed_files: failed },
    images: images.length > 0 ? images : undefined,
    isError: read.length === 0,
    shown: { files: read.map(({ content: _shownAsText, ...about }) => about), failed_files: failed },
    content: [...read.map(asContent), ...failed.map(({ path, error }) => text(`${path}: ${error}`))],
  }
}

function toShown(path: string, { content, lines, totalLines, note }: ReadFile, { masker }: ToolCall): ShownFile {
  return { path, content: masker.mask(content), lines, total_lines: totalLines, note }
}

function asContent({ path, content, lines }: ShownFile) {
  const where = lines ? ` (lines ${lines.start} to ${lines.end})` : ''
  const isCut = content.length > shownCharacters
  return text(`${path}${where}\n${wholeCharacters(content, shownCharacters)}${isCut ? '\n[…]' : ''}`)
}

function text(said: string) {
  return { type: 'content' as const, content: { type: 'text' as const, text: said } }
}
