/**
 * The engine's events, for as long as somebody wants them.
 *
 *   connecting → connected (`restored`) → broken (`broken`) → connecting …
 *
 * Events that happen while there is no connection are never told, and neither are those of the moment in which one begins: `restored` says when
 * to look for oneself, and who depends on an event looks now and then besides. An engine that is away is asked again after 0.1 to 2 s.
 */

import { fullJitterMs, sleep } from '@openoz/machine'
import type { Engine } from './engine.ts'
import { isEngineAway } from './engine-failure.ts'
import { jsonLines } from './json-lines.ts'

export interface EngineEvent {
  /** "container", "network", … */
  Type: string
  /** "start", "oom", "die", "destroy", … */
  Action: string
  /** `Attributes` of a container: its labels, `name`, `image`; of a `die` also `exitCode`. */
  Actor: { ID: string; Attributes: Record<string, string> }
  /** Nanoseconds since 1970 on the engine's clock, cut to what a number holds. */
  timeNano: number
}

export interface EventsObserver {
  event(event: EngineEvent): void
  /** The connection is gone, or could not be made. Once per time, before the next try. */
  broken(error: unknown): void
  /** There is a connection: the first, or again. */
  restored(): void
}

const steadyMs = 5_000

/** Resolves when the signal is aborted; never rejects. */
export async function followEvents(
  engine: Engine,
  { labels, types }: { labels: string[]; types: string[] },
  on: EventsObserver,
  signal: AbortSignal,
): Promise<void> {
  const query = { filters: { label: labels, type: types } }
  let isBroken = false
  for (let attempt = 0; !signal.aborted; attempt++) {
    let connectedAt = Number.POSITIVE_INFINITY
    try {
      const stream = await engine.stream('GET', '/events', { query, signal })
      isBroken = false
      connectedAt = performance.now()
      on.restored()
      for await (const line of jsonLines(stream)) on.event(toEvent(line))
      throw new Error('the engine ended its events')
    } catch (error) {
      if (signal.aborted) return
      // One that lets go of each connection at once is not to be asked ten times a second, with all that hears of it.
      if (performance.now() - connectedAt > steadyMs) attempt = 0
      if (!isBroken) on.broken(error)
      isBroken = true
      // One that answers with an error does so again.
      const baseMs = isEngineAway(error) || attempt === 0 ? 100 : 1_000
      await sleep(100 + fullJitterMs(attempt, { baseMs, maxMs: 2_000 }), signal)
    }
  }
}

function toEvent(line: Record<string, unknown>): EngineEvent {
  const { Type, Action, Actor, timeNano } = line as Partial<EngineEvent>
  return {
    Type: Type ?? '',
    Action: Action ?? '',
    Actor: { ID: Actor?.ID ?? '', Attributes: Actor?.Attributes ?? {} },
    timeNano: timeNano ?? 0,
  }
}
