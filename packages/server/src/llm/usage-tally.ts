import type { ModelWire } from '@openoz/protocol'
import { field, numberIn } from './json-field.ts'

/** Tokens of one request, as providers bill them. */
export interface Usage {
  /** Those that no cache had a part in. */
  inputTokens: number
  /** With the reasoning. */
  outputTokens: number
  cacheReadTokens: number
  cacheWriteTokens: number
  /** Those of `outputTokens` that were spent on thinking, where the provider says so. */
  reasoningTokens: number
  /** At least one of the figures was not given by the provider. */
  estimated: boolean
}

export interface Tally {
  /** Reads what an event or document says about its cost. True for a chat chunk that says nothing else. */
  take(value: unknown): boolean
  /** Of an event: how much the model said in it. */
  textBytes(value: unknown): number
  /** `answerBytes` is what to estimate from. */
  usage(answerBytes: number): Usage
}

interface TallyOptions {
  wire: ModelWire
  format: 'events' | 'frames' | 'json' | 'opaque'
  requestBytes: number
}

/** The usual rule of thumb for English and code. */
const bytesPerToken = 4

/** What an event says; of what is left out it says nothing. */
interface Said {
  /** As the wire counts: with or without the cached ones, see `inputHoldsCached`. */
  input?: number | undefined
  cacheRead?: number | undefined
  cacheWrite?: number | undefined
  output?: number | undefined
  reasoning?: number | undefined
  /** Nothing more will be said about the answer. */
  isFinal: boolean
}

export function createTally({ wire, format, requestBytes }: TallyOptions): Tally {
  const { read, inputHoldsCached, text } = wireUsages[wire]
  const total: Said = { isFinal: false }
  return {
    take(value) {
      const said = read(value)
      if (!said) return false
      // Some say what was read at the start and what was written at the end; later figures replace earlier ones.
      for (const name of ['input', 'cacheRead', 'cacheWrite', 'output', 'reasoning'] as const)
        total[name] = said[name] ?? total[name]
      total.isFinal ||= said.isFinal
      const choices = field(value, 'choices')
      return wire === 'openai-chat' && format === 'events' && Array.isArray(choices) && choices.length === 0
    },
    textBytes: (value) => stringBytes(text(value)),
    usage(answerBytes) {
      const { input, output, cacheRead = 0, cacheWrite = 0, reasoning = 0, isFinal } = total
      const cached = inputHoldsCached ? cacheRead + cacheWrite : 0
      const estimatedOutput = Math.ceil(answerBytes / bytesPerToken)
      return {
        inputTokens: input === undefined ? Math.ceil(requestBytes / bytesPerToken) : Math.max(input - cached, 0),
        outputTokens: isFinal && output !== undefined ? output : Math.max(output ?? 0, estimatedOutput),
        cacheReadTokens: cacheRead,
        cacheWriteTokens: cacheWrite,
        reasoningTokens: reasoning,
        estimated: !(isFinal && input !== undefined && output !== undefined),
      }
    },
  }
}

interface WireUsage {
  /** In an event as well as in a whole answer. */
  read(value: unknown): Said | undefined
  inputHoldsCached: boolean
  /** What of an event the model has written. */
  text(value: unknown): unknown
}

const wireUsages: Record<ModelWire, WireUsage> = {
  'openai-chat': {
    inputHoldsCached: true,
    text: (value) => field(value, 'choices'),
    read: (value) => readOpenAi(field(value, 'usage')),
  },
  'openai-responses': {
    inputHoldsCached: true,
    text: (value) => field(value, 'delta'),
    read: (value) => readOpenAi(field(value, 'response', 'usage') ?? field(value, 'usage')),
  },
  'anthropic-messages': {
    inputHoldsCached: false,
    text: (value) => field(value, 'delta'),
    read(value) {
      const usage = field(value, 'message', 'usage') ?? field(value, 'usage')
      if (!isObject(usage)) return undefined
      return {
        input: numberIn(usage, 'input_tokens'),
        cacheRead: numberIn(usage, 'cache_read_input_tokens'),
        cacheWrite: numberIn(usage, 'cache_creation_input_tokens'),
        output: numberIn(usage, 'output_tokens'),
        reasoning: numberIn(usage, 'output_tokens_details', 'thinking_tokens'),
        isFinal: field(value, 'type') !== 'message_start',
      }
    },
  },
  'google-generate-content': {
    inputHoldsCached: true,
    text: (value) => field(value, 'candidates'),
    read: readGoogle,
  },
  'bedrock-converse': {
    inputHoldsCached: false,
    text: (value) => field(value, 'contentBlockDelta', 'delta'),
    read(value) {
      const usage = field(value, 'metadata', 'usage') ?? field(value, 'usage')
      if (!isObject(usage)) return undefined
      return {
        input: numberIn(usage, 'inputTokens'),
        cacheRead: numberIn(usage, 'cacheReadInputTokens'),
        cacheWrite: numberIn(usage, 'cacheWriteInputTokens'),
        output: numberIn(usage, 'outputTokens'),
        isFinal: true,
      }
    },
  },
}

function readOpenAi(usage: unknown): Said | undefined {
  if (!isObject(usage)) return undefined
  const of = (responses: string, chat: string, ...path: string[]) =>
    numberIn(usage, responses, ...path) ?? numberIn(usage, chat, ...path)
  return {
    input: of('input_tokens', 'prompt_tokens'),
    cacheRead: of('input_tokens_details', 'prompt_tokens_details', 'cached_tokens'),
    cacheWrite: of('input_tokens_details', 'prompt_tokens_details', 'cache_write_tokens'),
    output: of('output_tokens', 'completion_tokens'),
    reasoning: of('output_tokens_details', 'completion_tokens_details', 'reasoning_tokens'),
    isFinal: true,
  }
}

/** Usage comes with every chunk, and there is no mark at the end: the last chunk is the one with a reason to stop. */
function readGoogle(value: unknown): Said | undefined {
  const usage = field(value, 'usageMetadata')
  if (!isObject(usage)) return undefined
  const candidates = field(value, 'candidates')
  const isBlocked = field(value, 'promptFeedback', 'blockReason') !== undefined
  const isFinal =
    isBlocked || (Array.isArray(candidates) && candidates.some((item) => field(item, 'finishReason') !== undefined))
  const input = numberIn(usage, 'promptTokenCount')
  const spoken = numberIn(usage, 'candidatesTokenCount')
  const thought = numberIn(usage, 'thoughtsTokenCount')
  // Zeroes are left out on this wire.
  const output = spoken === undefined && thought === undefined && !isFinal ? undefined : (spoken ?? 0) + (thought ?? 0)
  return {
    input: input === undefined ? undefined : input + (numberIn(usage, 'toolUsePromptTokenCount') ?? 0),
    cacheRead: numberIn(usage, 'cachedContentTokenCount'),
    output,
    reasoning: thought,
    isFinal,
  }
}

function isObject(value: unknown): value is object {
  return typeof value === 'object' && value !== null
}

/** Strings in a delta that the model has not written. */
const notText = new Set([
  'id',
  'type',
  'role',
  'signature',
  'thoughtSignature',
  'finish_reason',
  'finishReason',
  'stop_reason',
  'stop_sequence',
  'logprobs',
])

function stringBytes(value: unknown): number {
  if (typeof value === 'string') return Buffer.byteLength(value)
  if (!isObject(value)) return 0
  let bytes = 0
  for (const [key, item] of Object.entries(value)) if (!notText.has(key)) bytes += stringBytes(item)
  return bytes
}
