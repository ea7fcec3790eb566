/**
 * Counts the tokens of one answer while its bytes pass by.
 *
 * It is given every chunk and says what to pass on: the chunk itself, untouched and at once, in all cases but one (`dropUsageChunk`). Lines
 * of the event stream are put together across chunks, and only a line is ever held. Where the answer ends without saying what it cost (the
 * client left, the connection broke, the server does not count), the figures are estimates and say so.
 */

import { field, numberIn } from './json-field.ts'
import type { ModelWire } from './providers.ts'

export interface Usage {
  /** Everything that was read, cached or not. */
  inputTokens: number
  outputTokens: number
  /** Those of `inputTokens` that came from a cache, at its price. */
  cachedInputTokens: number
  /** At least one of the figures was not given by the provider. */
  estimated: boolean
}

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
  /** An event stream or one JSON document. `opaque`: compressed, or neither. */
  format: 'events' | 'json' | 'opaque'
  requestBytes: number
  /** Leave out the chunk of a chat stream that holds only the usage: the client has not asked for it. */
  dropUsageChunk: boolean
}

/** The usual rule of thumb for English and code. */
const bytesPerToken = 4
/** A line or document above this passes uncounted. Images come as base64 within one line. */
const maxHeldBytes = 32 * 1024 * 1024

export function createUsageMeter(options: UsageMeterOptions): UsageMeter {
  const tally = createTally(options)
  if (options.format === 'events') return createEventMeter(options, tally)
  return createDocumentMeter(options, tally)
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
      if (!isRead && bytes <= maxHeldBytes) tally.take(parse(Buffer.concat(held)))
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

interface Tally {
  /** Reads what an event or document says about its cost. True for a chat chunk that says nothing else. */
  take(value: unknown): boolean
  /** Of an event: how much the model said in it. */
  textBytes(value: unknown): number
  /** `answerBytes` is what to estimate from. */
  usage(answerBytes: number): Usage
}

function createTally({ wire, format, requestBytes }: UsageMeterOptions): Tally {
  let input: number | undefined
  let cached: number | undefined
  let cacheWrites: number | undefined
  let output: number | undefined
  let isFinal = false
  return {
    take(value) {
      const said = usageOf[wire](value)
      if (typeof said !== 'object' || said === null) return false
      // Anthropic says what was read at the start and what was written at the end; later figures replace earlier ones.
      input = numberIn(said, 'input_tokens') ?? numberIn(said, 'prompt_tokens') ?? input
      output = numberIn(said, 'output_tokens') ?? numberIn(said, 'completion_tokens') ?? output
      cached = cachedIn(said) ?? cached
      cacheWrites = numberIn(said, 'cache_creation_input_tokens') ?? cacheWrites
      isFinal ||= field(value, 'type') !== 'message_start'
      const choices = field(value, 'choices')
      return wire === 'openai-chat' && format === 'events' && Array.isArray(choices) && choices.length === 0
    },
    textBytes: (value) => textBytesOf[wire](value),
    usage(answerBytes) {
      const uncached = wire === 'anthropic-messages' ? (cached ?? 0) + (cacheWrites ?? 0) : 0
      const isComplete = isFinal && input !== undefined && output !== undefined
      const estimatedOutput = Math.ceil(answerBytes / bytesPerToken)
      return {
        // Anthropic's input_tokens leave out what the cache took part in; the others' include it.
        inputTokens: input === undefined ? Math.ceil(requestBytes / bytesPerToken) : input + uncached,
        outputTokens: isFinal && output !== undefined ? output : Math.max(output ?? 0, estimatedOutput),
        cachedInputTokens: cached ?? 0,
        estimated: !isComplete,
      }
    },
  }
}

function cachedIn(usage: object): number | undefined {
  return (
    numberIn(usage, 'cache_read_input_tokens') ??
    numberIn(usage, 'input_tokens_details', 'cached_tokens') ??
    numberIn(usage, 'prompt_tokens_details', 'cached_tokens')
  )
}

/** Where the usage lies, in an event as well as in a whole answer. */
const usageOf: Record<ModelWire, (value: unknown) => unknown> = {
  'openai-chat': (value) => field(value, 'usage'),
  'openai-responses': (value) => field(value, 'response', 'usage') ?? field(value, 'usage'),
  'anthropic-messages': (value) => field(value, 'message', 'usage') ?? field(value, 'usage'),
}

const textBytesOf: Record<ModelWire, (value: unknown) => number> = {
  'openai-chat': (value) => stringBytes(field(value, 'choices')),
  'openai-responses': (value) => stringBytes(field(value, 'delta')),
  'anthropic-messages': (value) => stringBytes(field(value, 'delta')),
}

/** Strings in a delta that the model has not written. */
const notText = new Set([
  'id',
  'type',
  'role',
  'signature',
  'finish_reason',
  'stop_reason',
  'stop_sequence',
  'logprobs',
])

function stringBytes(value: unknown): number {
  if (typeof value === 'string') return Buffer.byteLength(value)
  if (typeof value !== 'object' || value === null) return 0
  let bytes = 0
  for (const [key, item] of Object.entries(value)) if (!notText.has(key)) bytes += stringBytes(item)
  return bytes
}
