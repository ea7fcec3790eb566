import { type Dialer, fullJitterMs, sleep } from '@openoz/machine'
import { ApiError, AppError, isTerminal, type RunState, type SessionEvent } from '@openoz/protocol'

/**
 * The session log of a run, from an event on and then live, over server-sent events. When the stream breaks it is opened again behind the
 * last event that was yielded (`Last-Event-ID`), for as long as the signal allows: no event is missed and none comes twice.
 *
 * It ends
 * - when the server says so (the run is over and no execution of it is live), or
 * - when the run rests and nothing came for `restMs`: an agent that only waits for a follow-up keeps its stream open for minutes.
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
  restMs?: number
}

/** What follows an outcome (the saved workspace, the teardown) follows within a second. */
const defaultRestMs = 2_000

export async function* followSession(options: FollowOptions): AsyncGenerator<SessionEvent, void, undefined> {
  const { signal, onBreak, restMs = defaultRestMs } = options
  const position = { seq: options.since ?? 0, isResting: false }
  let failures = 0
  for (;;) {
    signal?.throwIfAborted()
    const rest = createRestTimer(restMs)
    try {
      for await (const event of openStream(options, { position, signal: rest.signal })) {
        failures = 0
        yield event
        if (position.isResting) rest.restart()
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

/** One connection: ends when the server ends the log, throws when the connection breaks. */
async function* openStream(
  { dialer, apiKey, runId, signal }: FollowOptions,
  { position, signal: restSignal }: { position: { seq: number; isResting: boolean }; signal: AbortSignal },
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
    if (item.type === 'run_state') position.isResting = isResting(item.data.state)
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
function isResting(state: string): boolean {
  return state === 'BLOCKED' || isTerminal(state as RunState)
}

function isWorthRetrying(error: unknown): boolean {
  if (error instanceof ApiError) return error.problem.retryable
  if (error instanceof AppError) return error.spec.retryable || error.code === 'server_answer_unreadable'
  return false
}

/** Aborts its signal once the time has passed without a restart. */
function createRestTimer(ms: number) {
  const controller = new AbortController()
  let timer: NodeJS.Timeout | undefined
  const stop = () => clearTimeout(timer)
  return {
    signal: controller.signal,
    restart() {
      stop()
      timer = setTimeout(() => controller.abort(), ms)
    },
    stop,
    isOver: () => controller.signal.aborted,
  }
}
