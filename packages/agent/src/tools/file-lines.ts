import { createReadStream } from 'node:fs'
import { wholeCharacters } from '../live-output.ts'
import { decodeText } from './text-file.ts'

/** Both ends included, from 1. */
export interface LineRange {
  start: number
  end: number
}

export interface ReadLines {
  content: string
  lines: LineRange
  /** Absent: the file was not read to its end. */
  totalLines?: number
  /** Why this is not all that was asked for, and what to do. */
  note?: string
}

/** Lines of a text in memory, with their own line ends. Rejects a range that begins behind the end, in words for the model. */
export function linesOf(text: string, range: LineRange | undefined, maxCharacters: number): ReadLines {
  const starts = lineStarts(text)
  const totalLines = starts.length
  const { start, end } = range ?? { start: 1, end: totalLines }
  if (range && start > totalLines) throw new Error(`begins behind the end: the file has ${totalLines} lines.`)
  const from = starts[start - 1] ?? 0
  const to = starts[end] ?? text.length
  return { ...cut({ text: text.slice(from, to), start, maxCharacters }), totalLines }
}

function lineStarts(text: string): number[] {
  if (text === '') return []
  const starts = [0]
  for (let at = text.indexOf('\n'); at >= 0 && at + 1 < text.length; at = text.indexOf('\n', at + 1))
    starts.push(at + 1)
  return starts
}

/** Whole lines as far as they fit; of a single line that does not, its beginning. */
function cut({ text, start, maxCharacters }: { text: string; start: number; maxCharacters: number }): ReadLines {
  if (text.length <= maxCharacters) return { content: text, lines: { start, end: start + lineStarts(text).length - 1 } }
  const fitting = wholeCharacters(text, maxCharacters)
  const end = fitting.lastIndexOf('\n') + 1
  const content = end > 0 ? fitting.slice(0, end) : fitting
  const last = start + lineStarts(content).length - 1
  const note =
    end > 0
      ? `Cut after line ${last}. Ask for what follows with lines: [{"start": ${last + 1}, "end": …}].`
      : `Line ${last} is too long and was cut; use a command to see parts of it.`
  return { content, lines: { start, end: last }, note }
}

/**
 * The same of a file that is too large for the memory: read once from its beginning, as far as the range goes. Rejects, in words for the model, for
 * what is no text.
 */
export async function linesOfFile(
  path: string,
  { start, end }: LineRange,
  { maxCharacters, signal }: { maxCharacters: number; signal: AbortSignal },
): Promise<ReadLines> {
  const kept: Buffer[] = []
  // One character has up to four bytes; one more than fits shows that it was cut.
  let room = (maxCharacters + 1) * 4
  let line = 1
  let isLineOpen = false
  for await (const chunk of createReadStream(path, { signal, highWaterMark: 1024 * 1024 }) as AsyncIterable<Buffer>) {
    let from = line >= start ? 0 : -1
    let to = chunk.length
    isLineOpen = chunk.at(-1) !== 10
    for (let at = chunk.indexOf(10); at >= 0; at = chunk.indexOf(10, at + 1)) {
      line += 1
      if (line === start) from = at + 1
      if (line > end) {
        to = at + 1
        break
      }
    }
    if (from >= 0) {
      const part = chunk.subarray(from, Math.min(to, from + room))
      kept.push(part)
      room -= part.length
    }
    if (line > end || room <= 0) return wholeRange(kept, start, maxCharacters, room)
  }
  const read = wholeRange(kept, start, maxCharacters, room)
  if (kept.every(({ length }) => length === 0)) {
    throw new Error(`begins behind the end: the file has ${isLineOpen ? line : line - 1} lines.`)
  }
  return read
}

function wholeRange(kept: Buffer[], start: number, maxCharacters: number, room: number): ReadLines {
  const bytes = Buffer.concat(kept)
  // Where the room was used up the last character may be half.
  const whole = room > 0 ? bytes : bytes.subarray(0, lastCharacterStart(bytes))
  const text = decodeText(whole)?.text
  if (text === undefined) throw new Error('is no text (UTF-8) in these lines; use a command.')
  return cut({ text, start, maxCharacters })
}

function lastCharacterStart(bytes: Buffer): number {
  let at = bytes.length - 1
  while (at > 0 && ((bytes[at] ?? 0) & 0xc0) === 0x80) at--
  return Math.max(at, 0)
}
