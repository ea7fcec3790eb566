/** What the scripted model says next, and the one tool that it calls, if any: without a call the turn ends. */
export interface Step {
  text: string
  call?: { tool: string; input: object }
}

/** The parts of OpenAI's messages that matter here. */
export interface ChatMessage {
  role: string
  content?: string | { text?: string }[] | null
  tool_calls?: { id: string; function: { name: string; arguments: string } }[]
  tool_call_id?: string
}

/** What a script knows: it keeps nothing between two calls. */
export interface Progress {
  /** Of the calls since the task was given, in order. */
  results: ToolResult[]
  /** What people said since then. */
  said: string[]
}

export interface ToolResult {
  tool: string
  /** The call's arguments, as text. */
  input: string
  isError: boolean
  /** The error and the output, for people. */
  text: string
  commandId: string | undefined
}

/** From the last message of a person that `isTask` knows. */
export function readProgress(messages: ChatMessage[], isTask: (text: string) => boolean): Progress | undefined {
  const start = messages.findLastIndex((message) => message.role === 'user' && isTask(textOf(message)))
  if (start < 0) return undefined
  const since = messages.slice(start + 1)
  const calls = new Map(
    messages.flatMap(({ tool_calls = [] }) => tool_calls.map((call) => [call.id, call.function] as const)),
  )
  const results = since
    .filter(({ role }) => role === 'tool')
    .map((message) => {
      const call = calls.get(message.tool_call_id ?? '')
      return { tool: call?.name ?? '', input: call?.arguments ?? '', ...readResult(textOf(message)) }
    })
  return { results, said: since.filter(({ role }) => role === 'user').map(textOf) }
}

/** Results are JSON: `{exit_code, output}` of commands, `{diff}` of edits, `{error}` of all tools. */
function readResult(text: string): Pick<ToolResult, 'isError' | 'text' | 'commandId'> {
  try {
    const result = JSON.parse(text) as {
      exit_code?: number
      output?: string
      error?: unknown
      diff?: string
      command_id?: string
    }
    const parts = [result.error, result.output ?? result.diff].filter((part) => part !== undefined)
    const isError = result.error !== undefined || (result.exit_code ?? 0) !== 0
    return { isError, text: parts.join('\n'), commandId: result.command_id }
  } catch {
    return { isError: true, text, commandId: undefined }
  }
}

export function textOf(message: ChatMessage | undefined): string {
  const content = message?.content ?? ''
  return typeof content === 'string' ? content : content.map((part) => part.text ?? '').join('')
}

export function command(text: string): Step['call'] {
  return { tool: 'run_command', input: { command: text } }
}

export function firstLine(text: string): string {
  return (text.split('\n').find((line) => line.trim() !== '') ?? 'no reason given').trim().replace(/\.$/, '')
}

/** From the summary of Node's test runner, in either of its formats. */
export function testCounts(output: string): string {
  const count = (name: string) => new RegExp(`(?:#|ℹ) ${name} (\\d+)`).exec(output)?.[1]
  const [pass, fail] = [count('pass'), count('fail')]
  return pass === undefined || fail === undefined ? '' : ` (${pass} pass, ${fail} fail)`
}
