import type { HttpBindings } from '@hono/node-server'
import { messageOf } from '@openoz/protocol'
import type { Context } from 'hono'
import type { Ctx } from '../domain/context.ts'

/**
 * An answer that is read from the database while it is sent; a slow reader slows only itself. What breaks on the way, or ends before `sizeBytes`, cuts the
 * connection: nobody takes a part for the whole, or waits for the rest. (Thrown, it would be printed past the log.)
 */
export function byteAnswer(
  { log }: Pick<Ctx, 'log'>,
  c: Context,
  chunks: AsyncIterable<Uint8Array>,
  { sizeBytes, headers }: { sizeBytes?: number; headers: Record<string, string> },
): Response {
  async function* whole(): AsyncGenerator<Uint8Array> {
    let sent = 0
    try {
      for await (const chunk of chunks) {
        sent += chunk.length
        yield chunk
      }
      if (sizeBytes === undefined || sent === sizeBytes) return
      log.warn({ path: c.req.path, sent, sizeBytes }, 'what was being read was removed meanwhile; the answer was cut')
    } catch (error) {
      log.warn(
        { path: c.req.path, sent, error: messageOf(error) },
        'an answer could not be read to its end; it was cut',
      )
    }
    const { outgoing } = c.env as HttpBindings
    outgoing.destroy()
  }
  const length = sizeBytes === undefined ? {} : { 'content-length': String(sizeBytes) }
  return new Response(ReadableStream.from(whole()), { headers: { ...headers, ...length } })
}
