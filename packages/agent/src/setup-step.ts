import type { SessionEventData } from '@openoz/protocol'
import { messageOf } from '@openoz/protocol'
import type { EventSink } from './event-sink.ts'

type SetupStep = SessionEventData['setup_step']

/** Does the work as one step of the waterfall: `started`, then `completed` or `failed` with how long it took. */
export async function setupStep<T>(
  sink: EventSink,
  { step, title }: Pick<SetupStep, 'step' | 'title'>,
  work: () => Promise<T>,
): Promise<T> {
  const startedAt = new Date().toISOString()
  const start = performance.now()
  const say = (status: SetupStep['status'], more: Partial<SetupStep> = {}) =>
    sink.emit({ type: 'setup_step', data: { step, status, title, started_at: startedAt, ...more } })
  say('started')
  try {
    const result = await work()
    say('completed', { duration_ms: Math.round(performance.now() - start) })
    return result
  } catch (error) {
    const detail = messageOf(error)
    say('failed', { duration_ms: Math.round(performance.now() - start), detail })
    throw error
  }
}
