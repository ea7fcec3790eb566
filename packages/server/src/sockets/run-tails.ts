import { isTerminal } from '@openoz/protocol'
import type { Ctx } from '../domain/context.ts'
import { hasLiveExecution } from '../store/executions.ts'
import { findRun } from '../store/runs.ts'
import { findLastSeq, listEvents, maxPageBytes } from '../store/session-log.ts'

/**
 * One tail per run that somebody watches: it reads new events once and all its viewers send the same bytes. A viewer that is further behind than
 * the tail remembers reads pages from the database until it has caught up. So from any `seq` there is no gap and no duplicate: what a viewer gets
 * next is decided by its own cursor alone.
 */

interface Frame {
  seq: number
  bytes: Uint8Array
}

/** Enough for a viewer to fall a few seconds behind a busy run. */
const rememberedFrames = 1_000
const rememberedBytes = maxPageBytes
const pageSize = 500
const pollMs = 3_000
const keepAliveMs = 15_000

const encoder = new TextEncoder()
const keepAlive = encoder.encode(': keep-alive\n\n')

export class RunTails {
  readonly #ctx: Ctx
  readonly #tails = new Map<string, Tail>()

  constructor(ctx: Ctx) {
    this.#ctx = ctx
  }

  /** Server-sent events after `since`, live until the run is over or the reader goes. */
  async *view(runId: string, since: number, signal: AbortSignal): AsyncGenerator<Uint8Array> {
    const tail = this.#acquire(runId)
    let cursor = since
    try {
      while (!signal.aborted) {
        // Taken before looking, so that a change in between is not slept through.
        const change = tail.nextChange()
        const frames = await tail.after(cursor)
        const last = frames.at(-1)
        if (last) {
          yield Buffer.concat(frames.map((frame) => frame.bytes))
          cursor = last.seq
          continue
        }
        if (tail.isComplete && cursor >= tail.lastSeq) {
          yield encoder.encode(`event: end\ndata: ${JSON.stringify({ last_seq: cursor })}\n\n`)
          return
        }
        if ((await oneOf(change, keepAliveMs, signal)) === 'timeout') yield keepAlive
      }
    } finally {
      this.#release(runId, tail)
    }
  }

  #acquire(runId: string): Tail {
    let tail = this.#tails.get(runId)
    if (!tail) {
      tail = new Tail(this.#ctx, runId)
      this.#tails.set(runId, tail)
    }
    tail.viewers++
    return tail
  }

  #release(runId: string, tail: Tail): void {
    if (--tail.viewers > 0) return
    tail.stop()
    this.#tails.delete(runId)
  }
}

class Tail {
  viewers = 0
  isComplete = false
  lastSeq = 0
  readonly #ctx: Ctx
  readonly #runId: string
  #frames: Frame[] = []
  #hasStarted = false
  #change = Promise.withResolvers<void>()
  #refreshing: Promise<void> | undefined
  #wantsAnother = false
  readonly #unsubscribe: () => void
  readonly #timer: NodeJS.Timeout

  constructor(ctx: Ctx, runId: string) {
    this.#ctx = ctx
    this.#runId = runId
    this.#unsubscribe = ctx.hints.subscribe(`run ${runId}`, () => this.#refresh())
    this.#timer = setInterval(() => this.#refresh(), pollMs)
    this.#refresh()
  }

  nextChange(): Promise<void> {
    return this.#change.promise
  }

  /** Frames after the cursor: from memory if it reaches back that far, else a page from the database. */
  async after(cursor: number): Promise<Frame[]> {
    if (!this.#hasStarted) await this.#refreshing
    const first = this.#frames[0]?.seq ?? this.lastSeq + 1
    if (cursor >= first - 1) return this.#frames.slice(Math.max(0, cursor - first + 1))
    return (await listEvents(this.#ctx.db, this.#runId, cursor, pageSize)).map(toFrame)
  }

  stop(): void {
    this.#unsubscribe()
    clearInterval(this.#timer)
  }

  #refresh(): void {
    if (this.#refreshing !== undefined) {
      this.#wantsAnother = true
      return
    }
    this.#refreshing = this.#read()
      .catch((error: Error) => this.#ctx.log.warn({ error: error.message, runId: this.#runId }, 'tail could not read'))
      .finally(() => {
        this.#refreshing = undefined
        if (!this.#wantsAnother) return
        this.#wantsAnother = false
        this.#refresh()
      })
  }

  /** Keeps the newest that fit: none, when the last one is too large alone. */
  #remember(page: Frame[]): void {
    const frames = [...this.#frames, ...page].slice(-rememberedFrames)
    let bytes = bytesOf(frames)
    const first = frames.findIndex((frame) => {
      if (bytes <= rememberedBytes) return true
      bytes -= frame.bytes.byteLength
      return false
    })
    this.#frames = first < 0 ? [] : frames.slice(first)
  }

  async #read(): Promise<void> {
    const { db } = this.#ctx
    if (!this.#hasStarted) {
      // Again from the beginning if an earlier try got only half of it.
      this.#frames = []
      // The last page only; older events are read by whoever wants them.
      this.lastSeq = Math.max(0, (await findLastSeq(db, this.#runId)) - pageSize)
    }
    // Completion is read before the events: what was appended before the end is then certainly among them.
    const run = await findRun(db, this.#runId)
    const isComplete = !run || (isTerminal(run.state) && !(await hasLiveExecution(db, this.#runId)))
    let changed = isComplete !== this.isComplete || !this.#hasStarted
    for (;;) {
      const events = await listEvents(db, this.#runId, this.lastSeq, pageSize)
      if (events.length === 0) break
      const page = events.map(toFrame)
      this.#remember(page)
      this.lastSeq = events.at(-1)?.seq ?? this.lastSeq
      changed = true
      if (events.length < pageSize && bytesOf(page) < maxPageBytes) break
    }
    this.isComplete = isComplete
    this.#hasStarted = true
    if (!changed) return
    const { resolve } = this.#change
    this.#change = Promise.withResolvers<void>()
    resolve()
  }
}

function bytesOf(frames: Frame[]): number {
  return frames.reduce((bytes, frame) => bytes + frame.bytes.byteLength, 0)
}

function toFrame(event: { seq: number; type: string; json: string }): Frame {
  return { seq: event.seq, bytes: encoder.encode(`id: ${event.seq}\nevent: ${event.type}\ndata: ${event.json}\n\n`) }
}

/** What came first: the change, the time, or the reader's end. Leaves no timer behind. */
export async function oneOf(
  change: Promise<void>,
  timeoutMs: number,
  signal: AbortSignal,
): Promise<'change' | 'timeout' | 'aborted'> {
  const { promise, resolve } = Promise.withResolvers<'change' | 'timeout' | 'aborted'>()
  const timer = setTimeout(() => resolve('timeout'), timeoutMs)
  const onAbort = () => resolve('aborted')
  signal.addEventListener('abort', onAbort, { once: true })
  if (signal.aborted) resolve('aborted')
  change.then(
    () => resolve('change'),
    () => resolve('change'),
  )
  const first = await promise
  clearTimeout(timer)
  signal.removeEventListener('abort', onAbort)
  return first
}
