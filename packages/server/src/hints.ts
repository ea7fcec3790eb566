import { setTimeout as sleep } from 'node:timers/promises'
import type { Logger } from 'pino'
import type { Hints, Topic } from './domain/context.ts'
import type { Database } from './store/database.ts'

/**
 * Wake-ups between the loops of this process and, by NOTIFY, those of the other replicas.
 *
 * NOTIFY is sent after the commit on a connection of its own, at most once per 10 ms with everything that came together: inside the appending
 * transaction it serialises commits. It is only a hint: when the connection is gone, everybody still looks from time to time.
 */

const channel = 'openoz_hints'
const coalesceMs = 10
/** PostgreSQL takes less than 8000 bytes; topics are ASCII. */
const maxPayload = 7_900
const reconnectMs = 1_000

type Wake = (topic: Topic) => void

export interface RunningHints extends Hints {
  /** Connects and stays connected until the signal; resolves when that is over. */
  run(db: Database, signal: AbortSignal): Promise<void>
}

export function createHints(options: { serverId: string; log: Logger; useNotify?: boolean }): RunningHints {
  const exact = new Map<string, Set<Wake>>()
  const prefixes = new Map<string, Set<Wake>>()
  let outgoing = new Set<Topic>()
  let send: ((topics: Topic[]) => void) | undefined

  function wakeLocal(topic: Topic): void {
    for (const wake of exact.get(topic) ?? []) wake(topic)
    for (const [prefix, wakes] of prefixes) if (topic.startsWith(prefix)) for (const wake of wakes) wake(topic)
  }

  async function connectOnce(db: Database, signal: AbortSignal): Promise<void> {
    const client = await db.connectAlone()
    try {
      const closed = Promise.withResolvers<void>()
      client.on('error', () => closed.resolve())
      client.on('end', () => closed.resolve())
      signal.addEventListener('abort', () => closed.resolve(), { once: true })
      // Stopped while it connected: the event is over.
      if (signal.aborted) closed.resolve()
      client.on('notification', ({ payload }) => {
        const [from, ...topics] = (payload ?? '').split('\n')
        if (from !== options.serverId) for (const topic of topics) wakeLocal(topic as Topic)
      })
      await client.query(`listen ${channel}`)
      // One statement at a time on this connection.
      let sending: Promise<unknown> = Promise.resolve()
      send = (topics) => {
        for (const payload of payloads(options.serverId, topics))
          sending = sending
            .then(() => client.query('select pg_notify($1, $2)', [channel, payload]))
            .catch(() => closed.resolve())
      }
      await closed.promise
    } finally {
      send = undefined
      await client.end().catch(() => {})
    }
  }

  return {
    publish(topic) {
      wakeLocal(topic)
      if (!send) return
      outgoing.add(topic)
      if (outgoing.size > 1) return
      setTimeout(() => {
        const topics = [...outgoing]
        outgoing = new Set()
        send?.(topics)
      }, coalesceMs).unref()
    },
    subscribe(topic, wake) {
      const listeners = topic.endsWith(' ') ? prefixes : exact
      const wakes = listeners.get(topic) ?? new Set()
      listeners.set(topic, wakes.add(wake))
      return () => {
        wakes.delete(wake)
        if (wakes.size === 0 && listeners.get(topic) === wakes) listeners.delete(topic)
      }
    },
    async run(db, signal) {
      if (options.useNotify === false) return
      while (!signal.aborted) {
        try {
          await connectOnce(db, signal)
        } catch (error) {
          options.log.debug({ error: (error as Error).message }, 'no connection for hints; everyone polls meanwhile')
        }
        await sleep(reconnectMs, undefined, { signal }).catch(() => {})
      }
    },
  }
}

function* payloads(serverId: string, topics: Topic[]): Generator<string> {
  let payload = serverId
  for (const topic of topics) {
    if (payload.length + topic.length + 1 > maxPayload) {
      yield payload
      payload = serverId
    }
    payload += `\n${topic}`
  }
  yield payload
}
