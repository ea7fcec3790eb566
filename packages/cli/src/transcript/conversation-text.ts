import type { Conversation, ConversationContentBlock, ConversationMessage, ConversationStep } from '@openoz/protocol'
import type { Colors, Output } from '../output.ts'
import { oneLine, plainText } from '../plain-text.ts'
import { durationText } from '../time-text.ts'
import { foldText } from '../watch/output-fold.ts'

/** Enough to see what a call answered; `oz run watch --full` has all of it. */
const foldSize = { head: 8, tail: 4 }

/** `json` is the server's answer, in lines; `ndjson` the same on one line. */
export function printConversation(output: Output, conversation: Conversation): void {
  if (output.isJson) {
    output.line(JSON.stringify(conversation, null, output.format === 'json' ? 2 : undefined))
    return
  }
  for (const [index, step] of conversation.steps.entries()) {
    if (index > 0) output.line()
    output.line(output.colors.bold(`Turn ${index + 1}${aboutStep(step)}`))
    for (const message of step.messages) printMessage(output, message)
    if (step.summary !== undefined && !isLastWord(step, step.summary))
      output.line(`\n${output.colors.dim('Outcome:')} ${plainText(step.summary).trim()}`)
  }
}

/** An outcome is often told in the agent's last words, which stand above it already. */
function isLastWord({ messages }: ConversationStep, summary: string): boolean {
  const block = messages.at(-1)?.content.at(-1)
  return block?.type === 'text' && oneLine(block.text) === oneLine(summary)
}

function aboutStep({ started_at: start, completed_at: end }: ConversationStep): string {
  const took = start && end ? `, ${durationText(Date.parse(end) - Date.parse(start))}` : ''
  return start === undefined ? '' : `  ${start}${took}`
}

function printMessage(output: Output, { role, content }: ConversationMessage): void {
  for (const block of content) {
    const text = blockText(block, output.colors)
    if (text === '') continue
    if (role === 'user') output.line(`\n${indented(text, `${output.colors.blue('▌')} `)}`)
    else output.line(block.type === 'action_result' ? text : `\n${text}`)
  }
}

function blockText(block: ConversationContentBlock, colors: Colors): string {
  switch (block.type) {
    case 'text':
      return plainText(block.text).trim()
    case 'action':
      return `${colors.magenta('●')} ${colors.bold(oneLine(block.name))} ${inputText(block.input)}`
    case 'action_result':
      return indented(resultText(block), '  │ ', colors.dim)
    case 'event':
      return colors.dim(`(${oneLine(block.name).replaceAll('_', ' ')}: ${eventText(block.data)})`)
    default:
      return block satisfies never
  }
}

function inputText(input: Record<string, unknown>): string {
  const text = typeof input.command === 'string' ? input.command : JSON.stringify(input)
  const line = oneLine(text)
  return line.length > 200 ? `${line.slice(0, 199)}…` : line
}

function resultText({ state, output }: { state: string; output?: unknown }): string {
  const { output: text, ...rest } = (typeof output === 'object' && output !== null ? output : {}) as Record<
    string,
    unknown
  >
  const about = Object.entries(rest).flatMap(([name, value]) =>
    typeof value === 'string' || typeof value === 'number' ? [`${name} ${oneLine(String(value)).slice(0, 200)}`] : [],
  )
  const said = typeof text === 'string' ? foldText(plainText(text), foldSize, (hidden) => `… ${hidden} more lines`) : ''
  return `${said === '' ? '' : `${said.trimEnd()}\n`}${[state, ...about].join(', ')}`
}

function eventText(data: Record<string, unknown>): string {
  if (typeof data.text === 'string') return oneLine(data.text)
  const entries = Array.isArray(data.entries) ? (data.entries as { content?: unknown; status?: unknown }[]) : undefined
  if (entries) return entries.map(({ content, status }) => `${oneLine(String(content))} [${status}]`).join('; ')
  return oneLine(JSON.stringify(data))
}

function indented(text: string, prefix: string, paint: (text: string) => string = String): string {
  return text
    .split('\n')
    .map((line) => paint(`${prefix}${line}`))
    .join('\n')
}
