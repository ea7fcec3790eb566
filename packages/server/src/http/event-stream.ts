import { messageOf } from '@openoz/protocol'
import type { Context } from 'hono'
import type { Ctx } from '../domain/context.ts'

export const eventStreamHeaders = {
  'content-type': 'text/event-stream',
  'cache-control': 'no-store',
  // nginx would collect the stream otherwise.
  'x-accel-buffering': 'no',
}

/**
 * A server-sent event stream that ends when the reader goes, this server stops, or the database goes: readers come back then. Frames are pulled, so a slow reader
 * slows only itself.
 */
export function eventStream(
  { log }: Pick<Ctx, 'log'>,
  c: Context,
  stopping: AbortSignal,
  frames: (signal: AbortSignal) => AsyncGenerator<Uint8Array>,
): Response {
  const signal = AbortSignal.any([c.req.raw.signal, stopping])
  // An error that left the stream would be printed past the log.
  async function* untilError(all: AsyncGenerator<Uint8Array>): AsyncGenerator<Uint8Array> {
    try {
      yield* all
    } catch (error) {
      log.debug({ error: messageOf(error), path: c.req.path }, 'an event stream ended early')
    }
  }
  return new Response(ReadableStream.from(untilError(frames(signal))), { headers: eventStreamHeaders })
}
