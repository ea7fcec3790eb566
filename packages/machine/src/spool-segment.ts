import { closeSync, constants, fstatSync, ftruncateSync, openSync, readSync, unlinkSync, writeSync } from 'node:fs'
import { join } from 'node:path'
import { openPlainFile } from './plain-file.ts'

/**
 * One file of a spool: events `first`, `first + 1`, … as lines of JSON. What number a line has is known from its place, so that even a line
 * that cannot be read keeps its number.
 */
export interface Segment {
  readonly first: number
  readonly file: string
  readonly descriptor: number
  /** `starts[i]` is where line `first + i` begins; the last entry is the end of the file. */
  readonly starts: number[]
}

const newline = 0x0a
const name = /^events-(\d{12})\.jsonl$/
/** Far below the shortest event. Where lines begin is kept in memory, so a file of empty lines would take many times its size. */
const minLineBytes = 32
const scanBytes = 64 * 1024

export function segmentFirst(fileName: string): number | undefined {
  const [, first] = name.exec(fileName) ?? []
  return first === undefined ? undefined : Number(first)
}

export function segmentName(first: number): string {
  return `events-${String(first).padStart(12, '0')}.jsonl`
}

export function createSegment(folder: string, first: number): Segment {
  const file = join(folder, segmentName(first))
  return { first, file, descriptor: openSync(file, 'wx+', 0o600), starts: [0] }
}

/**
 * Opens a file of an earlier process. With `isLast`, what a kill left half written at its end is cut off: those events were never
 * reported as appended. Throws for what no spool has written: links, more than `maxBytes`, lines that cannot be events.
 */
export function openSegment(
  folder: string,
  fileName: string,
  { isLast, maxBytes }: { isLast: boolean; maxBytes: number },
): Segment {
  const file = join(folder, fileName)
  const descriptor = openPlainFile(file, constants.O_RDWR)
  try {
    const { size } = fstatSync(descriptor)
    if (size > maxBytes) throw new Error(`${file} has ${size} bytes; ${maxBytes} is the limit of a segment`)
    const segment = { first: segmentFirst(fileName) ?? 0, file, descriptor, starts: findStarts(descriptor, size) }
    if (lineCount(segment) > size / minLineBytes + 1) throw new Error(`${file} does not hold events`)
    if (isLast) {
      while (lineCount(segment) > 0 && !isJson(lastLine(segment))) segment.starts.pop()
      if (endOf(segment) < size) ftruncateSync(descriptor, endOf(segment))
    }
    return segment
  } catch (error) {
    closeSync(descriptor)
    throw error
  }
}

function findStarts(descriptor: number, size: number): number[] {
  const starts = [0]
  for (let at = 0; at < size; at += scanBytes) {
    const part = readBytes(descriptor, at, Math.min(at + scanBytes, size))
    for (let end = part.indexOf(newline); end >= 0; end = part.indexOf(newline, end + 1)) starts.push(at + end + 1)
  }
  return starts
}

export function lineCount(segment: Segment): number {
  return segment.starts.length - 1
}

/** Number of the last event, `first - 1` when there is none. */
export function lastOf(segment: Segment): number {
  return segment.first + lineCount(segment) - 1
}

export function endOf(segment: Segment): number {
  return segment.starts.at(-1) ?? 0
}

/** Bytes of the events after `n`. */
export function bytesAfter(segment: Segment, n: number): number {
  const index = Math.min(Math.max(n - segment.first + 1, 0), lineCount(segment))
  return endOf(segment) - (segment.starts[index] ?? 0)
}

/** All lines or none: when the disk is full the half-written part is taken back and Node's error thrown. */
export function appendLines(segment: Segment, lines: string[]): void {
  const end = endOf(segment)
  const bytes = Buffer.from(lines.map((line) => `${line}\n`).join(''))
  try {
    let written = 0
    while (written < bytes.length) {
      written += writeSync(segment.descriptor, bytes, written, bytes.length - written, end + written)
    }
  } catch (error) {
    ftruncateSync(segment.descriptor, end)
    throw error
  }
  let at = end
  for (const line of lines) {
    at += Buffer.byteLength(line) + 1
    segment.starts.push(at)
  }
}

/** Lines of the events from `n` on, up to `maxEvents` and `maxBytes`, but at least one. */
export function readLines(segment: Segment, n: number, limits: { maxEvents: number; maxBytes: number }): string[] {
  const from = Math.max(n - segment.first, 0)
  const start = segment.starts[from]
  if (start === undefined || from >= lineCount(segment)) return []
  let to = from + 1
  while (
    to < lineCount(segment) &&
    to - from < limits.maxEvents &&
    (segment.starts[to + 1] as number) - start <= limits.maxBytes
  ) {
    to++
  }
  const text = readBytes(segment.descriptor, start, segment.starts[to] as number).toString('utf8')
  return text.slice(0, -1).split('\n')
}

export function removeSegment(segment: Segment): void {
  closeSync(segment.descriptor)
  unlinkSync(segment.file)
}

function lastLine({ descriptor, starts }: Segment): Buffer {
  return readBytes(descriptor, starts.at(-2) ?? 0, starts.at(-1) ?? 0)
}

function isJson(bytes: Buffer): boolean {
  try {
    JSON.parse(bytes.toString('utf8'))
    return true
  } catch {
    return false
  }
}

function readBytes(descriptor: number, start: number, end: number): Buffer {
  const buffer = Buffer.allocUnsafe(end - start)
  let read = 0
  while (read < buffer.length) {
    const count = readSync(descriptor, buffer, read, buffer.length - read, start + read)
    if (count === 0) break
    read += count
  }
  return buffer.subarray(0, read)
}
