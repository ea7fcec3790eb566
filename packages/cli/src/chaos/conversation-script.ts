import type { StepKind, TurnPlan } from './plan.ts'

/**
 * What people say in a round, and how the model that plays the agent's mind reads it. Everything that it needs to know stands in the conversation
 * itself: so it goes on from any checkpoint by itself, and what was lost or came twice shows.
 */
export interface Saying {
  run: number
  turn: number
  /** Of a turn's own message. */
  steps?: StepKind[]
  /** Of what is said to a turn at work. */
  note?: number
}

export function turnText(run: number, turn: number, { steps }: TurnPlan): string {
  return `chaos ${JSON.stringify({ run, turn, steps } satisfies Saying)}`
}

export function noteText(run: number, turn: number, note: number): string {
  return `chaos ${JSON.stringify({ run, turn, note } satisfies Saying)}`
}

/** `t1` is a turn's message, `n1.0` the first thing said to it. */
export function idOf({ turn, note }: Saying): string {
  return note === undefined ? `t${turn}` : `n${turn}.${note}`
}

export function readSaying(text: string): Saying | undefined {
  const [, json] = /^chaos (\{.*\})\s*$/s.exec(text) ?? []
  try {
    return json === undefined ? undefined : (JSON.parse(json) as Saying)
  } catch {
    return undefined
  }
}

export interface ChatMessage {
  role: string
  content?: string | { type: string; text?: string }[] | null
  tool_calls?: { id: string; function: { name: string; arguments: string } }[]
  tool_call_id?: string
}

export type Answer = { text: string } | { text: string; call: { id: string; name: string; input: object } }

/** A call that was stopped again and again is left at that. */
const maxAttempts = 8

export function answerTo(messages: readonly ChatMessage[], command: (step: StepCall) => string): Answer {
  let turn: Saying | undefined
  let isDone = false
  /** By step: how often it was called, and whether a call of it has ended. */
  let steps = new Map<number, { calls: number; hasEnded: boolean }>()
  for (const message of messages) {
    if (message.role === 'user') {
      const saying = readSaying(textOf(message))
      if (saying?.steps) {
        turn = saying
        isDone = false
        steps = new Map()
      }
    } else if (message.role === 'assistant') {
      // An answer that was interrupted has no call either.
      if (turn && textOf(message).includes(lastWords(turn))) isDone = true
      for (const { id } of message.tool_calls ?? []) {
        const call = readCallId(id)
        if (!call || call.turn !== turn?.turn) continue
        const known = steps.get(call.step) ?? { calls: 0, hasEnded: false }
        steps.set(call.step, { ...known, calls: known.calls + 1 })
      }
    } else if (message.role === 'tool') {
      const call = readCallId(message.tool_call_id ?? '')
      const known = call && call.turn === turn?.turn ? steps.get(call.step) : undefined
      // What had become of it is unknown to the agent itself.
      if (call && known && !textOf(message).includes('was stopped')) steps.set(call.step, { ...known, hasEnded: true })
    }
  }
  if (!turn || isDone) return { text: 'Noted.' }
  const wanted = turn.steps ?? []
  const step = wanted.findIndex((_, index) => {
    const known = steps.get(index)
    return !known?.hasEnded && (known?.calls ?? 0) < maxAttempts
  })
  const kind = wanted[step]
  if (kind === undefined) return { text: lastWords(turn) }
  const attempt = steps.get(step)?.calls ?? 0
  const id = `call-${turn.turn}-${step}-${attempt}`
  const text = `Step ${step + 1} of ${wanted.length}: ${kind}.`
  if (kind === 'ask') return { text, call: { id, name: 'ask', input: { question: `Shall run ${turn.run} go on?` } } }
  const input = { command: command({ run: turn.run, turn: turn.turn, step, attempt, kind }) }
  const call = kind === 'background' ? { ...input, background: true } : input
  return { text, call: { id, name: 'run_command', input: call } }
}

function lastWords({ turn }: Saying): string {
  return `Turn ${turn} is done.`
}

export interface StepCall {
  run: number
  turn: number
  step: number
  attempt: number
  kind: StepKind
}

export function textOf({ content }: ChatMessage): string {
  if (typeof content === 'string') return content
  return (content ?? []).map(({ text }) => text ?? '').join('')
}

function readCallId(id: string): { turn: number; step: number } | undefined {
  const [, turn, step] = /^call-(\d+)-(\d+)-\d+$/.exec(id) ?? []
  return turn === undefined ? undefined : { turn: Number(turn), step: Number(step) }
}

/** What a person's message says; `undefined` for the agent's own notes. */
export function sayingsIn(messages: readonly ChatMessage[]): Saying[] {
  return messages.filter(({ role }) => role === 'user').flatMap((message) => readSaying(textOf(message)) ?? [])
}

/** Ids of calls that have a result, each as often as it has one. */
export function resultsIn(messages: readonly ChatMessage[]): string[] {
  return messages.flatMap(({ role, tool_call_id }) => (role === 'tool' && tool_call_id ? [tool_call_id] : []))
}
