import type { ConversationContentBlock, ConversationMessage, SessionEvent, SessionEventData } from '@openoz/protocol'

/**
 * One turn's part of a session log, as messages: who said, called and answered what. What is for programs (states, set-up, usage, checkpoints)
 * is left out, and so is output while it comes, which the call's result repeats; large output is cut there as it is in the log, with the
 * `blob_id` of the whole. A message is given out as soon as the next one begins, so that little of a long turn is held.
 */
export interface MessageCollector {
  /** Answers the messages that are complete now. */
  add(event: SessionEvent): ConversationMessage[]
  /** The turn is over, or nothing more is known of it: calls without a result were cancelled, if it is. */
  end(isOver: boolean): ConversationMessage[]
}

/** A message that is larger goes on in a next one of the same role. */
const maxMessageBytes = 1024 * 1024

interface OpenMessage {
  message: ConversationMessage & { message_ids: string[] }
  bytes: number
}

interface OpenCall {
  name: string
  category: string
}

/** What only the whole log tells of a message. */
export interface KnownMessages {
  /** This message of a person began a turn of its own, and is shown there. */
  isTurn(messageId: string): boolean
  /** This message of the agent belongs to an answer that was cut off and asked for again. */
  isWithdrawn(messageId: string): boolean
}

export function createMessageCollector({ isTurn, isWithdrawn }: KnownMessages): MessageCollector {
  const calls = new Map<string, OpenCall>()
  let open: OpenMessage | undefined

  const close = (): ConversationMessage[] => {
    const last = open
    open = undefined
    if (!last) return []
    const { message_ids, ...message } = last.message
    return [{ ...(message_ids.length > 0 ? { message_ids } : {}), ...message }]
  }

  /** Adds to the message that is open, or begins the next. */
  const put = (entry: Entry, at: string): ConversationMessage[] => {
    const bytes = JSON.stringify(entry.block).length
    const done = open && (open.message.role !== entry.role || open.bytes + bytes > maxMessageBytes) ? close() : []
    open ??= { message: { message_ids: [], role: entry.role, timestamp: at, content: [] }, bytes: 0 }
    open.bytes += bytes
    const isFirstOfMessage = entry.messageId !== undefined && !open.message.message_ids.includes(entry.messageId)
    if (isFirstOfMessage && entry.messageId !== undefined) open.message.message_ids.push(entry.messageId)
    const previous = open.message.content.at(-1)
    if (isFirstOfMessage || !previous || !joined(previous, entry.block)) open.message.content.push(entry.block)
    return done
  }

  return {
    add(event) {
      if ('late' in event.data && event.data.late === true) return []
      if (event.type === 'user_message') {
        const { message_id: messageId, mode } = event.data
        const isSteering = mode === 'steer' || mode === 'interrupt'
        if (!isSteering || (messageId !== undefined && isTurn(messageId))) return []
      }
      const entry = toEntry(event, calls)
      if (!entry || (entry.role === 'assistant' && entry.messageId !== undefined && isWithdrawn(entry.messageId)))
        return []
      // Two people's messages are two messages.
      return event.type === 'user_message' ? [...close(), ...put(entry, event.at)] : put(entry, event.at)
    },
    end(isOver) {
      const cancelled: ConversationContentBlock[] = isOver
        ? [...calls].map(([id, call]) => ({
            type: 'action_result',
            action_id: id,
            ...call,
            state: 'denied',
            output: {},
          }))
        : []
      calls.clear()
      return [...close(), ...(cancelled.length > 0 ? [{ role: 'tool' as const, content: cancelled }] : [])]
    },
  }
}

interface Entry {
  role: ConversationMessage['role']
  block: ConversationContentBlock
  /** Chunks of one message become one block. */
  messageId?: string
}

function toEntry(event: SessionEvent, calls: Map<string, OpenCall>): Entry | undefined {
  switch (event.type) {
    case 'user_message': {
      const { text, message_id: messageId } = event.data
      return { role: 'user', block: { type: 'text', text }, ...(messageId === undefined ? {} : { messageId }) }
    }
    case 'agent_message_chunk': {
      const { messageId, content } = event.data
      return { role: 'assistant', block: { type: 'text', text: content.text }, messageId }
    }
    case 'agent_thought_chunk': {
      const { messageId, content } = event.data
      const block = { type: 'event' as const, name: 'agent_reasoning', data: { text: content.text } }
      return { role: 'assistant', block, messageId }
    }
    case 'tool_call': {
      const { toolCallId: id, tool: name, kind, rawInput } = event.data
      const call = { category: categories[kind] ?? 'integration', name }
      calls.set(id, call)
      return { role: 'assistant', block: { type: 'action', id, ...call, input: rawInput ?? {} } }
    }
    case 'tool_call_update':
      return event.data.status === 'in_progress' ? undefined : toResult(event.data, calls)
    case 'plan':
    case 'artifact':
      return { role: 'assistant', block: { type: 'event', name: event.type, data: event.data } }
    case 'notice':
      return { role: 'system', block: { type: 'event', name: 'notice', data: event.data } }
    default:
      return undefined
  }
}

/** The reference's categories by the kinds of the Agent Client Protocol. */
const categories: Record<SessionEventData['tool_call']['kind'], string> = {
  execute: 'command',
  read: 'files',
  edit: 'files',
  delete: 'files',
  move: 'files',
  search: 'search',
  fetch: 'search',
  think: 'documents',
  other: 'integration',
}

function toResult(update: SessionEventData['tool_call_update'], calls: Map<string, OpenCall>): Entry {
  const { toolCallId: id, status, cancelled, content = [], rawOutput, blob_id } = update
  const call = calls.get(id) ?? { name: 'unknown', category: 'integration' }
  calls.delete(id)
  const text = content.flatMap((part) => (part.type === 'content' ? [part.content.text] : [])).join('')
  const changes = content.flatMap((part) =>
    part.type === 'diff' ? [{ path: part.path, old_text: part.oldText, new_text: part.newText }] : [],
  )
  const output = {
    ...(text === '' ? {} : { output: text }),
    ...(changes.length === 0 ? {} : { changes }),
    ...rawOutput,
    ...(blob_id === undefined ? {} : { blob_id }),
  }
  const state = cancelled ? 'denied' : status === 'failed' ? 'failed' : 'completed'
  return { role: 'tool', block: { type: 'action_result', action_id: id, ...call, state, output } }
}

/** Chunks come many to a message: what continues the block before it is put behind its text. */
function joined(previous: ConversationContentBlock, next: ConversationContentBlock): boolean {
  if (previous.type === 'text' && next.type === 'text') {
    previous.text += next.text
    return true
  }
  if (
    previous.type === 'event' &&
    next.type === 'event' &&
    next.name === 'agent_reasoning' &&
    previous.name === next.name
  ) {
    previous.data.text = `${previous.data.text}${next.data.text}`
    return true
  }
  return false
}
