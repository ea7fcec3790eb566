import type { ModelMessage } from 'ai'
import { shortened } from '../live-output.ts'
import type { Tool } from '../tools/tool.ts'
import type { RequestedCall } from '../tools/tool-call.ts'
import { wellFormed } from './well-formed.ts'

/** Arguments that no tool takes are kept for the model up to here: it knows what it wrote. */
const keptBadInputCharacters = 2_000

/**
 * An answer as the conversation keeps it: what the model said, so that every provider takes it back. The library's own results for calls that it
 * could not read are left out, and texts that say nothing; arguments are objects; names have the letters
 * that names may have; no two calls of a conversation have one id; no text has half a character.
 */
export function tidyAnswer(
  answer: { messages: readonly ModelMessage[]; calls: readonly RequestedCall[] },
  { tools, usedIds }: { tools: readonly Tool[]; usedIds: ReadonlySet<string> },
): { messages: ModelMessage[]; calls: RequestedCall[] } {
  const ids = new Set(usedIds)
  const calls = wellFormed(answer.calls).map((call) => {
    const id =
      call.id === '' || ids.has(call.id) ? `call_${crypto.randomUUID().replaceAll('-', '').slice(0, 20)}` : call.id
    ids.add(id)
    return { ...call, id, tool: tidyName(call.tool) }
  })
  let next = 0
  const messages = wellFormed(answer.messages)
    .filter((message) => message.role === 'assistant')
    .map((message) => {
      if (typeof message.content === 'string') return message
      const content = message.content
        .filter((part) => part.type !== 'tool-result' && !(part.type === 'text' && part.text.trim() === ''))
        .map((part) => {
          const call = part.type === 'tool-call' ? calls[next++] : undefined
          if (part.type !== 'tool-call' || !call) return part
          return { ...part, toolCallId: call.id, toolName: call.tool, input: keptInput(call, tools) }
        })
      return { ...message, content }
    })
  return { messages, calls }
}

/** Ids of all calls in these messages. */
export function callIds(messages: readonly ModelMessage[]): Set<string> {
  const ids = new Set<string>()
  for (const { role, content } of messages) {
    if (role !== 'assistant' || typeof content === 'string') continue
    for (const part of content) if (part.type === 'tool-call') ids.add(part.toolCallId)
  }
  return ids
}

/** Whether there is such a tool, and the arguments fit. */
export function takesInput(tools: readonly Tool[], { tool, input }: Pick<RequestedCall, 'tool' | 'input'>): boolean {
  return tools.find(({ name }) => name === tool)?.input.safeParse(input).success === true
}

function tidyName(name: string): string {
  return name.replaceAll(/[^a-zA-Z0-9_-]/g, '_').slice(0, 64) || 'unnamed'
}

function keptInput(call: RequestedCall, tools: readonly Tool[]): unknown {
  const { input } = call
  if (typeof input !== 'object' || input === null || Array.isArray(input)) return {}
  if (takesInput(tools, call)) return input
  const text = JSON.stringify(input)
  if (text.length <= keptBadInputCharacters) return input
  return { cut: `${shortened(text, 500)} (${text.length} characters that no tool takes)` }
}
