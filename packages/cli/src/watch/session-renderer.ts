import type { RunState, SessionEvent, SessionEventData, SessionEventType } from '@openoz/protocol'
import type { Colors } from '../output.ts'
import { oneLine, plainText } from '../plain-text.ts'
import { tokenText } from '../run-lists.ts'
import { paintState } from '../state-colors.ts'
import { durationText } from '../time-text.ts'
import { diffLines, paintDiff } from './diff-text.ts'
import { createLineWriter, type LineWriter } from './line-writer.ts'

/** Shows a session log as it comes, for people. One entry per type of event: a new type does not compile until it is drawn here. */
export interface SessionRenderer {
  render(event: SessionEvent): void
  /** What the events said so far. */
  readonly summary: SessionSummary
}

export interface SessionSummary {
  state: RunState | undefined
  message: string | undefined
  inputTokens: number
  outputTokens: number
  /** The last thing that the agent said. */
  lastWords: string
}

interface View {
  out: LineWriter
  colors: Colors
  summary: SessionSummary
  /** Calls whose output was shown while they ran. */
  streamed: Set<string>
  /** Message that `lastWords` belongs to. */
  messageId: string | undefined
}

export function createSessionRenderer(write: (text: string) => void, colors: Colors): SessionRenderer {
  const summary: SessionSummary = {
    state: undefined,
    message: undefined,
    inputTokens: 0,
    outputTokens: 0,
    lastWords: '',
  }
  const view: View = { out: createLineWriter(write), colors, summary, streamed: new Set(), messageId: undefined }
  return { render: (event) => draw(view, event), summary }
}

type Painters = { [T in SessionEventType]: (view: View, data: SessionEventData[T]) => void }

const painters: Painters = {
  run_state({ out, colors, summary }, { state, message, late }) {
    if (late) return
    // An outcome is often told in the agent's last words, which stand above it already.
    const isSaid = message !== undefined && oneLine(message) === oneLine(summary.lastWords)
    summary.state = state as RunState
    summary.message = message
    out.gap()
    out.line(`${colors.bold(paintState(state, colors))}${message && !isSaid ? `  ${oneLine(message)}` : ''}`)
  },
  setup_step({ out, colors }, { step, status, title, detail, duration_ms }) {
    const name = oneLine(title ?? step.replaceAll('_', ' '))
    if (status === 'started') return
    const took = duration_ms === undefined ? '' : colors.dim(` ${durationText(duration_ms)}`)
    const mark = status === 'failed' ? colors.red('✘') : colors.green('✔')
    out.line(`${mark} ${name}${took}${detail ? colors.dim(` — ${oneLine(detail)}`) : ''}`)
  },
  user_message({ out, colors }, { text, author }) {
    out.gap()
    out.piece('user', plainText(text), { prefix: `${colors.blue('▌')} `, paint: colors.bold })
    if (author) out.line(colors.dim(`  — ${oneLine(author)}`))
    out.gap()
  },
  agent_message_chunk(view, { messageId, content }) {
    const { out, summary } = view
    if (view.messageId !== messageId) {
      out.gap()
      summary.lastWords = ''
    }
    view.messageId = messageId
    summary.lastWords += content.text
    out.piece(`message ${messageId}`, plainText(content.text), { prefix: '', paint: String })
  },
  agent_thought_chunk({ out, colors }, { messageId, content }) {
    out.piece(`thought ${messageId}`, plainText(content.text), { prefix: '', paint: colors.italic })
  },
  tool_call({ out, colors }, { title, kind, rawInput }) {
    out.gap()
    const command = typeof rawInput?.command === 'string' ? rawInput.command : undefined
    if (command === undefined || kind !== 'execute') out.line(`${colors.magenta('●')} ${oneLine(title)}`)
    else out.piece('command', plainText(command), { prefix: `${colors.magenta('$')} `, paint: colors.bold })
  },
  tool_call_update: drawToolUpdate,
  plan({ out, colors }, { entries }) {
    const marks = { pending: '☐', in_progress: '▶', completed: '☑' } as const
    out.gap()
    for (const { content, status } of entries) out.line(`${colors.cyan(marks[status])} ${oneLine(content)}`)
  },
  terminal_output(view, { toolCallId, step, text }) {
    if (toolCallId !== undefined) view.streamed.add(toolCallId)
    drawOutput(view, toolCallId ?? step ?? 'output', text)
  },
  usage({ out, colors, summary }, { model, input_tokens, output_tokens }) {
    summary.inputTokens += input_tokens
    summary.outputTokens += output_tokens
    out.line(colors.dim(`  tokens: ${tokenText(input_tokens, output_tokens)} (${oneLine(model)})`))
  },
  artifact({ out, colors }, data) {
    out.line(
      `${colors.cyan('◆')} ${oneLine(data.artifact_type)}${typeof data.url === 'string' ? ` ${oneLine(data.url)}` : ''}`,
    )
  },
  participant({ out, colors }, { action, name }) {
    out.line(colors.dim(`${oneLine(name)} ${action}`))
  },
  notice({ out, colors }, { level, text }) {
    const paint = level === 'warning' ? colors.yellow : colors.dim
    out.line(paint(`${level === 'warning' ? '!' : 'i'} ${oneLine(text)}`))
  },
  checkpoint() {
    // For programs: one after every step.
  },
  workspace_saved({ out, colors }, { repositories, left_out = [] }) {
    const changed = repositories.filter((repository) => repository.files_changed > 0)
    for (const { dir, files_changed: files, insertions, deletions } of changed) {
      const counts = `${files} ${files === 1 ? 'file' : 'files'}, ${colors.green(`+${insertions}`)} ${colors.red(`-${deletions}`)}`
      out.line(`${colors.green('✔')} saved ${oneLine(dir)}: ${counts}`)
    }
    for (const what of left_out) out.line(colors.yellow(`! not saved: ${oneLine(what)}`))
  },
  event_invalid({ out, colors }, { original_type, reason }) {
    out.line(colors.dim(`(an event of type ${oneLine(original_type)} could not be kept: ${oneLine(reason)})`))
  },
  turn_outcome({ out, colors }, { outcome, message, late }) {
    if (late) out.line(colors.dim(`(late: ${oneLine(outcome)}${message ? `, ${oneLine(message)}` : ''})`))
  },
}

function draw(view: View, event: SessionEvent): void {
  const painter = painters[event.type] as ((view: View, data: unknown) => void) | undefined
  // A newer server may know more types than this program.
  painter?.(view, event.data)
}

function drawToolUpdate(view: View, update: SessionEventData['tool_call_update']): void {
  const { out, colors, streamed } = view
  const { toolCallId, status, content = [], rawOutput, duration_ms } = update
  for (const part of content) {
    if (part.type === 'diff') {
      out.line(`  ${colors.bold(oneLine(part.path))}`)
      const diff = plainText(diffLines(part).join('\n'))
      out.piece(`diff ${part.path}`, paintDiff(diff, colors), { prefix: '  ', paint: String })
    } else if (!streamed.has(toolCallId)) drawOutput(view, toolCallId, part.content.text)
  }
  if (status === 'in_progress') return
  const took = duration_ms === undefined ? '' : ` ${durationText(duration_ms)}`
  const exitCode = rawOutput?.exit_code
  const end = typeof exitCode === 'number' ? `exit code ${exitCode}` : status
  const hasFailed = status === 'failed' || (typeof exitCode === 'number' && exitCode !== 0)
  out.line(`  ${hasFailed ? colors.red(`✘ ${end}`) : colors.green(`✔ ${end}`)}${colors.dim(took)}`)
}

function drawOutput({ out, colors }: View, speaker: string, text: string): void {
  out.piece(`output ${speaker}`, plainText(text), { prefix: colors.dim('  │ '), paint: colors.dim })
}
