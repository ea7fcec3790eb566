import { type Dialer, fullJitterMs, sleep } from '@openoz/machine'
import { ApiError, AppError, isTerminal, type RunState, type SessionEvent } from '@openoz/protocol'

/**
 * The session log of a run, from an event on and then live, over server-sent events. When the stream breaks it is opened again behind the
 * last event that was yielded (`Last-Event-ID`), for as long as the signal allows: no event is missed and none comes twice.
 *
 * It ends
 * - when the server says so (the run is over and no execution of it is live), or
 * - when the run rests, nothing came for `restMs`, and `isAtRest` says that nothing will: an agent that only waits for a follow-up keeps its
 *   stream open for minutes. A turn that waits in the queue begins in the moment in which the one before it ends, so a run that has more to
 *   do is never seen at rest.
 */
export interface FollowOptions {
  dialer: Dialer
  apiKey: string
  runId: string
  /** Begin after this event. */
  since?: number
  signal?: AbortSignal
  /** Called once per break, before waiting. */
  onBreak?: (error: unknown) => void
  /** Whether the run rests now and the event with this `seq` is its last one. Absent: it is followed to the end of the stream. */
  isAtRest?: (lastSeq: number) => Promise<boolean>
  restMs?: number
}

/** What follows an outcome (processes ended, the last steps) mostly follows within this; the workspace was saved before it. */
const defaultRestMs = 500

export async function* followSession(options: FollowOptions): AsyncGenerator<SessionEvent, void, undefined> {
  const { signal, onBreak, isAtRest, restMs = defaultRestMs } = options
  // What state the events before `since` left it in is not known: it is asked for.
  const position: Position = { seq: options.since ?? 0, mayRest: true }
  let failures = 0
  for (;;) {
    signal?.throwIfAborted()
    const rest = createRestTimer(restMs, async () => {
      if (!isAtRest || !position.mayRest) return false
      const { seq } = position
      return (await isAtRest(seq)) && position.seq === seq
    })
    try {
      rest.restart()
      for await (const event of openStream(options, { position, signal: rest.signal })) {
        failures = 0
        yield event
        if (position.mayRest) rest.restart()
        else rest.stop()
      }
      return
    } catch (error) {
      if (rest.isOver()) return
      if (signal?.aborted || !isWorthRetrying(error)) throw error
      onBreak?.(error)
      await sleep(fullJitterMs(failures, { baseMs: 250, maxMs: 5_000 }), signal)
      failures++
    } finally {
      rest.stop()
    }
  }
}

interface Position {
  seq: number
  /** The last state that was seen is one of rest, or none was. */
  mayRest: boolean
}

/** One connection: ends when the server ends the log, throws when the connection breaks. */
async function* openStream(
  { dialer, apiKey, runId, signal }: FollowOptions,
  { position, signal: restSignal }: { position: Position; signal: AbortSignal },
): AsyncGenerator<SessionEvent, void, undefined> {
  const path = `/api/v1/agent/runs/${encodeURIComponent(runId)}/events/stream?since=${position.seq}`
  const stream = dialer.eventStream(path, {
    headers: { authorization: `Bearer ${apiKey}` },
    lastEventId: String(position.seq),
    signal: signal ? AbortSignal.any([signal, restSignal]) : restSignal,
  })
  for await (const { event, data } of stream) {
    if (event === 'end') return
    const item = parseEvent(data)
    // Each event once: what came before the break is not shown again.
    if (!item || item.seq <= position.seq) continue
    position.seq = item.seq
    if (item.type === 'run_state' && !item.data.late) position.mayRest = isRest(item.data.state)
    yield item
  }
  // A stream that ends without saying so was cut by something in between.
  throw new AppError('server_unreachable', { url: dialer.serverUrl, reason: 'closed', problem: 'it closed the stream' })
}

function parseEvent(data: string): SessionEvent | undefined {
  try {
    const event = JSON.parse(data) as SessionEvent
    return typeof event.seq === 'number' && typeof event.type === 'string' ? event : undefined
  } catch {
    return undefined
  }
}

/** BLOCKED waits for a person. That may be days. */
export function isRest(state: string): boolean {
  return state === 'BLOCKED' || isTerminal(state as RunState)
}

export function isWorthRetrying(error: unknown): boolean {
  if (error instanceof ApiError) return error.problem.retryable
  if (error instanceof AppError) return error.spec.retryable || error.code === 'server_answer_unreadable'
  return false
}

/** Aborts its signal once the time has passed without a restart, and it is over. */
function createRestTimer(ms: number, isOver: () => Promise<boolean>) {
  const controller = new AbortController()
  let timer: NodeJS.Timeout | undefined
  const stop = () => {
    clearTimeout(timer)
    timer = undefined
  }
  const restart = () => {
    stop()
    timer = setTimeout(look, ms)
  }
  const look = async () => {
    const asking = timer
    try {
      if (await isOver()) controller.abort()
    } catch {
      // Asked again, unless the watching has ended or an event has come meanwhile.
      if (timer === asking) restart()
    }
  }
  return {
    signal: controller.signal,
    restart,
    stop,
    isOver: () => controller.signal.aborted,
  }
}
