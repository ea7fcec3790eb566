import type { RunEvent } from '@openoz/protocol'
import type { Ctx } from '../domain/context.ts'
import { numberAllRunEvents } from '../domain/run-events.ts'
import { listRunEvents, type RunEventScope, type RunEventViewer } from '../store/run-events.ts'
import { oneOf } from './run-tails.ts'

/**
 * The events over all runs, as their readers get them: a page at a time, or live as server-sent events. Every reader has a cursor of its own in
 * the database. Numbering is shared: however many readers are woken by one event, it is numbered once.
 */

const pageSize = 500
const pollMs = 3_000
/** Between two looks of one reader, so that busy teams do not cost a look per event. */
const restMs = 50

const encoder = new TextEncoder()

export interface RunEventWish {
  viewer: RunEventViewer
  scope: RunEventScope
  since: number
}

export class RunEventFeed {
  readonly #ctx: Pick<Ctx, 'db' | 'hints'>
  /** Something is sent at least this often, so that a reader knows a quiet stream from a dead one. */
  readonly #keepAliveMs: number
  #numbering: Promise<void> | undefined
  #next: Promise<void> | undefined

  constructor(ctx: Pick<Ctx, 'db' | 'hints'>, { keepAliveMs = 15_000 } = {}) {
    this.#ctx = ctx
    this.#keepAliveMs = keepAliveMs
  }

  /** Everything that was committed before the call, up to `limit`. */
  async page({ viewer, scope, since }: RunEventWish, limit: number): Promise<RunEvent[]> {
    await this.#number()
    return listRunEvents(this.#ctx.db, viewer, { scope, since, limit })
  }

  /** Live until the reader goes. */
  async *view(wish: RunEventWish, signal: AbortSignal): AsyncGenerator<Uint8Array> {
    let { since } = wish
    let change = Promise.withResolvers<void>()
    const unsubscribe = this.#ctx.hints.subscribe('run-events', () => change.resolve())
    let spokeAt = performance.now()
    try {
      yield encoder.encode(': connected\n\n')
      while (!signal.aborted) {
        // Taken before looking, so that a change in between is not slept through.
        change = Promise.withResolvers<void>()
        const events = await this.page({ ...wish, since }, pageSize)
        since = events.at(-1)?.sequence ?? since
        if (events.length > 0) {
          yield Buffer.concat(events.map(frame))
          spokeAt = performance.now()
          if (events.length === pageSize) continue
        } else if (performance.now() - spokeAt >= this.#keepAliveMs) {
          yield encoder.encode(': keep-alive\n\n')
          spokeAt = performance.now()
        }
        const quietMs = performance.now() - spokeAt
        const waitMs = Math.max(0, Math.min(pollMs, this.#keepAliveMs - quietMs))
        const woken = await oneOf(change.promise, waitMs, signal)
        if (woken === 'change') await oneOf(new Promise(() => {}), restMs, signal)
      }
    } finally {
      unsubscribe()
    }
  }

  /** One that is on its way may have looked already: whoever comes meanwhile shares the one after it. */
  #number(): Promise<void> {
    if (!this.#numbering) {
      this.#numbering = numberAllRunEvents(this.#ctx.db).finally(() => {
        this.#numbering = undefined
      })
      return this.#numbering
    }
    this.#next ??= this.#numbering
      .catch(() => {})
      .then(() => {
        this.#next = undefined
        return this.#number()
      })
    return this.#next
  }
}

function frame(event: RunEvent): Uint8Array {
  return encoder.encode(`id: ${event.sequence}\ndata: ${JSON.stringify(event)}\n\n`)
}
