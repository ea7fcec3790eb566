import { realpath } from 'node:fs/promises'
import type { TurnInput, TurnMessage } from '@openoz/protocol'
import { firstEnd } from '../child-end.ts'
import { createToolState } from '../tools/tool-state.ts'
import { builtInTools, toolsFor } from '../tools/tools.ts'
import { turnFailure } from '../turn-failure.ts'
import { decodeCheckpoint, encodeCheckpoint } from './checkpoint.ts'
import { beginTurn, type Conversation, finishStep, newConversation } from './conversation.ts'
import { closeGraceMs, type Harness, type HarnessSession, type RememberContext, type TurnResult } from './harness.ts'
import { reachModel } from './language-model.ts'
import { createMessageInbox } from './message-inbox.ts'
import { isStatusError } from './model-failure.ts'
import { OzTurn } from './oz-turn.ts'
import { checkpointOf, fixedBytesOf, type SessionWork } from './session-work.ts'
import { systemPrompt } from './system-prompt.ts'
import { cutCalls } from './tool-calls.ts'

/** How long the end of a session waits for calls that were stopped before it: what comes after that must have its time too. */
const stillStoppingMs = closeGraceMs - 1_000

/** The built-in harness: a conversation with a model, and the tools that it calls. `oz-turn.ts` says how a turn goes. */
export const ozHarness: Harness = {
  name: 'oz',
  async open(context) {
    const { model, limits, workspace, config, mode } = context
    const conversation = takeUp(context)
    const tools = toolsFor(context)
    const state = createToolState({ root: await realpath(workspace.folder), filesSeen: conversation.filesSeen })
    const instructions = await systemPrompt({ config, mode, workspace, tools, now: new Date() })
    return new OzSession({
      context,
      model: await reachModel(model, context),
      instructions,
      tools,
      toolContext: { ...context, state },
      inbox: createMessageInbox(),
      fixedBytes: fixedBytesOf(instructions, tools, limits),
      stillStopping: new Set(),
      conversation,
      notes: context.notes,
      learnedWindow: undefined,
      learnedRoom: undefined,
    })
  },
  remember({ turn_id, message }, context) {
    const conversation = takeUp(context)
    return conversation.turnId === turn_id ? undefined : encodeCheckpoint(beginTurn(conversation, turn_id, message))
  },
}

/** A step that an earlier execution could not finish ends here, with what it had done: for the model, and for those who look on. */
function takeUp({ checkpoint, model, sink }: RememberContext): Conversation {
  const kept = checkpoint ? decodeCheckpoint(checkpoint) : newConversation()
  const { calls = [], results = [] } = kept.unfinished ?? {}
  for (const { id } of cutCalls(calls, results, builtInTools)) {
    const error = 'Interrupted: the process of the agent ended before this call did.'
    const content = [{ type: 'content' as const, content: { type: 'text' as const, text: error } }]
    sink.emit({
      type: 'tool_call_update',
      data: { toolCallId: id, status: 'failed', content, rawOutput: { error } },
    })
  }
  return finishStep(kept, { vision: model?.vision === true })
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
      return this.#failure(error)
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
    return Promise.resolve(checkpointOf(this.#work))
  }

  async endBackground(): Promise<void> {
    await this.#work.toolContext.state.commands.endKept()
  }

  async close(): Promise<void> {
    await this.cancel()
    const { toolContext, stillStopping } = this.#work
    const ended = Promise.allSettled([toolContext.state.commands.endAll(), ...stillStopping])
    await firstEnd(ended, { timeoutMs: stillStoppingMs })
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
