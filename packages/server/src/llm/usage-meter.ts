/**
 * Counts the tokens of one answer while its bytes pass by.
 *
 * It is given every chunk and says what to pass on: the chunk itself, untouched and at once, in all cases but one (`dropUsageChunk`). Lines
 * or frames of the event stream are put together across chunks, and only one is ever held. Where the answer ends without saying what it cost (the
 * client left, the connection broke, the server does not count), the figures are estimates and say so.
 */

import type { ModelWire } from '@openoz/protocol'
import { createFrameReader } from './event-stream-frames.ts'
import { createTally, type Tally, type Usage } from './usage-tally.ts'

export interface UsageMeter {
  /** The bytes to pass on for this chunk; may be empty. */
  push(chunk: Buffer): Buffer
  /** What is held back at the end. */
  flush(): Buffer
  /** What the answer has cost as far as it has come. */
  usage(): Usage
}

export interface UsageMeterOptions {
  wire: ModelWire
  /** Server-sent events, Amazon's frames, or one JSON document. `opaque`: compressed, or none of them. */
  format: 'events' | 'frames' | 'json' | 'opaque'
  requestBytes: number
  /** Leave out the chunk of a chat stream that holds only the usage: the client has not asked for it. */
  dropUsageChunk: boolean
}

/** A line or document above this passes uncounted. Images come as base64 within one line. */
const maxHeldBytes = 32 * 1024 * 1024

export function createUsageMeter(options: UsageMeterOptions): UsageMeter {
  const tally = createTally(options)
  if (options.format === 'events') return createEventMeter(options, tally)
  if (options.format === 'frames') return createFrameMeter(tally)
  return createDocumentMeter(options, tally)
}

function createFrameMeter(tally: Tally): UsageMeter {
  let textBytes = 0
  const frames = createFrameReader(maxHeldBytes, (type, payload) => {
    const value = { [type]: parse(payload) }
    tally.take(value)
    textBytes += tally.textBytes(value)
  })
  return {
    push(chunk) {
      frames.push(chunk)
      return chunk
    },
    flush: () => empty,
    usage: () => tally.usage(textBytes),
  }
}

function createDocumentMeter({ format }: UsageMeterOptions, tally: Tally): UsageMeter {
  let held: Buffer[] = []
  let bytes = 0
  let isRead = format === 'opaque'
  return {
    push(chunk) {
      bytes += chunk.length
      if (!isRead && bytes <= maxHeldBytes) held.push(chunk)
      return chunk
    },
    flush() {
      if (!isRead && bytes <= maxHeldBytes) {
        const document = parse(Buffer.concat(held))
        // A stream of Google's that was not asked for as events is one list of what the events would have been.
        for (const value of Array.isArray(document) ? document : [document]) tally.take(value)
      }
      isRead = true
      held = []
      return empty
    },
    usage: () => tally.usage(bytes),
  }
}

function createEventMeter({ dropUsageChunk }: UsageMeterOptions, tally: Tally): UsageMeter {
  // The unfinished line, in the pieces in which it came; null while an oversized one is skipped.
  let line: Buffer[] | null = []
  let eventBytes = 0
  let data: Buffer[] = []
  // With dropUsageChunk: the raw lines of the unfinished event.
  let event: Buffer[] = []
  let textBytes = 0

  /** Takes one whole line; answers what may be passed on now that it has come, with dropUsageChunk. */
  function endLine(whole: Buffer): Buffer[] {
    const text = whole.at(-2) === 0x0d ? whole.subarray(0, -2) : whole.subarray(0, -1)
    if (text.length > 0) {
      if (eventBytes > maxHeldBytes) return [...event.splice(0), whole]
      if (text.subarray(0, 5).equals(dataPrefix)) data.push(text.subarray(5))
      if (dropUsageChunk) event.push(whole)
      return []
    }
    const value = data.length > 0 ? parse(data.length === 1 ? data[0] : Buffer.concat(data)) : undefined
    data = []
    eventBytes = 0
    const isUsage = tally.take(value)
    if (!isUsage) textBytes += tally.textBytes(value)
    const passed = [...event, whole]
    event = []
    return isUsage ? [] : passed
  }

  return {
    push(chunk) {
      const passed: Buffer[] = []
      let start = 0
      for (let end = chunk.indexOf(0x0a); end !== -1; end = chunk.indexOf(0x0a, start)) {
        const piece = chunk.subarray(start, end + 1)
        eventBytes += piece.length
        if (line === null) passed.push(piece)
        else passed.push(...endLine(line.length > 0 ? Buffer.concat([...line, piece]) : piece))
        line = []
        start = end + 1
      }
      const rest = chunk.subarray(start)
      eventBytes += rest.length
      if (line === null) passed.push(rest)
      else if (eventBytes > maxHeldBytes) {
        passed.push(...event, ...line, rest)
        event = []
        line = null
      } else if (rest.length > 0) line.push(rest)
      if (!dropUsageChunk) return chunk
      return passed.length === 1 && passed[0] ? passed[0] : Buffer.concat(passed)
    },
    flush() {
      const rest = dropUsageChunk && line ? Buffer.concat([...event, ...line]) : empty
      line = []
      event = []
      return rest
    },
    usage: () => tally.usage(textBytes),
  }
}

const empty = Buffer.alloc(0)
const dataPrefix = Buffer.from('data:')

function parse(bytes: Buffer | undefined): unknown {
  try {
    return JSON.parse(String(bytes))
  } catch {
    // `[DONE]`, or not what it should be: nothing to count in it.
    return undefined
  }
}
