import type { AgentEvent, AgentEventData } from '@openoz/protocol'
import { oneLine } from '../plain-text.ts'
import { modelWaitText } from '../watch/model-wait-text.ts'
import { type AgentStream, sharesWait } from './agent-stream.ts'
import { artifactObject, inputOf, outputOf, toolName } from './tool-objects.ts'

interface Said {
  type: 'agent' | 'agent_reasoning'
  messageId: string
  text: string
}

interface Todo {
  title: string
  description: string
}

/**
 * The objects that scripts for the reference read; `run_finished`, the last one, is ours. Prompts are not echoed. Warnings, and what is waited for,
 * have no object there: `note` says them to whoever looks.
 */
export function createJsonStream(
  print: (object: Record<string, unknown>) => void,
  note: (text: string) => void,
): AgentStream {
  /** A message comes in pieces, and is printed whole. */
  let said: Said | undefined
  const calls = new Map<string, AgentEventData['tool_call']>()
  let todoText = '[]'
  let completed = new Set<string>()

  const endMessage = () => {
    if (said !== undefined && said.text.trim() !== '') print({ type: said.type, text: said.text })
    said = undefined
  }

  const say = (type: Said['type'], { messageId, content }: AgentEventData['agent_message_chunk']) => {
    if (said?.messageId !== messageId || said.type !== type) endMessage()
    said = { type, messageId, text: (said?.text ?? '') + content.text }
  }

  const printPlan = ({ entries }: AgentEventData['plan']) => {
    const todos = entries.map(({ content, status }) => ({ ...todoOf(content), status }))
    const text = JSON.stringify(todos.map(({ title, description }) => [title, description]))
    if (text !== todoText) {
      print({ type: 'update_todos', todo_list: todos.map(({ title, description }) => ({ title, description })) })
    }
    todoText = text
    const done = todos.filter(({ status }) => status === 'completed')
    const news = done.filter(({ title }) => !completed.has(title))
    if (news.length > 0) {
      const items = news.map(({ title, description }) => ({ title, description }))
      print({ type: 'complete_todos', completed_todos: items })
    }
    completed = new Set(done.map(({ title }) => title))
  }

  const printCallEnd = (update: AgentEventData['tool_call_update']) => {
    const call = calls.get(update.toolCallId)
    if (!call || update.status === 'in_progress') return
    calls.delete(update.toolCallId)
    const tool = toolName(call)
    if (update.cancelled) print({ type: 'tool_canceled', tool })
    else if (update.status === 'failed') print({ type: 'tool_error', tool, error: errorOf(update) })
    else print({ type: 'tool_result', tool, ...outputOf(call, update) })
  }

  const show = (event: AgentEvent) => {
    switch (event.type) {
      case 'agent_message_chunk':
        return say('agent', event.data)
      case 'agent_thought_chunk':
        return say('agent_reasoning', event.data)
      case 'answer_withdrawn':
        if (said && event.data.message_ids.includes(said.messageId)) said = undefined
        return
      case 'tool_call':
        endMessage()
        calls.set(event.data.toolCallId, event.data)
        return print({ type: 'tool_call', tool: toolName(event.data), ...inputOf(event.data) })
      case 'tool_call_update':
        endMessage()
        return printCallEnd(event.data)
      case 'plan':
        endMessage()
        return printPlan(event.data)
      case 'artifact': {
        endMessage()
        const artifact = artifactObject(event.data)
        return print({ type: 'artifact_created', ...artifact })
      }
      case 'turn_outcome':
        return endMessage()
      case 'model_wait':
        return note(modelWaitText(event.data))
      case 'notice':
        return event.data.level === 'warning' ? note(`! ${oneLine(event.data.text)}`) : undefined
      default:
      // Steps of the setup, output while it comes, what is only remarked: the reference's stream has none of them.
    }
  }

  return {
    started({ runId, runUrl, conversationId, isShared }) {
      print({ type: 'system', event_type: 'run_started', run_id: runId, run_url: runUrl })
      print({ type: 'system', event_type: 'conversation_started', conversation_id: conversationId })
      if (!isShared) return
      print({ type: 'system', event_type: 'shared_session_established', join_url: runUrl })
      note(sharesWait)
    },
    event: show,
    finished({ runId, state, message }) {
      endMessage()
      print({ type: 'system', event_type: 'run_finished', run_id: runId, state, message })
    },
  }
}

/** The first line is the title. */
function todoOf(content: string): Todo {
  const [title = '', ...rest] = content.split('\n')
  return { title, description: rest.join('\n') }
}

function errorOf({ rawOutput, content = [] }: AgentEventData['tool_call_update']): string {
  if (typeof rawOutput?.error === 'string') return rawOutput.error
  return content.flatMap((part) => (part.type === 'content' ? [part.content.text] : [])).join('\n')
}
