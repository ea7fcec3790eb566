import type { TurnInput, TurnMessage } from '@openoz/protocol'
import { createToolState } from '../tools/tool-state.ts'
import { toolsFor } from '../tools/tools.ts'
import { turnFailure } from '../turn-failure.ts'
import { decodeCheckpoint, encodeCheckpoint } from './checkpoint.ts'
import { finishStep, newConversation } from './conversation.ts'
import type { Harness, HarnessSession, TurnResult } from './harness.ts'
import { reachModel } from './language-model.ts'
import { createMessageInbox } from './message-inbox.ts'
import { isStatusError } from './model-failure.ts'
import { OzTurn } from './oz-turn.ts'
import { fixedBytesOf, type SessionWork } from './session-work.ts'
import { systemPrompt } from './system-prompt.ts'

/** How long the end of a session waits for calls that were stopped before it. */
const stillStoppingMs = 6_000

/** The built-in harness: a conversation with a model, and the tools that it calls. `oz-turn.ts` says how a turn goes. */
export const ozHarness: Harness = {
  name: 'oz',
  async open(context) {
    const { model, limits, workspace, config } = context
    const kept = context.checkpoint ? decodeCheckpoint(context.checkpoint) : newConversation()
    const tools = toolsFor(context)
    const instructions = await systemPrompt({ config, workspace, tools, now: new Date() })
    return new OzSession({
      context,
      model: await reachModel(model, context),
      instructions,
      tools,
      toolContext: { ...context, state: createToolState() },
      inbox: createMessageInbox(),
      fixedBytes: fixedBytesOf(instructions, tools, limits),
      stillStopping: new Set(),
      // A step that an earlier execution could not finish ends here, with what it had done.
      conversation: finishStep(kept, { vision: model.vision === true }),
      notes: context.notes,
      learnedWindow: undefined,
      learnedRoom: undefined,
    })
  },
}

class OzSession implements HarnessSession {
  readonly #work: SessionWork
  #running: { turn: OzTurn; stop: AbortController; ended: Promise<unknown> } | undefined

  constructor(work: SessionWork) {
    this.#work = work
  }

  async prompt(input: TurnInput, signal: AbortSignal): Promise<TurnResult> {
    signal.throwIfAborted()
    const stop = new AbortController()
    const stopped = AbortSignal.any([signal, stop.signal])
    const turn = new OzTurn(this.#work, input, stopped)
    const working = turn.run()
    this.#running = { turn, stop, ended: working.catch(() => {}) }
    try {
      return await working
    } catch (error) {
      if (stopped.aborted) throw stopped.reason
      return { ...this.#failure(error), takenMessageIds: this.#work.conversation.takenMessageIds }
    } finally {
      this.#work.inbox.close()
      this.#running = undefined
    }
  }

  steer(message: TurnMessage): void {
    this.#work.inbox.put(message)
  }

  interrupt(message: TurnMessage): void {
    if (this.#work.inbox.put(message)) this.#running?.turn.interrupt()
  }

  async cancel(): Promise<void> {
    this.#running?.stop.abort(new Error('The prompt was cancelled.'))
    await this.#running?.ended
  }

  checkpoint() {
    const { conversation } = this.#work
    if (conversation.messages.length === 0 && !conversation.compacted) return Promise.resolve(null)
    return Promise.resolve(encodeCheckpoint(conversation))
  }

  async close(): Promise<void> {
    await this.cancel()
    const { toolContext, stillStopping } = this.#work
    let timer: NodeJS.Timeout | undefined
    const patienceEnded = new Promise((resolve) => {
      timer = setTimeout(resolve, stillStoppingMs)
    })
    await Promise.race([Promise.allSettled([toolContext.state.commands.endAll(), ...stillStopping]), patienceEnded])
    clearTimeout(timer)
  }

  #failure(error: unknown): TurnResult {
    const failure = turnFailure(error)
    const { log } = this.#work.context
    // What libraries throw may hold the prompt.
    const stack =
      failure.errorCode === 'internal_error' && error instanceof Error && !isStatusError(error)
        ? error.stack
        : undefined
    log.warn({ code: failure.errorCode, stack }, 'the turn failed')
    return failure
  }
}
