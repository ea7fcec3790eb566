import type { FilePart, ModelMessage, TextPart, ToolResultPart } from 'ai'
import type { SeenFile } from '../tools/files-seen.ts'
import type { CallResult, RequestedCall } from '../tools/tool-call.ts'
import { wellFormed } from './well-formed.ts'

/** What the model remembers, and how far it came. Plain data that is replaced, never changed: this is what a checkpoint holds. */
export interface Conversation {
  /** The turn whose prompt was the last one to be asked. */
  turnId: string
  /** Finished steps of that turn. */
  turnSteps: number
  /** What the model wrote in that turn. */
  turnOutputTokens: number
  /** How long that turn was worked at, up to its last finished step. */
  turnMs: number
  /** What was said to that turn while it was at work, and is in `messages`. */
  takenMessageIds: string[]
  /** Finished steps of the conversation; numbers checkpoints. */
  step: number
  /** The turn has come to its end: nothing is left to do. */
  isAnswered: boolean
  /** That end was a question to a person. */
  question?: string
  /** What the provider counted at the last answer: tokens of everything up to so many messages. */
  reported?: { tokens: number; messages: number }
  /** Nested rule files whose text is in `messages`. */
  rulesShown: string[]
  /** In which state the model last knew the files of the workspace; while a session is open its tools know better. */
  filesSeen?: SeenFile[]
  /** Stands before `messages`, for those that were left out to save room. */
  compacted?: CompactedPart
  messages: ModelMessage[]
  /** An answer whose calls have not all ended. */
  unfinished?: UnfinishedStep
}

export interface CompactedPart {
  /** What people said, in order. */
  said: string[]
  summary: string
}

export interface UnfinishedStep {
  /** The model's answer, for `messages`. */
  answer: ModelMessage[]
  calls: RequestedCall[]
  /** Of calls that have ended, in any order. */
  results: CallResult[]
}

/** Begins every user message that is ours, so that nobody takes it for a person's. */
export const noteMark = 'Note from openoz:'

export function newConversation(): Conversation {
  return {
    turnId: '',
    turnSteps: 0,
    turnOutputTokens: 0,
    turnMs: 0,
    takenMessageIds: [],
    step: 0,
    isAnswered: true,
    rulesShown: [],
    messages: [],
  }
}

/** A new turn, with its first message. */
export function beginTurn(conversation: Conversation, turnId: string, text: string): Conversation {
  const { question: _answered, ...rest } = conversation
  const turn = { turnId, turnSteps: 0, turnOutputTokens: 0, turnMs: 0, takenMessageIds: [], isAnswered: false }
  return { ...rest, ...turn, messages: [...rest.messages, userMessage(text)] }
}

/** More for the model of the turn at work. A turn that had come to its end goes on. */
export function say(conversation: Conversation, texts: string[], takenIds: string[] = []): Conversation {
  const { question: _answered, ...rest } = conversation
  const messages = [...rest.messages, ...texts.map(userMessage)]
  return { ...rest, isAnswered: false, messages, takenMessageIds: [...rest.takenMessageIds, ...takenIds] }
}

export function userMessage(text: string): ModelMessage {
  // Some providers refuse a message that says nothing.
  return { role: 'user', content: text.trim() === '' ? '(a message without text)' : text.toWellFormed() }
}

/**
 * Ends a step: its answer and the results of its calls become part of the messages. Calls without a result are answered as stopped: providers
 * refuse a conversation in which a call has none, so without that a turn that was stopped among its tools could never be continued.
 */
export function finishStep(conversation: Conversation, { vision }: { vision: boolean }): Conversation {
  const { unfinished, ...rest } = conversation
  if (!unfinished) return conversation
  const { answer, calls, results } = unfinished
  const all = calls.map((call) => results.find(({ id }) => id === call.id) ?? stoppedCall(call))
  const questions = all.map((result) => result.question).filter((asked) => asked !== undefined)
  const question = questions.length > 0 ? questions.join('\n\n') : undefined
  return {
    ...rest,
    turnSteps: rest.turnSteps + 1,
    step: rest.step + 1,
    isAnswered: all.length === 0 || question !== undefined,
    ...(question === undefined ? {} : { question }),
    messages: [...rest.messages, ...answer, ...(all.length === 0 ? [] : resultMessages(all, vision))],
  }
}

/** Failures are results like others, with an `error` in them: wires differ too much in how they mark one. */
function resultMessages(results: readonly CallResult[], vision: boolean): ModelMessage[] {
  const content = results.map(({ id, tool, result, images = [] }): ToolResultPart => {
    const unseen = images.length > 0 && !vision ? { pictures: 'Left out: this model does not see pictures.' } : {}
    const value = JSON.stringify(wellFormed({ ...result, ...unseen }))
    return { type: 'tool-result', toolCallId: id, toolName: tool, output: { type: 'text', value } }
  })
  const pictures = vision ? results.flatMap(pictureParts) : []
  const shown: ModelMessage[] = pictures.length > 0 ? [{ role: 'user', content: pictures }] : []
  return [{ role: 'tool', content }, ...shown]
}

/** In a message of their own: not every wire takes pictures in a tool's result. */
function pictureParts({ tool, images = [] }: CallResult): (TextPart | FilePart)[] {
  if (images.length === 0) return []
  const files = images.map(({ mediaType, data }): FilePart => ({ type: 'file', mediaType, data }))
  return [{ type: 'text', text: `${noteMark} the pictures of the result of ${tool}:` }, ...files]
}

/** The result of a call that was stopped. */
export function stoppedCall({ id, tool }: RequestedCall): CallResult {
  const error = 'This call was stopped before it ended. What it had done until then is unknown.'
  return { id, tool, isError: true, result: { error } }
}

/** What the agent said last, in this turn. */
export function lastWords({ messages }: Conversation): string {
  const last = messages.findLast(({ role }) => role === 'assistant')?.content ?? ''
  return typeof last === 'string'
    ? last.trim()
    : last
        .map((part) => (typeof part === 'object' && part.type === 'text' ? part.text : ''))
        .join('')
        .trim()
}
