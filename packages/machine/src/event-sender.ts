import { maxBatchEvents, type NumberedEvent } from '@openoz/protocol'
import type { Logger } from 'pino'
import { fullJitterMs, sleep } from './backoff.ts'
import { bootClockMs } from './boot-clock.ts'
import type { EventPost } from './event-post.ts'
import { judgeSendFailure } from './send-failure.ts'
import { invalidEvent, type Spool } from './spool.ts'

/**
 * Brings the spool's events to the control plane: in order, without holes, again and again until each is acknowledged. Used by the agent
 * (whose acknowledged batches, empty ones too, are what keeps its lease) and by the worker for the spool that a dead agent left.
 *
 * One batch is under way at a time; what happens meanwhile is the next batch. A batch that would follow another within `lingerMs` waits for
 * company. The other side's word is what counts: the next batch begins after its `acked_n` (or at its `resend_from`), even where that
 * lies before what it had acknowledged earlier, as after a restore from a backup; numbers whose events are gone here are filled
 * with `event_invalid`, because a hole would stop everything after it.
 *
 * It ends when it is stopped, or when the control plane refuses for good (see `send-failure.ts`); never by itself.
 */
export interface EventSenderOptions {
  spool: Spool
  post: EventPost
  log: Pick<Logger, 'debug' | 'info' | 'warn' | 'error'>
  /** Stops the sender like `stop()`. */
  signal?: AbortSignal
  /** An empty batch after this much silence; `Infinity` for none. The server tells the agent which (`limits.renew_every_ms`). */
  renewEveryMs?: number
  lingerMs?: number
  /** When that was sent by whose answer the lease began, on `bootClockMs`. Default: now. */
  acknowledgedSendAt?: number
  maxEvents?: number
  /** Smaller than what the server takes: on a slow line a batch should not block what is urgent. A larger event goes alone. */
  maxBytes?: number
  postTimeoutMs?: number
  /** Between retries. */
  backoff?: { baseMs: number; maxMs: number }
  /** The execution is over (told once). Sending goes on: what is left is still taken as evidence. */
  onSuperseded?: () => void
}

export type SenderEnd =
  | { kind: 'stopped' }
  /** `code` is the problem's, e.g. `execution_superseded` (410) or `execution_token_ended` (401). */
  | { kind: 'refused'; code: string; status: number; message: string }

export interface EventSender extends AsyncDisposable {
  /** Never rejects. */
  readonly ended: Promise<SenderEnd>
  /**
   * When the last acknowledged batch was *sent*, on `bootClockMs`; at first `acknowledgedSendAt`. The server counts the lease from
   * receiving it, which is later: whoever stops by this clock stops before the lease is lost.
   */
  readonly lastAcknowledgedSendAt: number
  /** Sends an empty batch now if nothing is waiting. */
  renew(): void
  /**
   * Resolves with true once everything that is in the spool now is acknowledged, with false when the sender ended before. Rejects with the
   * signal's reason.
   */
  flushed(signal?: AbortSignal): Promise<boolean>
  /** Resolves when the batch under way is given up. Safe to call twice. */
  stop(): Promise<void>
}

export function startEventSender(options: EventSenderOptions): EventSender {
  const state: SenderState = {
    stop: new AbortController(),
    cursor: options.spool.ackedN,
    lastSendAt: performance.now(),
    lastAcknowledgedSendAt: options.acknowledgedSendAt ?? bootClockMs(),
    wake: () => {},
    failures: 0,
    maxEvents: Math.min(options.maxEvents ?? maxBatchEvents, maxBatchEvents),
    tooLargeN: undefined,
    isSuperseded: false,
  }
  const onAbort = () => state.stop.abort()
  options.signal?.addEventListener('abort', onAbort, { once: true })
  if (options.signal?.aborted) onAbort()
  const ended = sendLoop(options, state).finally(() => {
    options.signal?.removeEventListener('abort', onAbort)
    state.stop.abort()
  })

  const stop = async () => {
    state.stop.abort()
    await ended
  }
  return {
    ended,
    get lastAcknowledgedSendAt() {
      return state.lastAcknowledgedSendAt
    },
    renew: () => state.wake(),
    async flushed(signal) {
      const { spool } = options
      const target = spool.lastN
      if (spool.ackedN >= target) return true
      const either = signal ? AbortSignal.any([signal, state.stop.signal]) : state.stop.signal
      try {
        await spool.waitForAcknowledged(target, either)
        return true
      } catch (error) {
        if (!signal?.aborted && (state.stop.signal.aborted || spool.isClosed)) return false
        throw error
      }
    },
    stop,
    [Symbol.asyncDispose]: stop,
  }
}

/** Sends all that a dead agent left, with the same patience. `stopped` means that the signal was aborted. */
export async function drainSpool(options: EventSenderOptions): Promise<{ kind: 'drained' } | SenderEnd> {
  await using sender = startEventSender({ ...options, renewEveryMs: Number.POSITIVE_INFINITY })
  return (await sender.flushed()) ? { kind: 'drained' } : sender.ended
}

interface SenderState {
  stop: AbortController
  /** What the other side has, by its last word. */
  cursor: number
  lastSendAt: number
  lastAcknowledgedSendAt: number
  wake: () => void
  failures: number
  /** Shrinks when something on the way refuses large batches. */
  maxEvents: number
  /** An event that was refused as too large on its own. */
  tooLargeN: number | undefined
  isSuperseded: boolean
}

async function sendLoop(options: EventSenderOptions, state: SenderState): Promise<SenderEnd> {
  const { spool, log, backoff = { baseMs: 250, maxMs: 5_000 } } = options
  const { signal } = state.stop
  while (!signal.aborted && !spool.isClosed) {
    try {
      await waitForWork(options, state)
      if (signal.aborted || spool.isClosed) break
      await sendBatch(options, state)
      if (state.failures > 0) log.info({ failures: state.failures }, 'the control plane takes events again')
      state.failures = 0
    } catch (error) {
      if (signal.aborted || spool.isClosed) break
      const decision = judgeSendFailure(error)
      if (decision.action === 'refused') {
        const { code, status, message } = decision
        log.warn({ code, status }, 'the control plane refuses the events of this execution')
        return { kind: 'refused', code, status, message }
      }
      if (decision.action === 'shrink') shrink(options, state)
      const isBug = decision.action === 'retry' && decision.isBug
      const level = isBug ? 'error' : state.failures === 0 ? 'warn' : 'debug'
      log[level]({ problem: decision.problem, failures: state.failures }, 'events were not acknowledged; trying again')
      const afterMs = decision.action === 'retry' ? decision.afterMs : 0
      await sleep(afterMs + fullJitterMs(state.failures++, backoff), signal)
    }
  }
  return { kind: 'stopped' }
}

/** Returns when there is something to send, a renewal is due, or the sender was woken. */
async function waitForWork(options: EventSenderOptions, state: SenderState): Promise<void> {
  const { spool, renewEveryMs = 5_000, lingerMs = 20 } = options
  if (spool.lastN <= state.cursor) {
    const silentMs = performance.now() - state.lastSendAt
    const due = new AbortController()
    const isTimed = Number.isFinite(renewEveryMs)
    const timer = isTimed ? setTimeout(() => due.abort(), Math.max(renewEveryMs - silentMs, 0)) : undefined
    state.wake = () => due.abort()
    state.stop.signal.addEventListener('abort', state.wake, { once: true })
    try {
      await spool.waitForEvents(state.cursor, due.signal)
    } catch (error) {
      if (!due.signal.aborted) throw error
    } finally {
      clearTimeout(timer)
      state.stop.signal.removeEventListener('abort', state.wake)
      state.wake = () => {}
    }
  }
  const lingeringMs = state.lastSendAt + lingerMs - performance.now()
  const isFull = spool.lastN - state.cursor >= state.maxEvents
  if (spool.lastN > state.cursor && !isFull && lingeringMs > 0) await sleep(lingeringMs, state.stop.signal)
}

async function sendBatch(options: EventSenderOptions, state: SenderState): Promise<void> {
  const { spool, post, postTimeoutMs = 15_000, onSuperseded } = options
  const events = nextEvents(options, state)
  state.lastSendAt = performance.now()
  const sentAt = bootClockMs()
  const answer = await withDeadline(state.stop.signal, postTimeoutMs, (signal) => post({ events }, signal))

  state.lastAcknowledgedSendAt = sentAt
  const before = state.cursor
  state.cursor = answer.resend_from === undefined ? answer.acked_n : answer.resend_from - 1
  spool.acknowledge(answer.acked_n)
  if (answer.superseded && !state.isSuperseded) {
    state.isSuperseded = true
    onSuperseded?.()
  }
  // An answer that moves nothing must not be asked for again at once.
  if (events.length > 0 && state.cursor === before) await sleep(fullJitterMs(state.failures + 3), state.stop.signal)
}

/** What follows the cursor, with stand-ins for events that are gone or cannot pass. */
function nextEvents({ spool, maxBytes = 512 * 1024 }: EventSenderOptions, state: SenderState): NumberedEvent[] {
  const { cursor, maxEvents, tooLargeN } = state
  const present = spool.pending(cursor, { maxEvents, maxBytes })
  const firstPresent = present[0]?.n ?? spool.lastN + 1
  const gone: NumberedEvent[] = []
  for (let n = cursor + 1; n < firstPresent && gone.length < maxEvents; n++) {
    gone.push(invalidEvent(n, 'It was acknowledged before, and is not kept any more.'))
  }
  const events = [...gone, ...present].slice(0, maxEvents)
  return events.map((event) =>
    event.n === tooLargeN
      ? invalidEvent(event.n, 'Something between agent and control plane refuses its size.')
      : event,
  )
}

/** Half as many next time; an event that cannot pass even alone is replaced. */
function shrink({ spool }: EventSenderOptions, state: SenderState): void {
  if (state.maxEvents > 1) state.maxEvents = Math.floor(state.maxEvents / 2)
  else if (spool.lastN > state.cursor) state.tooLargeN = state.cursor + 1
}

/** `AbortSignal.any` with a timeout would stay registered at the long-lived signal until it is collected. */
async function withDeadline<T>(signal: AbortSignal, ms: number, run: (signal: AbortSignal) => Promise<T>): Promise<T> {
  const controller = new AbortController()
  const onAbort = () => controller.abort(signal.reason)
  signal.addEventListener('abort', onAbort, { once: true })
  const timer = setTimeout(() => controller.abort(new DOMException('no answer in time', 'TimeoutError')), ms)
  try {
    return await run(controller.signal)
  } finally {
    clearTimeout(timer)
    signal.removeEventListener('abort', onAbort)
  }
}
