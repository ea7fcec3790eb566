import { AppError } from '@openoz/protocol'
import type { LanguageModelUsage, ModelMessage } from 'ai'
import { notice } from '../event-sink.ts'
import { wholeCharacters } from '../live-output.ts'
import type { ToolContext } from '../tools/tool.ts'
import { type CallResult, runToolCall } from '../tools/tool-call.ts'
import { builtInTools } from '../tools/tools.ts'
import { turnFailure } from '../turn-failure.ts'
import { type Conversation, decodeCheckpoint, encodeCheckpoint, stoppedCall, toolMessage } from './conversation.ts'
import type { Harness, HarnessContext, HarnessSession, TurnResult } from './harness.ts'
import { type ReachableModel, reachModel } from './language-model.ts'
import type { StepAnswer } from './model-step.ts'
import { askModel } from './patient-model.ts'
import { systemPrompt } from './system-prompt.ts'

/**
 * The built-in harness. A turn is a loop of steps; a step is one answer of the model and the tools that it calls. The conversation changes
 * only at the end of a step, so every checkpoint is one that a model can be asked with, and an answer that fails on its way is asked for again as
 * if it had never begun. A step that is stopped in the middle of its tools ends there: it is remembered with what was done, and the calls that
 * were not are answered as stopped.
 */
export const ozHarness: Harness = {
  name: 'oz',
  async open(context) {
    const instructions = await systemPrompt({ ...context, now: new Date() })
    return new OzSession(context, { model: reachModel(context.model, context.gateway), instructions })
  },
}

/** For a run's `status_message`; the whole of it is in the log. */
const maxMessageCharacters = 4_000

class OzSession implements HarnessSession {
  readonly #context: HarnessContext
  readonly #model: ReachableModel
  readonly #instructions: string
  readonly #tools: ToolContext
  #conversation: Conversation
  #running: { stop: AbortController; ended: Promise<unknown> } | undefined

  constructor(context: HarnessContext, { model, instructions }: { model: ReachableModel; instructions: string }) {
    this.#context = context
    this.#model = model
    this.#instructions = instructions
    this.#tools = context
    this.#conversation = context.checkpoint
      ? decodeCheckpoint(context.checkpoint)
      : { turnId: context.turnId, turnSteps: 0, step: 0, isAnswered: false, messages: [] }
  }

  get isMidTurn(): boolean {
    return this.#conversation.messages.length > 0 && this.#conversation.turnId === this.#context.turnId
  }

  async prompt(text: string | undefined, signal: AbortSignal): Promise<TurnResult> {
    signal.throwIfAborted()
    const stop = new AbortController()
    const onAbort = () => stop.abort(signal.reason)
    signal.addEventListener('abort', onAbort, { once: true })
    const turn = this.#turn(text, stop.signal)
    this.#running = { stop, ended: turn.catch(() => {}) }
    try {
      return await turn
    } catch (error) {
      if (stop.signal.aborted) throw stop.signal.reason
      const failure = turnFailure(error)
      this.#context.log.warn({ code: failure.errorCode }, 'the turn failed')
      return failure
    } finally {
      this.#running = undefined
      signal.removeEventListener('abort', onAbort)
    }
  }

  async cancel(): Promise<void> {
    this.#running?.stop.abort(new Error('The prompt was cancelled.'))
    await this.#running?.ended
  }

  checkpoint() {
    const { messages } = this.#conversation
    if (messages.length === 0) return Promise.resolve(null)
    return Promise.resolve(encodeCheckpoint(this.#conversation))
  }

  close(): Promise<void> {
    return this.cancel()
  }

  async #turn(text: string | undefined, signal: AbortSignal): Promise<TurnResult> {
    this.#begin(text)
    const { max_steps } = this.#context.limits
    while (!this.#conversation.isAnswered) {
      if (this.#conversation.turnSteps >= max_steps) throw new AppError('turn_limit_reached', { limit: max_steps })
      await this.#step(signal)
      await this.#context.stepFinished()
    }
    return { outcome: 'SUCCEEDED', message: lastWords(this.#conversation.messages) }
  }

  #begin(text: string | undefined): void {
    const { turnId, notes } = this.#context
    const said =
      this.#conversation.isAnswered && text === undefined ? [] : [...notes, ...(text === undefined ? [] : [text])]
    if (said.length === 0) return
    const asked: ModelMessage = { role: 'user', content: said.join('\n\n') }
    const messages = [...this.#conversation.messages, asked]
    const turnSteps = text === undefined ? this.#conversation.turnSteps : 0
    this.#conversation = { ...this.#conversation, turnId, turnSteps, isAnswered: false, messages }
  }

  async #step(signal: AbortSignal): Promise<void> {
    const answer = await this.#ask(signal)
    const results: CallResult[] = []
    try {
      for (const call of answer.calls) {
        results.push(await runToolCall(builtInTools, call, { context: this.#tools, signal }))
      }
    } finally {
      const stopped = answer.calls.slice(results.length).map(stoppedCall)
      this.#remember(answer, [...results, ...stopped])
    }
  }

  #remember(answer: StepAnswer, results: CallResult[]): void {
    const { messages, step, turnSteps, turnId } = this.#conversation
    this.#conversation = {
      turnId,
      turnSteps: turnSteps + 1,
      step: step + 1,
      isAnswered: results.length === 0,
      messages: [...messages, ...answer.messages, ...(results.length > 0 ? [toolMessage(results)] : [])],
    }
  }

  /** An answer that says something. One that is empty is asked for once more: models do that, and mostly not twice. */
  async #ask(signal: AbortSignal): Promise<StepAnswer> {
    const { model, limits, sink } = this.#context
    for (let attempt = 0; ; attempt++) {
      const { messages } = this.#conversation
      const request = {
        model: this.#model,
        instructions: this.#instructions,
        messages,
        tools: builtInTools,
        limits,
        sink,
      }
      const answer = await askModel({ ...request, signal }, model.id)
      this.#reportUsage(answer.usage)
      const { finish } = answer
      if (finish === 'content-filter' && answer.calls.length === 0) {
        throw new AppError('model_content_refused', { modelId: model.id })
      }
      if (answer.calls.length > 0 || answer.text.trim() !== '') {
        if (finish === 'length') notice(sink, 'warning', 'The model’s answer was cut at its longest allowed length.')
        return answer
      }
      const reason =
        finish === 'length' ? 'it used all its tokens without saying anything' : `it ended with “${finish}”`
      if (attempt > 0) throw new AppError('model_answer_empty', { modelId: model.id, reason })
      notice(sink, 'warning', `The model answered nothing (${reason}); asking once more.`)
    }
  }

  #reportUsage({ inputTokens = 0, outputTokens = 0, totalTokens, inputTokenDetails }: LanguageModelUsage): void {
    this.#context.sink.emit({
      type: 'usage',
      data: {
        model: this.#context.model.id,
        input_tokens: inputTokens,
        output_tokens: outputTokens,
        cached_input_tokens: inputTokenDetails.cacheReadTokens,
        total_tokens: totalTokens ?? inputTokens + outputTokens,
      },
    })
  }
}

function lastWords(messages: readonly ModelMessage[]): string {
  const last = messages.findLast(({ role }) => role === 'assistant')?.content ?? ''
  const text =
    typeof last === 'string'
      ? last
      : last.map((part) => (typeof part === 'object' && part.type === 'text' ? part.text : '')).join('')
  return wholeCharacters(text.trim(), maxMessageCharacters)
}
