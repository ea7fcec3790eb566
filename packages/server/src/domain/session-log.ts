import type { SessionEventData } from '@openoz/protocol'
import type { Tx } from '../store/database.ts'
import { appendEvents } from '../store/session-log.ts'

/** Events that the control plane itself writes. */
type ServerEvent = {
  [T in 'run_state' | 'user_message' | 'setup_step' | 'notice' | 'artifact']: {
    type: T
    data: SessionEventData[T]
    executionId?: string
  }
}['run_state' | 'user_message' | 'setup_step' | 'notice' | 'artifact']

/** Appends the server's own events and answers the `seq` of the last. The caller holds the run's lock, and the execution's where it changed one. */
export async function appendServerEvents(tx: Tx, runId: string, events: ServerEvent[]): Promise<number> {
  return appendEvents(
    tx,
    runId,
    events.map((event) => ({
      type: event.type,
      data: storableJson(event.data),
      at: null,
      n: null,
      executionId: event.executionId ?? null,
    })),
  )
}

/**
 * JSON text that PostgreSQL can store: a NUL and lone surrogates become U+FFFD. JSON.stringify writes both as escapes, and a pair as plain text,
 * so it is enough to look at escapes; the first branch steps over escaped backslashes.
 */
export function storableJson(value: unknown): string {
  const text = JSON.stringify(value) ?? 'null'
  return text.replace(/\\\\|\\u(?:0000|d[89a-f][0-9a-f]{2})/gi, (found) => (found === '\\\\' ? found : '\ufffd'))
}

/** Far above what any event means; PostgreSQL and JSON.stringify both give up at some thousand levels. */
const maxDepth = 200

export function isTooDeep(value: unknown, levels = maxDepth): boolean {
  if (typeof value !== 'object' || value === null) return false
  return levels === 0 || Object.values(value).some((item) => isTooDeep(item, levels - 1))
}

/** The same for a text column. */
export function storableText(text: string): string {
  return text.replaceAll('\0', '\ufffd').toWellFormed()
}

/** An agent's time is shown, never decided upon; one that is no time becomes ours. */
export function storableTime(at: string): string | null {
  const time = Date.parse(at)
  return Number.isNaN(time) || time < 0 || time > 253_402_300_000_000 ? null : new Date(time).toISOString()
}
