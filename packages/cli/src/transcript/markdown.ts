import { isTerminal, type Run, type RunState, type SessionEvent, type SessionEventData } from '@openoz/protocol'
import { createPatch } from 'diff'
import { oneLine, plainText } from '../plain-text.ts'
import { durationText } from '../time-text.ts'
import { usageText } from '../usage-text.ts'
import { foldText } from '../watch/output-fold.ts'

/** A session log as a document to read: prompts, answers, calls with their output, diffs, outcomes. What is for programs is left out. */
export interface Markdown {
  head(run: Run): string
  /** The text of the next event; chunks of one message go on where the last one ended. */
  add(event: SessionEvent): string
  end(): string
}

const foldSize = { head: 20, tail: 10 }

export function createMarkdown({ isFull }: { isFull: boolean }): Markdown {
  const turns = createTurns()
  /** Messages of the agent, which may be withdrawn until a call or an outcome says that its answer was whole; and what was said in between. */
  let held: Block[] = []

  const write = (blocks: readonly Block[]) => blocks.map(({ text }) => `\n${text}\n`).join('')
  const writeHeld = () => {
    const text = write(held)
    held = []
    return text
  }
  const hold = (messageId: string, text: string) => {
    const last = held.at(-1)
    if (last?.messageId === messageId) last.text += text
    else held.push({ messageId, text })
  }

  return {
    head: headText,
    add(event) {
      if (event.type === 'answer_withdrawn') {
        const { message_ids: ids } = event.data
        held = held.filter(({ messageId }) => messageId === undefined || !ids.includes(messageId))
        return ''
      }
      if ('late' in event.data && event.data.late) return ''
      if (event.type === 'agent_message_chunk') {
        hold(event.data.messageId, plainText(event.data.content.text))
        return ''
      }
      const texts = [...turns.before(event), blockText(event, isFull), ...turns.after(event)]
      const blocks = texts.filter((text) => text !== '').map((text) => ({ text }))
      held.push(...blocks)
      // Comes from elsewhere, at any time.
      return event.type === 'notice' || blocks.length === 0 ? '' : writeHeld()
    },
    end: () => writeHeld() + write(turns.end().map((text) => ({ text }))),
  }
}

interface Block {
  text: string
  /** Of a message of the agent. */
  messageId?: string
}

type UserMessage = Extract<SessionEvent, { type: 'user_message' }>

/**
 * What people said stands where the agent heard it: a queued message at the beginning of its turn, steering where it was delivered. Steering
 * that came too late for its turn becomes a turn of its own.
 */
function createTurns() {
  let waiting: UserMessage[] = []
  const steering = new Map<string, UserMessage>()
  let isResting = false

  return {
    before(event: SessionEvent): string[] {
      if (event.type === 'message_delivered') {
        const said = steering.get(event.data.message_id)
        steering.delete(event.data.message_id)
        return said ? [messageText(said.data)] : []
      }
      if (event.type !== 'user_message') return []
      const { mode, message_id: id } = event.data
      if (mode === undefined) return [messageText(event.data)]
      if (mode === 'queue' || id === undefined) waiting.push(event)
      else steering.set(id, event)
      return []
    },
    after(event: SessionEvent): string[] {
      if (event.type !== 'run_state') return []
      if (!isOutcome(event.data.state)) {
        const next = isResting ? waiting.shift() : undefined
        isResting = false
        return next ? [messageText({ ...next.data, mode: 'queue' })] : []
      }
      isResting = true
      waiting = [...waiting, ...steering.values()].sort((a, b) => a.seq - b.seq)
      steering.clear()
      // A cancel is for everything that was asked until then.
      const dropped = event.data.state === 'CANCELLED' ? waiting.splice(0) : []
      return dropped.map(({ data }) => `${messageText(data)}\n\n_Cancelled before the agent heard it._`)
    },
    end: () =>
      [...waiting, ...steering.values()].map(({ data }) => `${messageText(data)}\n\n_The agent has not heard it yet._`),
  }
}

function isOutcome(state: string): boolean {
  return state === 'BLOCKED' || isTerminal(state as RunState)
}

function blockText(event: SessionEvent, isFull: boolean): string {
  switch (event.type) {
    case 'tool_call':
      return callText(event.data)
    case 'tool_call_update':
      return event.data.status === 'in_progress' ? '' : resultText(event.data, isFull)
    case 'plan':
      return event.data.entries
        .map(({ content, status }) => `- [${status === 'completed' ? 'x' : ' '}] ${oneLine(content)}`)
        .join('\n')
    case 'artifact': {
      const { artifact_type: type, url } = event.data
      return `**Artifact**: ${oneLine(type)} ${typeof url === 'string' ? oneLine(url) : ''}`.trim()
    }
    case 'notice':
      return `> ${event.data.level === 'warning' ? 'Warning' : 'Note'}: ${oneLine(event.data.text)}`
    case 'run_state':
      return isOutcome(event.data.state) ? outcomeText(event.data) : ''
    default:
      return ''
  }
}

function headText(run: Run): string {
  const facts = [
    `Run \`${run.run_id}\` in conversation \`${run.conversation_id}\``,
    `${run.state}${run.status_message ? `: ${oneLine(run.status_message.message)}` : ''}`,
    `Started by ${oneLine(run.creator.display_name)} at ${run.created_at}`,
    ...(run.agent_config.model_id ? [`Model ${run.agent_config.model_id}`] : []),
    ...(run.usage.requests > 0 ? [`tokens: ${usageText(run.usage)}`] : []),
  ]
  return `# ${oneLine(run.title)}\n\n${facts.map((fact) => `- ${fact}`).join('\n')}\n`
}

function messageText({ text, turn, mode, author }: SessionEventData['user_message']): string {
  const isSteering = mode === 'steer' || mode === 'interrupt'
  const who = author ? ` (${oneLine(author)})` : ''
  const title = isSteering ? `### ${mode === 'steer' ? 'Steering' : 'Interruption'}${who}` : `## Turn ${turn}${who}`
  return `${title}\n\n${quoted(plainText(text).trim())}`
}

function quoted(text: string): string {
  return text
    .split('\n')
    .map((line) => `> ${line}`.trimEnd())
    .join('\n')
}

function callText({ tool, title, rawInput }: SessionEventData['tool_call']): string {
  const command = rawInput?.command
  if (typeof command !== 'string') return `**${oneLine(tool)}**: ${oneLine(title)}`
  return `**${oneLine(tool)}**\n\n${fenced('sh', plainText(command))}`
}

function resultText(update: SessionEventData['tool_call_update'], isFull: boolean): string {
  const { status, content = [], rawOutput, duration_ms } = update
  const parts = content.map((part) => {
    if (part.type === 'diff') return fenced('diff', diffText(part))
    const text = plainText(part.content.text)
    if (text.trim() === '') return ''
    return fenced(
      '',
      isFull ? text : foldText(text, foldSize, (hidden) => `… ${hidden.toLocaleString('en-US')} more lines`),
    )
  })
  const exitCode = rawOutput?.exit_code
  const end = typeof exitCode === 'number' ? `exit code ${exitCode}` : status
  const took = duration_ms === undefined ? '' : ` after ${durationText(duration_ms)}`
  return [...parts.filter((part) => part !== ''), `_${end}${took}_`].join('\n\n')
}

function diffText({ path, oldText, newText }: { path: string; oldText: string | null; newText: string }): string {
  const name = oneLine(path)
  const patch = createPatch(name, plainText(oldText ?? ''), plainText(newText), '', '')
  // Its first two lines are for programs that hold several patches in one file.
  return patch.split('\n').slice(2).join('\n')
}

function outcomeText({ state, message }: SessionEventData['run_state']): string {
  const text = message === undefined ? '' : plainText(message).trim()
  return `**${state}**${text === '' ? '' : `\n\n${quoted(text)}`}`
}

/** A fence is longer than any in what it holds. */
function fenced(language: string, text: string): string {
  const longest = Math.max(0, ...(text.match(/`+/g) ?? []).map((run) => run.length))
  const fence = '`'.repeat(Math.max(3, longest + 1))
  return `${fence}${language}\n${text.replace(/\n*$/, '')}\n${fence}`
}
