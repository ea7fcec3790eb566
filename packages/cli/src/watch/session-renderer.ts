import type { RunState, SessionEvent, SessionEventData, SessionEventType } from '@openoz/protocol'
import type { Colors } from '../output.ts'
import { oneLine, plainText } from '../plain-text.ts'
import { paintState } from '../state-colors.ts'
import { durationText } from '../time-text.ts'
import { diffLines, paintDiff } from './diff-text.ts'
import { createLineWriter, type LineStyle, type LineWriter } from './line-writer.ts'
import { modelWaitText } from './model-wait-text.ts'
import { createOutputFold, type FoldSize, foldText, type OutputFold } from './output-fold.ts'
import { createStepProgress, type StepProgress } from './step-progress.ts'

/** Shows a session log as it comes, for people. One entry per type of event: a new type does not compile until it is drawn here. */
export interface SessionRenderer {
  render(event: SessionEvent): void
  /** Shows what was held back of output that has not ended. */
  end(): void
  /** What the events said so far. */
  readonly summary: SessionSummary
}

export interface SessionSummary {
  state: RunState | undefined
  message: string | undefined
  /** The last thing that the agent said. */
  lastWords: string
}

interface View {
  out: LineWriter
  colors: Colors
  isFull: boolean
  /** Of the folder that the run works in, where it is one of this machine. */
  folderName: string | undefined
  summary: SessionSummary
  /** Output that is coming, by its speaker. */
  folds: Map<string, OutputFold>
  /** Calls whose output is shown while it comes. */
  streamed: Set<string>
  /** Names of the tools of calls that have not ended. */
  calls: Map<string, string>
  /** First lines of what was said to a turn at work, until it is delivered. */
  said: Map<string, string>
  /** What was said of steps that go on. */
  steps: StepProgress
  /** Message that `lastWords` belongs to. */
  messageId: string | undefined
}

/** What of long things is read while it scrolls by; the rest is in `--full`, in the transcript and in the blob. */
const folds = {
  output: { head: 12, tail: 8 },
  command: { head: 12, tail: 3 },
  message: { head: 40, tail: 5 },
} as const satisfies Record<string, FoldSize>

/** What they do has events of its own: the plan, and the question that the turn ends with. */
const shownOtherwise: ReadonlySet<string> = new Set(['todo', 'ask'])

/** What they answer is shown as the output of the command that they are about. */
const onCommands: ReadonlySet<string> = new Set(['read_command', 'write_to_command', 'stop_command'])

export function createSessionRenderer(
  write: (text: string) => void,
  { colors, isFull = false, folderName }: { colors: Colors; isFull?: boolean; folderName?: string },
): SessionRenderer {
  const summary: SessionSummary = { state: undefined, message: undefined, lastWords: '' }
  const view: View = {
    out: createLineWriter(write),
    colors,
    isFull,
    folderName,
    summary,
    folds: new Map(),
    streamed: new Set(),
    calls: new Map(),
    said: new Map(),
    steps: createStepProgress(),
    messageId: undefined,
  }
  return { render: (event) => draw(view, event), end: () => endOutputs(view), summary }
}

type Painters = { [T in SessionEventType]: (view: View, data: SessionEventData[T]) => void }

const painters: Painters = {
  run_state: drawState,
  setup_step(view, event) {
    const { step, status, title, detail, duration_ms } = event
    const { out, colors, steps } = view
    const name = oneLine(title ?? step.replaceAll('_', ' '))
    if (status === 'started') return
    if (status === 'progress') {
      const words = steps.next(event)
      const speaker = `step ${step}`
      if (words === undefined) return
      const text = out.isSpeaking(speaker) ? ` ${oneLine(words)}` : `${name} ${oneLine(words)}`
      return out.piece(speaker, text, { prefix: colors.dim('… '), paint: colors.dim })
    }
    steps.end(step)
    endOutput(view, step)
    const took = duration_ms === undefined ? '' : colors.dim(` ${durationText(duration_ms)}`)
    const mark = status === 'failed' ? colors.red('✘') : colors.green('✔')
    out.line(`${mark} ${name}${took}${detail ? colors.dim(` — ${oneLine(detail)}`) : ''}`)
  },
  user_message(view, { text, turn, message_id, author, mode }) {
    const { out, colors, said } = view
    if (message_id !== undefined && mode !== 'queue') said.set(message_id, firstLine(text))
    out.gap()
    whole(view, 'user', text, { size: folds.message, style: { prefix: `${colors.blue('▌')} `, paint: colors.bold } })
    const about = [author && oneLine(author), turn > 1 || mode !== undefined ? modeText(turn, mode) : undefined]
    const known = about.filter((part) => part !== undefined && part !== '')
    if (known.length > 0) out.line(colors.dim(`  — ${known.join(', ')}`))
    out.gap()
  },
  message_delivered({ out, colors, said }, { message_id }) {
    const text = said.get(message_id)
    said.delete(message_id)
    out.line(colors.blue(`↳ the agent has read ${text === undefined ? 'a message' : `“${text}”`}`))
  },
  model_wait({ out, colors }, wait) {
    out.line(colors.yellow(modelWaitText(wait)))
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
    out.piece(`thought ${messageId}`, plainText(content.text), { prefix: colors.dim('┊ '), paint: colors.italic })
  },
  answer_withdrawn(view, { message_ids }) {
    const { out, colors, summary } = view
    if (view.messageId !== undefined && message_ids.includes(view.messageId)) summary.lastWords = ''
    out.line(colors.dim('(answer cut off, asked again)'))
  },
  tool_call(view, { toolCallId, tool, title, kind, rawInput }) {
    const { out, colors, streamed, calls } = view
    calls.set(toolCallId, tool)
    if (shownOtherwise.has(tool)) return
    if (onCommands.has(tool)) streamed.add(toolCallId)
    out.gap()
    const command = typeof rawInput?.command === 'string' ? rawInput.command : undefined
    if (command === undefined || kind !== 'execute') out.line(`${colors.magenta('●')} ${oneLine(title)}`)
    else {
      const style = { prefix: `${colors.magenta('$')} `, paint: colors.bold }
      whole(view, 'command', command, { size: folds.command, style })
    }
  },
  tool_call_update: drawToolUpdate,
  plan({ out, colors }, { entries }) {
    const marks = { pending: '☐', in_progress: '▶', completed: '☑' } as const
    const done = entries.filter(({ status }) => status === 'completed').length
    out.gap()
    out.line(colors.bold(`Plan, ${done} of ${entries.length} done`))
    for (const { content, status } of entries) {
      const text = oneLine(content)
      out.line(`  ${colors.cyan(marks[status])} ${status === 'completed' ? colors.dim(text) : text}`)
    }
  },
  terminal_output(view, { toolCallId, step, text }) {
    if (toolCallId !== undefined) view.streamed.add(toolCallId)
    drawOutput(view, toolCallId ?? step ?? 'output', text)
  },
  usage() {
    // One per model request: their sum is shown at the end.
  },
  artifact({ out, colors }, { artifact_type, ...data }) {
    const facts = ['title', 'url', 'branch', 'path', 'filepath', 'description'].flatMap((name) => {
      const value = data[name]
      return typeof value === 'string' && value !== '' ? [oneLine(value)] : []
    })
    out.gap()
    out.line(
      `${colors.cyan('◆')} ${colors.bold(oneLine(artifact_type).replaceAll('_', ' '))} ${facts.join(' · ')}`.trim(),
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
  workspace_saved({ out, colors, folderName }, { repositories, left_out = [] }) {
    const changed = repositories.filter((repository) => repository.files_changed > 0)
    for (const { dir, url, files_changed: files, insertions, deletions } of changed) {
      const counts = `${files} ${files === 1 ? 'file' : 'files'}, ${colors.green(`+${insertions}`)} ${colors.red(`-${deletions}`)}`
      out.line(`${colors.green('✔')} saved ${savedName({ dir, url }, folderName)}: ${counts}`)
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

function drawState(view: View, { state, message, late }: SessionEventData['run_state']): void {
  const { out, colors, summary } = view
  if (late) return
  endOutputs(view)
  summary.state = state as RunState
  summary.message = message
  out.gap()
  const name = colors.bold(paintState(state, colors))
  if (state === 'BLOCKED' && message) {
    out.line(`${name}  The agent asks:`)
    out.piece('question', `${plainText(message).trimEnd()}\n`, { prefix: `${colors.yellow('?')} `, paint: colors.bold })
    return
  }
  // An outcome is often told in the agent's last words, which stand above it already.
  const isSaid = message !== undefined && oneLine(message) === oneLine(summary.lastWords)
  out.line(`${name}${message && !isSaid ? `  ${oneLine(message)}` : ''}`)
}

function drawToolUpdate(view: View, update: SessionEventData['tool_call_update']): void {
  const { out, colors, streamed, calls } = view
  const { toolCallId, status, content = [], duration_ms } = update
  const tool = calls.get(toolCallId) ?? ''
  if (shownOtherwise.has(tool) && status !== 'failed') return
  if (onCommands.has(tool)) endOutputs(view)
  else endOutput(view, toolCallId)
  for (const part of content) {
    if (part.type === 'diff') drawDiff(view, part)
    else if (!streamed.has(toolCallId) || (onCommands.has(tool) && status === 'failed')) {
      drawOutput(view, toolCallId, part.content.text)
      endOutput(view, toolCallId)
    }
  }
  if (status === 'in_progress') return
  calls.delete(toolCallId)
  const { text, hasFailed } = callEnd(tool, update)
  const took = duration_ms === undefined ? '' : ` ${durationText(duration_ms)}`
  out.line(`  ${hasFailed ? colors.red(`✘ ${text}`) : colors.green(`✔ ${text}`)}${colors.dim(took)}`)
}

function callEnd(tool: string, { status, cancelled, rawOutput }: SessionEventData['tool_call_update']) {
  const exitCode = rawOutput?.exit_code
  if (cancelled) return { text: 'stopped', hasFailed: true }
  if (status === 'failed') return { text: 'failed', hasFailed: true }
  // However a program takes the signal, being stopped is what it was asked for.
  if (tool === 'stop_command') return { text: 'stopped', hasFailed: false }
  if (typeof exitCode === 'number') return { text: `exit code ${exitCode}`, hasFailed: exitCode !== 0 }
  return { text: rawOutput?.status === 'running' ? 'runs on' : status, hasFailed: false }
}

function drawDiff(
  { out, colors, isFull }: View,
  change: { path: string; oldText: string | null; newText: string },
): void {
  out.line(`  ${colors.bold(oneLine(change.path))}`)
  const diff = plainText(diffLines(change, { isFull }).join('\n'))
  out.piece(`diff ${change.path}`, paintDiff(diff, colors), { prefix: '  ', paint: String })
}

function drawOutput(view: View, speaker: string, text: string): void {
  const plain = plainText(text)
  if (view.isFull) {
    view.out.piece(`output ${speaker}`, plain, outputStyle(view))
    return
  }
  const fold = view.folds.get(speaker) ?? createOutputFold(folds.output)
  view.folds.set(speaker, fold)
  view.out.piece(`output ${speaker}`, fold.push(plain), outputStyle(view))
}

function endOutput(view: View, speaker: string): void {
  const rest = view.folds.get(speaker)?.end()
  view.folds.delete(speaker)
  if (!rest) return
  if (rest.hidden > 0) view.out.line(view.colors.dim(`  ┆ ${hiddenText(rest.hidden)}`))
  view.out.piece(`output ${speaker}`, rest.tail, outputStyle(view))
}

function endOutputs(view: View): void {
  for (const speaker of [...view.folds.keys()]) endOutput(view, speaker)
}

function outputStyle({ colors }: View): LineStyle {
  return { prefix: colors.dim('  │ '), paint: colors.dim }
}

/** Text that is there at once. */
function whole(view: View, speaker: string, text: string, { size, style }: { size: FoldSize; style: LineStyle }): void {
  const plain = plainText(text)
  view.out.piece(speaker, view.isFull ? plain : foldText(plain, size, (hidden) => `… ${hiddenText(hidden)}`), style)
}

function hiddenText(lines: number): string {
  return `${lines.toLocaleString('en-US')} more ${lines === 1 ? 'line' : 'lines'} (--full shows all)`
}

function modeText(turn: number, mode: SessionEventData['user_message']['mode']): string {
  if (mode === 'steer') return `steering turn ${turn}`
  return mode === 'interrupt' ? `interrupting turn ${turn}` : `turn ${turn}`
}

function firstLine(text: string): string {
  const line = oneLine(text.trim().split('\n', 1)[0] ?? '')
  return line.length > 60 ? `${line.slice(0, 59)}…` : line
}

/** `.` is the folder that the run works in, such as a person's own checkout: it goes by its name, or its repository's. */
function savedName({ dir, url }: { dir: string; url?: string | null | undefined }, folderName?: string): string {
  if (dir !== '.') return oneLine(dir)
  const repository = url
    ?.replace(/(\.git)?\/*$/, '')
    .split(/[/:]/)
    .at(-1)
  return oneLine(folderName || repository || 'the working folder')
}
