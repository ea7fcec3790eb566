import { once } from 'node:events'
import type { ServerResponse } from 'node:http'
import type { HttpBindings } from '@hono/node-server'
import { RESPONSE_ALREADY_SENT } from '@hono/node-server/utils/response'
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
 * slows only itself. Written to Node's own response: the layers of web streams in between cost more memory than all else that a reader needs.
 */
export function eventStream(
  { log }: Pick<Ctx, 'log'>,
  c: Context,
  stopping: AbortSignal,
  frames: (signal: AbortSignal) => AsyncGenerator<Uint8Array>,
): Response {
  const { outgoing } = c.env as HttpBindings
  const { path } = c.req
  writeFrames(outgoing, stopping, frames).catch((error: unknown) =>
    log.debug({ error: messageOf(error), path }, 'an event stream ended early'),
  )
  return RESPONSE_ALREADY_SENT
}

async function writeFrames(
  outgoing: ServerResponse,
  stopping: AbortSignal,
  frames: (signal: AbortSignal) => AsyncGenerator<Uint8Array>,
): Promise<void> {
  const leaving = new AbortController()
  const leave = () => leaving.abort()
  outgoing.once('close', leave)
  stopping.addEventListener('abort', leave)
  try {
    if (stopping.aborted || outgoing.destroyed) leave()
    outgoing.writeHead(200, eventStreamHeaders)
    outgoing.flushHeaders()
    for await (const frame of frames(leaving.signal))
      if (!outgoing.write(frame)) await once(outgoing, 'drain', { signal: leaving.signal })
  } finally {
    stopping.removeEventListener('abort', leave)
    outgoing.end()
  }
}
