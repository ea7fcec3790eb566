import { type AgentLimits, AppError, messageOf } from '@openoz/protocol'
import {
  type FinishReason,
  jsonSchema,
  type LanguageModelUsage,
  type ModelMessage,
  streamText,
  type ToolSet,
  tool,
} from 'ai'
import { v7 as uuid } from 'uuid'
import { z } from 'zod'
import type { EventSink } from '../event-sink.ts'
import { shortened } from '../live-output.ts'
import type { Tool } from '../tools/tool.ts'
import type { RequestedCall } from '../tools/tool-call.ts'
import type { ReachableModel } from './language-model.ts'
import { ConversationTooLong, CutStream, isStatusError } from './model-failure.ts'

// The library writes its warnings to the console, which is the agent's log.
globalThis.AI_SDK_LOG_WARNINGS = false

export interface StepRequest {
  model: ReachableModel
  instructions: string
  messages: ModelMessage[]
  tools: readonly Tool[]
  limits: AgentLimits
  maxOutputTokens: number
  sink: Pick<EventSink, 'emit' | 'ready'>
  signal: AbortSignal
  /** Filled while the answer comes, and emptied before. */
  said?: Said
}

/** What was said of an answer until now. */
export interface Said {
  /** Emptied when the answer fails. */
  text: string
  /** Under which viewers have it, words and thoughts. */
  messageIds: string[]
}

export function saidNothing(): Said {
  return { text: '', messageIds: [] }
}

/** Takes back what viewers were shown of an answer that is asked for again: they would have it twice. */
export function withdraw({ said, sink }: Pick<StepRequest, 'said' | 'sink'>): void {
  if (!said || said.messageIds.length === 0) return
  sink.emit({ type: 'answer_withdrawn', data: { message_ids: said.messageIds } })
  Object.assign(said, saidNothing())
}

export interface StepAnswer {
  messages: ModelMessage[]
  text: string
  calls: RequestedCall[]
  usage: LanguageModelUsage | undefined
  finish: FinishReason
}

/** What writes more than this is not held by its limit of tokens, and would never stop. Far above what any answer has. */
const maxAnswerCharacters = 4 * 1024 * 1024

/**
 * One question to the model, streamed to the sink while it answers. The tools are only described to it: calling them is the caller's. Rejects
 * with the signal's reason, with CutStream for an answer that is not whole, or with what the library says of a refused request.
 */
export async function askModelOnce(request: StepRequest): Promise<StepAnswer> {
  const { model, limits, signal, said = saidNothing() } = request
  signal.throwIfAborted()
  Object.assign(said, saidNothing())
  model.connection.brokenBy = undefined
  const stop = new AbortController()
  const onAbort = () => stop.abort(signal.reason)
  signal.addEventListener('abort', onAbort, { once: true })
  try {
    const result = streamText({
      model: model.model,
      providerOptions: model.providerOptions,
      ...withCachePoints(request),
      tools: describeTools(request.tools, limits),
      maxOutputTokens: request.maxOutputTokens,
      // Retries are decided in one place, `model-failure.ts`.
      maxRetries: 0,
      abortSignal: stop.signal,
      // The default prints the error, and with it the prompt. It is thrown below.
      onError: () => {},
    })
    const { calls, isEndless } = await followStream(result.fullStream, request)
    if (stop.signal.aborted) throw stop.signal.reason
    if (isEndless) {
      stop.abort(new Error('The answer does not end.'))
      return { messages: [], text: said.text, calls: [], usage: undefined, finish: 'length' }
    }
    const [finish, text, usage, response] = await Promise.all([
      result.finishReason,
      result.text,
      result.usage,
      result.response,
    ])
    if ((await result.rawFinishReason) === 'model_context_window_exceeded') throw new ConversationTooLong(undefined)
    return { messages: response.messages, text, calls, usage, finish }
  } catch (error) {
    // What was said until a person interrupted was said; the beginning of an answer that failed will be said again.
    if (signal.aborted) throw signal.reason
    said.text = ''
    const { brokenBy } = model.connection
    throw brokenBy instanceof CutStream ? brokenBy : error
  } finally {
    signal.removeEventListener('abort', onAbort)
  }
}

type StreamPart = ReturnType<typeof streamText>['fullStream'] extends AsyncIterable<infer Part> ? Part : never

async function followStream(
  stream: AsyncIterable<StreamPart>,
  { sink, signal, said = saidNothing() }: StepRequest,
): Promise<{ calls: RequestedCall[]; isEndless: boolean }> {
  const calls: RequestedCall[] = []
  const messageIds = new Map<string, string>()
  const messageId = (id: string) => {
    const known = messageIds.get(id)
    if (known !== undefined) return known
    const fresh = uuid()
    messageIds.set(id, fresh)
    said.messageIds.push(fresh)
    return fresh
  }
  let hasFinished = false
  let characters = 0
  for await (const part of readable(stream)) {
    switch (part.type) {
      case 'text-delta':
      case 'reasoning-delta': {
        if (part.text === '') break
        characters += part.text.length
        await sink.ready(signal)
        const content = { type: 'text' as const, text: part.text }
        const type = part.type === 'text-delta' ? 'agent_message_chunk' : 'agent_thought_chunk'
        if (part.type === 'text-delta') said.text += part.text
        sink.emit({ type, data: { messageId: messageId(`${type} ${part.id}`), content } })
        break
      }
      case 'tool-input-delta':
        characters += part.delta.length
        break
      case 'tool-call':
        calls.push({ id: part.toolCallId, tool: part.toolName, input: part.input })
        break
      case 'finish-step':
        hasFinished = isWhole(part.finishReason, part.rawFinishReason)
        break
      case 'error':
        throw asStreamError(part.error)
      default:
        break
    }
    if (characters > maxAnswerCharacters) return { calls: [], isEndless: true }
  }
  if (!hasFinished && !signal.aborted) throw new CutStream('the answer was cut off')
  return { calls, isEndless: false }
}

/** Whether the model itself came to an end. `other` without a reason is what the libraries begin with. */
function isWhole(reason: FinishReason, raw: string | undefined): boolean {
  return reason !== 'interrupted' && reason !== 'error' && (reason !== 'other' || raw !== undefined)
}

/** Some libraries say what went wrong in a part of the stream, some by breaking it. */
async function* readable(stream: AsyncIterable<StreamPart>): AsyncGenerator<StreamPart, void, undefined> {
  try {
    yield* stream
  } catch (error) {
    throw asStreamError(error)
  }
}

/** What a library says of a request that it could not make: asking again would not change it. */
const badRequests = new Set([
  'AI_InvalidArgumentError',
  'AI_InvalidPromptError',
  'AI_LoadAPIKeyError',
  'AI_MessageConversionError',
  'AI_UnsupportedFunctionalityError',
])

/** Errors with a status are judged by it, and ours by what they are; everything else is a stream that could not be read to its end. */
function asStreamError(error: unknown): unknown {
  if (error instanceof AppError || error instanceof CutStream || isStatusError(error)) return error
  if (error instanceof Error && badRequests.has(error.name)) return error
  const said = messageOf(error)
  return new CutStream(`the answer broke off (${shortened(said, 200)})`)
}

/**
 * The end of this request, and the end of the one before: a provider looks back only so many parts for what it has read already, and one answer
 * with many calls has more.
 */
function withCachePoints({ model, instructions, messages }: StepRequest) {
  const { cachePoint } = model
  if (!cachePoint) return { instructions, messages }
  const lastAnswer = messages.findLastIndex(({ role }) => role === 'assistant')
  const ends = new Set([messages.length - 1, lastAnswer - 1])
  return {
    instructions: { role: 'system' as const, content: instructions, providerOptions: cachePoint },
    messages: messages.map((message, index) =>
      ends.has(index) ? { ...message, providerOptions: cachePoint } : message,
    ),
  }
}

function describeTools(tools: readonly Tool[], limits: AgentLimits): ToolSet {
  return Object.fromEntries(
    tools.map(({ name, describe, input }) => [
      name,
      // Arguments are checked where the tool is called, so that what does not fit becomes a result which the model can act on.
      tool({ description: describe(limits), inputSchema: jsonSchema(parametersOf(input)) }),
    ]),
  )
}

/** A tool's parameters as JSON Schema. */
export function parametersOf(input: z.ZodType): object {
  const { $schema: _dialect, ...parameters } = z.toJSONSchema(input, { io: 'input' })
  return parameters
}
