import { messageOf } from '@openoz/protocol'
import type { Tool, ToolContext, ToolOutput } from './tool.ts'

/** As the model asked for it. */
export interface RequestedCall {
  id: string
  tool: string
  input: unknown
}

/** What goes back to the model. Plain data: checkpoints hold it. */
export interface CallResult {
  id: string
  tool: string
  result: Record<string, unknown>
  /** The tool says no, or could not be run. */
  isError?: boolean
  /** In base64. */
  images?: { mediaType: string; data: string }[]
  /** The turn ends here, with this question to a person. */
  question?: string
}

/** Arguments that viewers are shown; the model's own copy stays whole. */
const shownInputCharacters = 16_000
/** A refusal that repeats what it refuses would be as long. */
const refusalCharacters = 1_500
/** The longest text of unreadable arguments that the model is shown again, from their end: that is where they broke off. */
const shownBrokenCharacters = 120

/**
 * Runs one tool call with its events. Nothing that a tool does wrong gets out of here: unknown names, arguments that do not fit and thrown errors
 * become results that the model can act on. Rejects only with the signal's reason; what a stopped tool has to tell goes to `onStopped`, perhaps
 * more than once, before that.
 */
export async function runToolCall(
  tools: readonly Tool[],
  requested: RequestedCall,
  {
    context,
    signal,
    onStopped = () => {},
  }: { context: ToolContext; signal: AbortSignal; onStopped?: (result: CallResult) => void },
): Promise<CallResult> {
  signal.throwIfAborted()
  const { id, tool: name } = requested
  const { sink } = context
  const tool = tools.find((candidate) => candidate.name === name)
  const parsed = tool?.input.safeParse(requested.input)
  const start = performance.now()
  sink.emit({
    type: 'tool_call',
    data: {
      toolCallId: id,
      tool: name,
      title: tool && parsed?.success ? tool.title(parsed.data) : name,
      kind: tool?.kind ?? 'other',
      status: 'in_progress',
      rawInput: shownInput(requested.input),
      locations: tool && parsed?.success ? tool.locations?.(parsed.data, context) : undefined,
    },
  })
  const update = (
    status: 'completed' | 'failed',
    { result, content, shown, blobId }: ToolOutput,
    { cancelled }: { cancelled?: true } = {},
  ) =>
    sink.emit({
      type: 'tool_call_update',
      data: {
        toolCallId: id,
        status,
        cancelled,
        content: content ?? [{ type: 'content', content: { type: 'text', text: textOf(result) } }],
        rawOutput: shown ?? result,
        duration_ms: Math.round(performance.now() - start),
        blob_id: blobId,
      },
    })
  const failed = (said: string): CallResult => {
    const error = said.length > refusalCharacters ? `${said.slice(0, refusalCharacters)}…` : said
    update('failed', { result: { error } })
    return { id, tool: name, isError: true, result: { error } }
  }

  if (!tool) return failed(`There is no tool ${name}. Tools: ${tools.map((known) => known.name).join(', ')}.`)
  if (typeof requested.input === 'string')
    return failed(`The arguments do not fit. ${brokenArguments(requested.input)}`)
  if (!parsed?.success) {
    const issues = parsed?.error.issues.map((issue) => `${issue.path.join('.') || 'arguments'}: ${issue.message}`)
    return failed(`The arguments do not fit. ${issues?.slice(0, 5).join('; ')}`)
  }
  let stopped: ToolOutput = { result: { error: 'Stopped.' } }
  const answerIfStopped = (output: ToolOutput) => {
    stopped = output
    onStopped(asResult(requested, output))
  }
  try {
    const output = await tool.run(parsed.data, { ...context, id, signal, answerIfStopped })
    update(output.isError ? 'failed' : 'completed', output)
    return asResult(requested, output)
  } catch (error) {
    if (signal.aborted) {
      update('failed', stopped, { cancelled: true })
      throw signal.reason
    }
    return failed(messageOf(error))
  }
}

function asResult({ id, tool }: RequestedCall, { result, isError, images, question }: ToolOutput): CallResult {
  return {
    id,
    tool,
    result,
    ...(isError ? { isError } : {}),
    ...(question === undefined ? {} : { question }),
    ...(images === undefined
      ? {}
      : { images: images.map(({ mediaType, data }) => ({ mediaType, data: Buffer.from(data).toString('base64') })) }),
  }
}

function brokenArguments(text: string): string {
  const end = text.length <= shownBrokenCharacters ? text : `…${text.slice(-shownBrokenCharacters)}`
  return `They are not a JSON object that can be read (${text.length} characters, ending in: ${end}). Send them again, whole and with quotes and line ends escaped; what is very long can be sent in several calls.`
}

function shownInput(input: unknown): Record<string, unknown> {
  const text = JSON.stringify(input) ?? ''
  if (text.length > shownInputCharacters) {
    return { cut: `${text.slice(0, shownInputCharacters)}… (${text.length} characters)` }
  }
  if (typeof input !== 'object' || input === null || Array.isArray(input)) return { input }
  return input as Record<string, unknown>
}

function textOf(result: Record<string, unknown>): string {
  const only = result.output ?? result.error ?? result.diff
  return typeof only === 'string' ? only : JSON.stringify(result)
}
