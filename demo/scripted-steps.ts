/** What the scripted model does next, from the conversation alone: it keeps nothing between two calls. */
export interface Step {
  text: string
  call?: { tool: 'run_command'; input: { command: string } } | { tool: 'edit_files'; input: { edits: object[] } }
}

/** The parts of OpenAI's messages that matter here. */
export interface ChatMessage {
  role: string
  content?: string | { text?: string }[] | null
  tool_calls?: { id: string; function: { name: string; arguments: string } }[]
  tool_call_id?: string
}

const brokenLines = `  const share = Math.floor(cents / people.length)
  return people.map((name) => ({ name, cents: share }))`

const repairedLines = `  const share = Math.floor(cents / people.length)
  const leftOver = cents - share * people.length
  return people.map((name, index) => ({ name, cents: index < leftOver ? share + 1 : share }))`

export const testCommand = 'node --test'
const commitCommand = 'git add --all && git commit --message "Give left-over cents to the first people who pay"'

export function nextStep(messages: ChatMessage[]): Step {
  const results = resultsSinceLastPrompt(messages)
  const last = results.at(-1)
  if (!last) return firstStep(messages)
  switch (last.kind) {
    case 'test':
      return afterTest(last, results)
    case 'edit':
      return afterEdit(last)
    case 'commit':
      return afterCommit(last)
    default:
      return { text: 'I did not ask for that, and I only know this one sample project, so I stop here.' }
  }
}

function firstStep(messages: ChatMessage[]): Step {
  const prompt = textOf(messages.findLast(({ role }) => role === 'user'))
  if (!/failing test/i.test(prompt)) {
    return {
      text:
        'I am the scripted model of the openoz demo and know one sample project and one task: making its failing test pass. ' +
        'Connect a real model (ANTHROPIC_API_KEY, OPENAI_API_KEY or OLLAMA_HOST) for everything else.',
    }
  }
  return { text: 'I run the tests first, to see what fails.', call: command(testCommand) }
}

function afterTest(result: ToolResult, results: ToolResult[]): Step {
  const hasEdited = results.some(({ kind, isError }) => kind === 'edit' && !isError)
  const counts = testCounts(result.text)
  if (result.isError && !/not ok|✖|fail/i.test(result.text)) {
    return { text: `The tests could not be run at all: ${firstLine(result.text)}. I stop here; nothing was committed.` }
  }
  if (!hasEdited) {
    if (!result.isError)
      return { text: `All tests pass already${counts}. There is nothing to do, and I changed nothing.` }
    return {
      text:
        `The tests fail${counts}: the shares do not add up to the bill. \`splitBill\` rounds every share down and forgets the cents ` +
        'that are left over. I give one of them to each of the first people until none is left.',
      call: {
        tool: 'edit_files',
        input: {
          edits: [{ type: 'replace', path: 'src/split-bill.js', old_text: brokenLines, new_text: repairedLines }],
        },
      },
    }
  }
  if (result.isError) {
    return {
      text:
        `The tests still fail after my change${counts}, and I know no other repair. I leave the change uncommitted, so that you ` +
        'can look at it.',
    }
  }
  return { text: `All tests pass now${counts}. I commit the change.`, call: command(commitCommand) }
}

function afterEdit(result: ToolResult): Step {
  if (result.isError) {
    return {
      text: `I could not change src/split-bill.js: ${firstLine(result.text)}. It is not the file that I know, so I stop here.`,
    }
  }
  return { text: 'Now the tests again.', call: command(testCommand) }
}

function afterCommit(result: ToolResult): Step {
  if (result.isError) {
    return {
      text: `The change works, but git refused to commit it: ${firstLine(result.text)}. It is in the working tree.`,
    }
  }
  return {
    text:
      'Done. `splitBill` lost the cents that do not divide evenly: 100.00 among three came to 99.99. They now go to the first ' +
      'people who pay, one cent each, so the shares add up to the bill and nobody pays more than one cent more than anybody else. ' +
      'All tests pass, and the change is committed.',
  }
}

function command(text: string): Step['call'] {
  return { tool: 'run_command', input: { command: text } }
}

interface ToolResult {
  kind: 'test' | 'edit' | 'commit' | 'other'
  isError: boolean
  text: string
}

function resultsSinceLastPrompt(messages: ChatMessage[]): ToolResult[] {
  const start = messages.findLastIndex(({ role }) => role === 'user')
  const calls = new Map(
    messages.flatMap(({ tool_calls = [] }) => tool_calls.map((call) => [call.id, call.function] as const)),
  )
  return messages
    .slice(start + 1)
    .filter(({ role }) => role === 'tool')
    .map((message) => {
      const call = calls.get(message.tool_call_id ?? '')
      return { kind: kindOf(call), ...readResult(textOf(message)) }
    })
}

function kindOf(call: { name: string; arguments: string } | undefined): ToolResult['kind'] {
  if (call?.name === 'edit_files') return 'edit'
  if (call?.arguments.includes('git commit')) return 'commit'
  return call?.arguments.includes(testCommand) ? 'test' : 'other'
}

/** Results are JSON: `{exit_code, output}` of commands, `{diff}` of edits, `{error}` of both. */
function readResult(text: string): { isError: boolean; text: string } {
  try {
    const result = JSON.parse(text) as { exit_code?: number; output?: string; error?: unknown; diff?: string }
    const isError = result.error !== undefined || (result.exit_code ?? 0) !== 0
    return {
      isError,
      text: [result.error, result.output ?? result.diff].filter((part) => part !== undefined).join('\n'),
    }
  } catch {
    return { isError: true, text }
  }
}

function textOf(message: ChatMessage | undefined): string {
  const content = message?.content ?? ''
  return typeof content === 'string' ? content : content.map((part) => part.text ?? '').join('')
}

/** From the summary of Node's test runner, in either of its formats. */
function testCounts(output: string): string {
  const count = (name: string) => new RegExp(`(?:#|ℹ) ${name} (\\d+)`).exec(output)?.[1]
  const [pass, fail] = [count('pass'), count('fail')]
  return pass === undefined || fail === undefined ? '' : ` (${pass} pass, ${fail} fail)`
}

function firstLine(text: string): string {
  return (text.split('\n').find((line) => line.trim() !== '') ?? 'no reason given').trim().replace(/\.$/, '')
}
