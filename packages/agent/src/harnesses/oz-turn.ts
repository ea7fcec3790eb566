import { AppError, type TurnInput } from '@openoz/protocol'
import { wholeCharacters } from '../live-output.ts'
import { beginTurn, type Conversation, finishStep, lastWords, say } from './conversation.ts'
import type { TurnResult } from './harness.ts'
import { callIds, takesInput, tidyAnswer } from './model-answer.ts'
import { type Said, type StepAnswer, saidNothing } from './model-step.ts'
import { nextAnswer } from './next-answer.ts'
import { createRepeatedCalls, type RepeatedCalls } from './repeated-calls.ts'
import { nestedRules } from './rules.ts'
import { keep, type SessionWork, takeMessages } from './session-work.ts'
import { runToolCalls } from './tool-calls.ts'

/** For a run's `status_message`; the whole of it is in the log. */
const maxMessageCharacters = 4_000
/** The longest time that a timer takes. */
const maxTimerMs = 2 ** 31 - 1

/**
 * One turn of the built-in harness: a loop of steps, until an answer has no calls, or a call asks a person. A step is one answer of the model and
 * the calls in it. What is done is kept at once (the answer when it is whole, each result as it comes), so nothing of it is done twice.
 *
 * People may speak meanwhile. What they say waits in the inbox and goes before the model with the next request; an answer that would end the turn
 * does not while something waits. An interruption stops the step that runs: text that was said stays said, calls that were stopped are answered so.
 *
 * Stops in three ways: `signal` (rejects with its reason, once tools have ended), the turn's limit of time (fails), an interruption (goes on).
 */
export class OzTurn {
  readonly #work: SessionWork
  readonly #signal: AbortSignal
  readonly #timeLimit = new AbortController()
  readonly #repeated: RepeatedCalls
  readonly #startedAt: number
  #interruption = new AbortController()

  constructor(work: SessionWork, { turn_id, message, messages }: TurnInput, signal: AbortSignal) {
    this.#work = work
    this.#repeated = createRepeatedCalls(work.tools)
    this.#signal = AbortSignal.any([signal, this.#timeLimit.signal])
    const isKnown = work.conversation.turnId === turn_id
    work.inbox.open(messages, isKnown ? work.conversation.takenMessageIds : [])
    if (!isKnown || !work.conversation.isAnswered) this.#tellNotes()
    if (!isKnown) work.conversation = beginTurn(work.conversation, turn_id, message)
    this.#startedAt = performance.now() - work.conversation.turnMs
  }

  async run(): Promise<TurnResult> {
    const { context } = this.#work
    const { max_turn_ms } = context.limits
    const leftMs = Math.min(Math.max(this.#startedAt + max_turn_ms - performance.now(), 0), maxTimerMs)
    const timer = setTimeout(() => {
      this.#timeLimit.abort(new AppError('turn_time_limit_reached', { seconds: Math.round(max_turn_ms / 1000) }))
    }, leftMs)
    try {
      for (;;) {
        takeMessages(this.#work)
        if (this.#conversation.isAnswered) return this.#end()
        this.#tellNotes()
        this.#requireRoom()
        await this.#step()
      }
    } finally {
      clearTimeout(timer)
    }
  }

  /** Stops what runs now, for a message that is in the inbox. */
  interrupt(): void {
    this.#interruption.abort(new Error('A person interrupted.'))
  }

  get #conversation(): Conversation {
    return this.#work.conversation
  }

  #tellNotes(): void {
    const { notes } = this.#work
    if (notes.length === 0) return
    this.#work.notes = []
    this.#work.conversation = say(this.#conversation, notes)
  }

  /** No message comes in from here on: what comes later becomes a turn of its own. */
  #end(): TurnResult {
    this.#work.inbox.close()
    const { question } = this.#conversation
    if (question !== undefined) return { outcome: 'BLOCKED', message: question }
    const message = wholeCharacters(lastWords(this.#conversation), maxMessageCharacters)
    return { outcome: 'SUCCEEDED', message }
  }

  #requireRoom(): void {
    const { max_steps, max_turn_output_tokens } = this.#work.context.limits
    const { turnSteps, turnOutputTokens } = this.#conversation
    if (turnSteps >= max_steps) throw new AppError('turn_limit_reached', { limit: max_steps })
    if (turnOutputTokens >= max_turn_output_tokens) {
      throw new AppError('turn_output_limit_reached', { limit: max_turn_output_tokens })
    }
    this.#signal.throwIfAborted()
  }

  async #step(): Promise<void> {
    this.#interruption = new AbortController()
    const interrupted = this.#interruption.signal
    const signal = AbortSignal.any([this.#signal, interrupted])
    const said: Said = saidNothing()
    try {
      const answer = await nextAnswer(this.#work, { signal, said })
      this.#begin(answer)
      said.text = ''
      await this.#runCalls(interrupted)
    } catch (error) {
      const isInterrupted = interrupted.aborted && !this.#signal.aborted
      const isRemembered = this.#rememberStopped(isInterrupted ? said.text : '')
      if (!isInterrupted) throw error
      if (isRemembered) await this.#work.context.stepFinished()
      return
    }
    await this.#finish()
  }

  /** The answer is whole: from here on it is part of the conversation. */
  #begin(answer: StepAnswer): void {
    const { messages } = this.#conversation
    const tidied = tidyAnswer(answer, { tools: this.#work.tools, usedIds: callIds(messages) })
    const { inputTokens, outputTokens = 0 } = answer.usage ?? {}
    const reported = inputTokens && {
      tokens: inputTokens + outputTokens,
      messages: messages.length + tidied.messages.length,
    }
    this.#work.conversation = {
      ...this.#conversation,
      ...(reported ? { reported } : {}),
      unfinished: { answer: tidied.messages, calls: tidied.calls, results: [] },
    }
    if (tidied.calls.length > 0) keep(this.#work)
  }

  async #runCalls(interrupted: AbortSignal): Promise<void> {
    const work = this.#work
    const { tools, toolContext, stillStopping } = work
    await runToolCalls(this.#conversation.unfinished?.calls ?? [], {
      tools,
      context: toolContext,
      signal: this.#signal,
      interrupted,
      stillStopping,
      onResult: (result) => {
        const { unfinished } = work.conversation
        // What was interrupted and ends later is answered already.
        if (!unfinished) return
        work.conversation = {
          ...work.conversation,
          unfinished: { ...unfinished, results: [...unfinished.results, result] },
        }
        keep(work)
      },
    })
  }

  async #finish(): Promise<void> {
    await this.#showRules()
    const { calls = [], results = [] } = this.#conversation.unfinished ?? {}
    this.#finishStep()
    keep(this.#work)
    await this.#work.context.stepFinished()
    const note = this.#repeated.add(calls, results)
    if (note !== undefined && !this.#conversation.isAnswered) this.#work.conversation = say(this.#conversation, [note])
  }

  /** The rules of folders that the calls led into, once, with the result of the call that did. */
  async #showRules(): Promise<void> {
    const { context, tools } = this.#work
    const { workspace } = context
    const calls = this.#conversation.unfinished?.calls ?? []
    for (const { id, input } of calls.filter((call) => takesInput(tools, call))) {
      const { rulesShown: shown } = this.#conversation
      const rules = await nestedRules(input, { workspace, shown, signal: this.#signal })
      const { unfinished, rulesShown } = this.#conversation
      if (!rules || !unfinished) continue
      const results = unfinished.results.map((result) =>
        result.id === id ? { ...result, result: { ...result.result, project_rules: rules.text } } : result,
      )
      this.#work.conversation = {
        ...this.#conversation,
        rulesShown: [...rulesShown, ...rules.files],
        unfinished: { ...unfinished, results },
      }
    }
  }

  #finishStep(): void {
    const turnMs = Math.round(performance.now() - this.#startedAt)
    const vision = this.#work.context.model.vision === true
    this.#work.conversation = finishStep({ ...this.#conversation, turnMs }, { vision })
  }

  /** A step that was stopped on its way: what was done of it was done. */
  #rememberStopped(text: string): boolean {
    if (text.trim() !== '' && !this.#conversation.unfinished) {
      const answer = [{ role: 'assistant' as const, content: text }]
      this.#work.conversation = { ...this.#conversation, unfinished: { answer, calls: [], results: [] } }
    }
    if (!this.#conversation.unfinished) return false
    this.#finishStep()
    // Nobody has answered anything: the turn is still to be gone on with.
    const { question: _asked, ...rest } = this.#conversation
    this.#work.conversation = { ...rest, isAnswered: false }
    keep(this.#work)
    return true
  }
}
