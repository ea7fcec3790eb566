import type { AgentLimits, ModelAccess } from '@openoz/protocol'
import type { ModelMessage } from 'ai'
import type { CompactedPart, Conversation } from './conversation.ts'

/** Of models that do not say: what the smaller ones of today have. */
const defaultWindow = 128_000
/** A rough mean over prose, code and JSON of the common tokenizers. */
const bytesPerToken = 4
/** What providers count for one picture of the size that tools give. */
const tokensPerPicture = 1_600
/** Left free beside the room for the answer: the estimate is one. */
const marginPart = 0.03
/** Of the estimate, what a count must at least be: no text has so few tokens for its bytes. */
const believedPart = 0.5

/** Room for one answer: as the server's limit says, but no larger a part of a small window than a quarter. */
export function answerRoom({ context_window: window }: ModelAccess, limits: AgentLimits): number {
  return window === undefined ? limits.max_output_tokens : Math.min(limits.max_output_tokens, Math.floor(window / 4))
}

/** Tokens that a conversation may have before its next request. */
export function contextBudget(access: ModelAccess, limits: AgentLimits): number {
  const window = access.context_window ?? defaultWindow
  const room = Math.min(answerRoom(access, limits), Math.floor(window / 4))
  return Math.floor(window * (1 - marginPart)) - room
}

/**
 * What the next request will have, in tokens. The provider's own count is the better one, for the part that it has counted; some leave out what
 * their cache held, so one that is far below the estimate is not believed. `fixedBytes`: instructions and tools.
 */
export function contextSize(conversation: Conversation, fixedBytes: number): number {
  const { messages, reported, compacted } = conversation
  const estimate = fixedBytes / bytesPerToken + compactedSize(compacted) + sumOf(messages)
  const counted = reported ? reported.tokens + sumOf(messages.slice(reported.messages)) : 0
  return Math.ceil(counted < estimate * believedPart ? estimate : counted)
}

export function sumOf(messages: readonly ModelMessage[]): number {
  return messages.reduce((sum, message) => sum + sizeOf(message), 0)
}

export function compactedSize(compacted: CompactedPart | undefined): number {
  return compacted ? Buffer.byteLength(JSON.stringify(compacted)) / bytesPerToken : 0
}

/** Messages are never changed: each is measured once. */
const sizes = new WeakMap<ModelMessage, number>()

export function sizeOf(message: ModelMessage): number {
  const known = sizes.get(message)
  if (known !== undefined) return known
  let pictures = 0
  const text = JSON.stringify(message.content, (_, value: unknown) => {
    if (typeof value !== 'object' || value === null || !('type' in value) || value.type !== 'file') return value
    pictures++
    return undefined
  })
  const size = Buffer.byteLength(text) / bytesPerToken + pictures * tokensPerPicture
  sizes.set(message, size)
  return size
}
