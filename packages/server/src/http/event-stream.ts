import type { Context } from 'hono'

export const eventStreamHeaders = {
  'content-type': 'text/event-stream',
  'cache-control': 'no-store',
  // nginx would collect the stream otherwise.
  'x-accel-buffering': 'no',
}

/** A server-sent event stream that ends when the reader goes or this server stops; frames are pulled, so a slow reader slows only itself. */
export function eventStream(
  c: Context,
  stopping: AbortSignal,
  frames: (signal: AbortSignal) => AsyncGenerator<Uint8Array>,
): Response {
  const signal = AbortSignal.any([c.req.raw.signal, stopping])
  return new Response(ReadableStream.from(frames(signal)), { headers: eventStreamHeaders })
}
