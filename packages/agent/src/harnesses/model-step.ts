import { type AgentLimits, AppError } from '@openoz/protocol'
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
import type { Tool } from '../tools/tool.ts'
import type { RequestedCall } from '../tools/tool-call.ts'
import type { ReachableModel } from './language-model.ts'
import { CutStream, isStatusError } from './model-failure.ts'

export interface StepRequest {
  model: ReachableModel
  instructions: string
  messages: ModelMessage[]
  tools: readonly Tool[]
  limits: AgentLimits
  sink: EventSink
  signal: AbortSignal
}

export interface StepAnswer {
  messages: ModelMessage[]
  text: string
  calls: RequestedCall[]
  usage: LanguageModelUsage
  finish: FinishReason
}

/**
 * One question to the model, streamed to the sink while it answers. The tools are only described to it: calling them is the caller's. Rejects
 * with the signal's reason, with CutStream for an answer that is not whole, or with what the library says of a refused request.
 */
export async function askModelOnce(request: StepRequest): Promise<StepAnswer> {
  const { model, limits, signal } = request
  signal.throwIfAborted()
  const stop = new AbortController()
  const onAbort = () => stop.abort(signal.reason)
  signal.addEventListener('abort', onAbort, { once: true })
  const silent = new CutStream(`nothing came for ${limits.llm_idle_timeout_ms} ms`)
  const idle = setTimeout(() => stop.abort(silent), limits.llm_idle_timeout_ms)
  try {
    const result = streamText({
      model: model.model,
      providerOptions: model.providerOptions,
      ...withCachePoints(request),
      tools: describeTools(request.tools, limits),
      maxOutputTokens: limits.max_output_tokens,
      // Retries are decided in one place, `model-failure.ts`.
      maxRetries: 0,
      abortSignal: stop.signal,
      // The default prints the error, and with it the prompt. It is thrown below.
      onError: () => {},
    })
    const calls = await followStream(result.fullStream, request, () => idle.refresh())
    if (stop.signal.aborted) throw stop.signal.reason
    const [finish, text, usage, response] = await Promise.all([
      result.finishReason,
      result.text,
      result.usage,
      result.response,
    ])
    return { messages: assistantMessages(response.messages), text, calls, usage, finish }
  } catch (error) {
    if (stop.signal.aborted) throw stop.signal.reason
    throw error
  } finally {
    clearTimeout(idle)
    signal.removeEventListener('abort', onAbort)
  }
}

type StreamPart = ReturnType<typeof streamText>['fullStream'] extends AsyncIterable<infer Part> ? Part : never

async function followStream(
  stream: AsyncIterable<StreamPart>,
  { sink, signal }: StepRequest,
  onPart: () => void,
): Promise<RequestedCall[]> {
  const calls: RequestedCall[] = []
  const messageIds = new Map<string, string>()
  const messageId = (id: string) => {
    const known = messageIds.get(id) ?? uuid()
    messageIds.set(id, known)
    return known
  }
  let hasFinished = false
  for await (const part of stream) {
    onPart()
    switch (part.type) {
      case 'text-delta':
      case 'reasoning-delta': {
        if (part.text === '') break
        await sink.ready(signal)
        const content = { type: 'text' as const, text: part.text }
        const type = part.type === 'text-delta' ? 'agent_message_chunk' : 'agent_thought_chunk'
        sink.emit({ type, data: { messageId: messageId(`${type} ${part.id}`), content } })
        break
      }
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
  }
  if (!hasFinished && !signal.aborted) throw new CutStream('the answer was cut off')
  return calls
}

/** Whether the model itself came to an end. `other` without a reason is what the libraries begin with. */
function isWhole(reason: FinishReason, raw: string | undefined): boolean {
  return reason !== 'interrupted' && reason !== 'error' && (reason !== 'other' || raw !== undefined)
}

/** Errors with a status are judged by it, and ours by their code; everything else is a stream that could not be read to its end. */
function asStreamError(error: unknown): unknown {
  if (error instanceof AppError || isStatusError(error)) return error
  const said = error instanceof Error ? error.message : String(error)
  return new CutStream(`the answer broke off (${said.slice(0, 200)})`)
}

function withCachePoints({ model, instructions, messages }: StepRequest) {
  const { cachePoint } = model
  const last = messages.at(-1)
  if (!cachePoint || !last) return { instructions, messages }
  return {
    instructions: { role: 'system' as const, content: instructions, providerOptions: cachePoint },
    messages: [...messages.slice(0, -1), { ...last, providerOptions: cachePoint }],
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

function parametersOf(input: z.ZodType): object {
  const { $schema: _dialect, ...parameters } = z.toJSONSchema(input)
  return parameters
}

/** What the model said, without what the library adds for calls that it could not parse; their input must be an object on every wire. */
function assistantMessages(messages: readonly ModelMessage[]): ModelMessage[] {
  return messages
    .filter((message) => message.role === 'assistant')
    .map((message) => {
      if (typeof message.content === 'string') return message
      const content = message.content
        .filter((part) => part.type !== 'tool-result')
        .map((part) => (part.type === 'tool-call' && !isObject(part.input) ? { ...part, input: {} } : part))
      return { ...message, content }
    })
}

function isObject(value: unknown): boolean {
  return typeof value === 'object' && value !== null && !Array.isArray(value)
}
