import { AppError, readAnswer } from '@openoz/protocol'
import { createParser } from 'eventsource-parser'
import { toDialError } from './dial-failure.ts'

/** One server-sent event. */
export interface StreamEvent {
  /** What to send as `Last-Event-ID` next time; undefined when this event brought none. */
  id: string | undefined
  /** `message` when the server named none. */
  event: string
  data: string
}

export interface EventStreamOptions {
  headers?: Record<string, string>
  lastEventId?: string
  signal?: AbortSignal
  /** The longest silence; servers send a comment every 15 s, so the default of 45 s is three missed ones. */
  idleTimeoutMs?: number
  /** The server's wish how long to wait before reconnecting. */
  onRetry?: (ms: number) => void
}

/** No event of ours comes near; it keeps a wrong server from filling the memory. */
const maxEventCharacters = 32 * 1024 * 1024

export async function* readEventStream(
  open: (init: RequestInit) => Promise<Response>,
  options: EventStreamOptions & { shown: string },
): AsyncGenerator<StreamEvent, void, undefined> {
  const { headers, lastEventId, signal, idleTimeoutMs = 45_000, onRetry, shown } = options
  signal?.throwIfAborted()
  const stop = new AbortController()
  const onAbort = () => stop.abort(signal?.reason)
  signal?.addEventListener('abort', onAbort, { once: true })
  const idle = setTimeout(() => stop.abort(silence(shown, idleTimeoutMs)), idleTimeoutMs)

  const ready: StreamEvent[] = []
  const parser = createParser({
    onEvent: ({ id, event, data }) => ready.push({ id, event: event ?? 'message', data }),
    onRetry,
    maxBufferSize: maxEventCharacters,
  })
  try {
    const response = await open({ headers: streamHeaders(headers, lastEventId), signal: stop.signal })
    const type = response.headers.get('content-type') ?? ''
    if (!response.ok) await readAnswer(response)
    if (!type.startsWith('text/event-stream') || !response.body) {
      throw new AppError('server_answer_unreadable', { url: shown, status: response.status })
    }
    // The decoder joins characters across chunks and drops a byte order mark.
    const decoder = new TextDecoder()
    for await (const chunk of response.body) {
      idle.refresh()
      parser.feed(decoder.decode(chunk, { stream: true }))
      while (ready.length > 0) {
        yield ready.shift() as StreamEvent
        // The time that the reader takes is not the server's silence.
        idle.refresh()
      }
    }
  } catch (error) {
    if (stop.signal.aborted) throw stop.signal.reason
    throw isAnswer(error) ? error : toDialError(error, shown)
  } finally {
    clearTimeout(idle)
    signal?.removeEventListener('abort', onAbort)
    // Frees the connection when the reader leaves in the middle.
    stop.abort()
  }
}

function streamHeaders(headers: Record<string, string> = {}, lastEventId?: string): Record<string, string> {
  const all = { ...headers, accept: 'text/event-stream', 'cache-control': 'no-cache' }
  return lastEventId === undefined ? all : { ...all, 'last-event-id': lastEventId }
}

function isAnswer(error: unknown): boolean {
  return error instanceof Error && error.name === 'ApiError'
}

function silence(url: string, ms: number): AppError {
  const problem = `nothing came for ${Math.round(ms / 1000)} s`
  return new AppError('server_unreachable', { url, reason: 'timeout', problem })
}
