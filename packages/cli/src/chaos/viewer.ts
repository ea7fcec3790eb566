import { createHash } from 'node:crypto'
import { createDialer, sleep } from '@openoz/machine'
import type { SessionEvent } from '@openoz/protocol'
import { isRest } from '../watch/follow-session.ts'

/**
 * Somebody who watches a run from its first event on, through every break, and writes down what arrived: whatever the server sends twice, leaves
 * out or changes stays visible. The person of the run sees through one as well.
 */
export interface Viewer extends AsyncDisposable {
  readonly name: string
  readonly runId: string
  /** In the order of arrival. */
  readonly seen: readonly SeenEvent[]
  readonly lastSeq: number
  /** The last `run_state` that was no late evidence. */
  readonly state: string
  /** How many calls were seen since the message with this id. */
  callsSince(messageId: string | undefined): number
  hasSeenMessage(messageId: string): boolean
  /** Something was said: looks at once. */
  wake(): void
  /** Resolves at the next event, and at the latest after `ms`. */
  next(ms: number, signal: AbortSignal): Promise<void>
}

export type SeenEvent = readonly [seq: number, hash: string]

/** Shorter than the silence that a healthy stream breaks with a comment three times. */
const idleTimeoutMs = 46_000
/** After a stream that broke. */
const againMs = 400
/** After one that the server ended, because the run is at rest: hundreds of such viewers would be most of a round's work. */
const restMs = 5_000

export function startViewer(watch: { name: string; serverUrl: string; apiKey: string; runId: string }): Viewer {
  const { name, serverUrl, apiKey, runId } = watch
  const seen: SeenEvent[] = []
  const closing = new AbortController()
  const events: { seq: number; type: string; messageId: string | undefined }[] = []
  let state = 'QUEUED'
  let lastSeq = 0
  let news = Promise.withResolvers<void>()
  let woken = new AbortController()

  function take(text: string): void {
    const event = JSON.parse(text) as SessionEvent
    seen.push([event.seq, eventHash(event)])
    lastSeq = Math.max(lastSeq, event.seq)
    const messageId = event.type === 'user_message' ? event.data.message_id : undefined
    events.push({ seq: event.seq, type: event.type, messageId })
    if (event.type === 'run_state' && !event.data.late) state = event.data.state
    news.resolve()
    news = Promise.withResolvers()
  }

  /** Whether the server said that there is nothing more for now. */
  async function watchOnce(): Promise<boolean> {
    let hasEnded = false
    const dialer = createDialer({ serverUrl, env: {} })
    try {
      const stream = dialer.eventStream(`/api/v1/agent/runs/${runId}/events/stream`, {
        headers: { authorization: `Bearer ${apiKey}` },
        lastEventId: String(lastSeq),
        signal: closing.signal,
        idleTimeoutMs,
      })
      for await (const { event, data } of stream) {
        if (event === 'end') hasEnded = true
        else take(data)
      }
      return hasEnded
    } finally {
      await dialer.close()
    }
  }

  async function watchForever(): Promise<void> {
    while (!closing.signal.aborted) {
      woken = new AbortController()
      const hasEnded = await watchOnce().catch(() => false)
      await sleep(hasEnded ? restMs : againMs, AbortSignal.any([closing.signal, woken.signal]))
    }
  }

  const watching = watchForever()
  return {
    name,
    runId,
    seen,
    get lastSeq() {
      return lastSeq
    },
    get state() {
      return state
    },
    callsSince(messageId) {
      const from = messageId === undefined ? 0 : events.findIndex((event) => event.messageId === messageId)
      return from < 0 ? 0 : events.slice(from).filter(({ type }) => type === 'tool_call').length
    },
    hasSeenMessage: (messageId) => events.some((event) => event.messageId === messageId),
    wake: () => woken.abort(),
    async next(ms, signal) {
      const limit = new AbortController()
      const timer = sleep(ms, AbortSignal.any([limit.signal, signal])).catch(() => {})
      await Promise.race([news.promise, timer])
      limit.abort()
    },
    async [Symbol.asyncDispose]() {
      closing.abort()
      await watching
    },
  }
}

export function isAtRest(viewer: Viewer): boolean {
  return isRest(viewer.state)
}

/** Of what an event says, however its keys are ordered. */
export function eventHash({ type, data }: { type: string; data: unknown }): string {
  return createHash('sha1')
    .update(`${type} ${ordered(data)}`)
    .digest('base64url')
    .slice(0, 12)
}

function ordered(value: unknown): string {
  return JSON.stringify(value, (_key, inner: unknown) =>
    typeof inner === 'object' && inner !== null && !Array.isArray(inner)
      ? Object.fromEntries(Object.entries(inner).toSorted(([a], [b]) => (a < b ? -1 : 1)))
      : inner,
  )
}
