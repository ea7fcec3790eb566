import { setTimeout as delay } from 'node:timers/promises'

/**
 * How long to wait before try number `attempt` (0 is the first retry): anything between 0 and `baseMs · 2^attempt`, at most `maxMs`.
 * The whole span is random ("full jitter"), so that a thousand agents that lost the same server do not come back in waves.
 */
export function fullJitterMs(
  attempt: number,
  { baseMs = 500, maxMs = 30_000 }: { baseMs?: number; maxMs?: number } = {},
): number {
  return Math.random() * Math.min(maxMs, baseMs * 2 ** Math.min(attempt, 30))
}

/** Waits. Returns early, without an error, when the signal is aborted: a loop asks its signal anyway. */
export async function sleep(ms: number, signal?: AbortSignal): Promise<void> {
  await delay(ms, undefined, { signal }).catch(() => {})
}
