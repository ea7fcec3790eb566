import { type AgentCommand, isLive } from '@openoz/protocol'
import { v7 as uuidv7 } from 'uuid'
import type { Ctx } from '../domain/context.ts'
import { listExecutionsWithNews, listOpenCommands } from '../store/commands.ts'
import { findExecution } from '../store/executions.ts'
import { oneOf } from './run-tails.ts'

/**
 * The inboxes of executions as server-sent events. A stream looks into its own inbox when it begins and when a hint says that there is something.
 * Hints may be lost, so every five seconds there is one look for all open streams, which wakes those that it finds something for: a thousand agents
 * at rest cost one query, and not a thousand.
 */

const pollMs = 5_000
const keepAliveMs = 15_000
const encoder = new TextEncoder()

export class CommandStreams {
  readonly #ctx: Ctx
  readonly #pollMs: number
  /** What wakes the streams of an execution; an agent that reconnects may have two for a moment. */
  readonly #open = new Map<string, Set<() => void>>()
  #timer: NodeJS.Timeout | undefined
  #isLooking = false

  constructor(ctx: Ctx, options: { pollMs: number } = { pollMs }) {
    this.#ctx = ctx
    this.#pollMs = options.pollMs
  }

  /**
   * Everything that is not acknowledged, then what comes. An agent that reconnects gets what it had not acknowledged again and knows it by its id.
   * Ends with `stop` when the execution is over.
   */
  async *view(executionId: string, signal: AbortSignal): AsyncGenerator<Uint8Array> {
    const { db, hints } = this.#ctx
    const sent = new Set<string>()
    let change = Promise.withResolvers<void>()
    const wake = () => change.resolve()
    const unsubscribe = hints.subscribe(`commands ${executionId}`, wake)
    this.#add(executionId, wake)
    try {
      yield encoder.encode(': connected\n\n')
      while (!signal.aborted) {
        // Taken before looking, so that a change in between is not slept through.
        change = Promise.withResolvers<void>()
        const fresh = (await listOpenCommands(db, executionId)).filter((command) => !sent.has(command.id))
        for (const command of fresh) {
          sent.add(command.id)
          yield frame(command)
        }
        const execution = await findExecution(db, executionId)
        if (!execution || !isLive(execution.state)) {
          yield frame({ id: uuidv7(), type: 'stop', payload: { reason: 'This execution is over.' } })
          return
        }
        while ((await oneOf(change.promise, keepAliveMs, signal)) === 'timeout')
          yield encoder.encode(': keep-alive\n\n')
      }
    } finally {
      unsubscribe()
      this.#remove(executionId, wake)
    }
  }

  #add(executionId: string, wake: () => void): void {
    this.#open.set(executionId, (this.#open.get(executionId) ?? new Set()).add(wake))
    this.#timer ??= setInterval(() => this.#look(), this.#pollMs)
  }

  #remove(executionId: string, wake: () => void): void {
    const wakes = this.#open.get(executionId)
    wakes?.delete(wake)
    if (wakes?.size === 0) this.#open.delete(executionId)
    if (this.#open.size > 0) return
    clearInterval(this.#timer)
    this.#timer = undefined
  }

  async #look(): Promise<void> {
    if (this.#isLooking) return
    this.#isLooking = true
    try {
      for (const executionId of await listExecutionsWithNews(this.#ctx.db, [...this.#open.keys()]))
        for (const wake of this.#open.get(executionId) ?? []) wake()
    } catch (error) {
      // Without the database nobody has anything to say; the next look comes by itself.
      this.#ctx.log.debug({ error: (error as Error).message }, 'could not look for commands')
    } finally {
      this.#isLooking = false
    }
  }
}

function frame(command: AgentCommand): Uint8Array {
  return encoder.encode(`id: ${command.id}\nevent: ${command.type}\ndata: ${JSON.stringify(command)}\n\n`)
}
