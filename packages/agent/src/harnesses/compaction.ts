import { AppError } from '@openoz/protocol'
import type { ModelMessage } from 'ai'
import { compactedSize, sumOf } from './context-size.ts'
import type { CompactedPart, Conversation } from './conversation.ts'
import { lighten } from './lighter-messages.ts'
import { ConversationTooLong } from './model-failure.ts'
import { callLines, saidByPeople, transcriptOf } from './transcript.ts'
import { wellFormed } from './well-formed.ts'

/**
 * Makes a conversation shorter. In order, until it fits:
 *
 * 1. Old outputs and arguments that are long lose their middle. Costs nothing, and is often enough.
 * 2. The older part gives way to a summary, which the model is asked for, and to what people said, word for word. The newer part stays as it is;
 *    a call and its result are never parted. Where no summary can be had a list of the calls stands in for it.
 * 3. Long outputs and arguments of the newer part lose their middle too.
 */
interface CompactionOptions {
  /** Tokens that the result may have, without instructions and tools. */
  budget: number
  /** The part of the budget that stays as it is, at most. */
  tailPart: number
  /** The characters of one long output that are kept in the older part. */
  keptCharacters: number
  /** Takes a transcript of about so many tokens at most. */
  summarize: (transcript: string) => Promise<string>
  transcriptTokens: number
}

export interface Compaction {
  conversation: Conversation
  how: 'lightened' | 'summarised' | 'cut'
}

/** What is lighter than this part of the budget will do for a while. */
const lightEnough = 0.6
/** An older part that is smaller than this would not make room: what is too long is the newest step itself. */
const worthSumming = 0.1

/** What people said stays word for word, up to this part of the budget, and up to so many characters. */
const saidPart = 0.3
const maxSaidCharacters = 80_000

/** Rejects with what `summarize` does, unless that says that the model cannot give a summary. */
export async function compact(conversation: Conversation, options: CompactionOptions): Promise<Compaction> {
  const { budget, tailPart, keptCharacters, summarize, transcriptTokens } = options
  const { messages, compacted } = conversation
  const cutAt = tailStart(messages, budget * tailPart)
  const lightened = [...lighten(messages.slice(0, cutAt), keptCharacters), ...messages.slice(cutAt)]
  if (compactedSize(compacted) + sumOf(lightened) <= budget * lightEnough) {
    return { conversation: withMessages(conversation, lightened, compacted), how: 'lightened' }
  }

  const older = messages.slice(0, cutAt)
  const newer = messages.slice(cutAt)
  if (sumOf(older) < budget * worthSumming) {
    const rest = budget - compactedSize(compacted)
    return { conversation: withMessages(conversation, fitted(messages, rest), compacted), how: 'lightened' }
  }
  const maxCharacters = Math.min(maxSaidCharacters, budget * 4 * saidPart)
  const said = saidByPeople(older, { before: compacted?.said, maxCharacters })
  let how: Compaction['how'] = 'summarised'
  const summary = await summarize(
    transcriptOf(older, { before: compacted, maxCharacters: transcriptTokens * 4 }),
  ).catch((error: unknown) => {
    if (!isNoSummary(error)) throw error
    how = 'cut'
    return [compacted?.summary, callLines(older)].filter((part) => part !== undefined).join('\n')
  })
  const part = wellFormed({ said, summary })
  return { conversation: withMessages(conversation, fitted(newer, budget - compactedSize(part)), part), how }
}

/** The model answered, and there was no summary in it. */
export class SummaryEmpty extends Error {
  constructor() {
    super('The summary is empty.')
  }
}

/**
 * Whether the model cannot give a summary of this. When it cannot be asked now (its key is wrong, its provider is away, the work is stopped), giving up
 * what is known would be for nothing: the next request would fail too.
 */
function isNoSummary(error: unknown): boolean {
  if (error instanceof SummaryEmpty || error instanceof ConversationTooLong) return true
  return (
    error instanceof AppError && (error.code === 'model_content_refused' || error.code === 'model_request_rejected')
  )
}

function withMessages(
  conversation: Conversation,
  messages: ModelMessage[],
  compacted: CompactedPart | undefined,
): Conversation {
  const { reported: _counted, compacted: _before, ...rest } = conversation
  // Rules that were shown in what is gone now are shown again when they matter again.
  return { ...rest, rulesShown: [], messages, ...(compacted ? { compacted } : {}) }
}

/**
 * Where the newest messages begin that stay: as many as fit, and at least the last step. Only before an answer, or before what a person said
 * (which after a tool's result belongs to that).
 */
function tailStart(messages: readonly ModelMessage[], maxTokens: number): number {
  const isBoundary = (index: number) => {
    const role = messages[index]?.role
    return role === 'assistant' || (role === 'user' && messages[index - 1]?.role !== 'tool')
  }
  const boundaries = messages.map((_, index) => index).filter((index) => index > 0 && isBoundary(index))
  const fits = boundaries.find((index) => sumOf(messages.slice(index)) <= maxTokens)
  return fits ?? boundaries.at(-1) ?? 0
}

/** As long as they are too long: less of each output. */
function fitted(messages: ModelMessage[], maxTokens: number): ModelMessage[] {
  let fitting = messages
  for (const keptCharacters of [40_000, 10_000, 2_000, 500]) {
    if (sumOf(fitting) <= maxTokens) break
    fitting = lighten(messages, keptCharacters)
  }
  return fitting
}
