import { once } from 'node:events'
import { createServer } from 'node:http'
import type { AddressInfo } from 'node:net'
import { buffer } from 'node:stream/consumers'

/**
 * A proxy on a bad day: it passes every request on, and answers 503 instead of the first so many answers to a POST. What was asked for is done by
 * then, which is the case that a retry must not do twice.
 */
export interface UnreliableRelay extends AsyncDisposable {
  url: string
  /** Requests of each kind that came through. */
  readonly posts: number
}

export async function startUnreliableRelay(target: string, { losesAnswers }: { losesAnswers: number }) {
  let posts = 0
  const server = createServer(async (request, response) => {
    const body = await buffer(request)
    const answer = await fetch(target + request.url, {
      method: request.method ?? 'GET',
      headers: Object.entries(request.headers).filter(
        (header): header is [string, string] =>
          typeof header[1] === 'string' &&
          !['host', 'connection', 'content-length', 'transfer-encoding'].includes(header[0]),
      ),
      ...(body.length > 0 ? { body } : {}),
    })
    const text = await answer.text()
    if (request.method === 'POST' && posts++ < losesAnswers) {
      response.writeHead(503, { 'retry-after-ms': '10' }).end('upstream gave no answer')
      return
    }
    response.writeHead(answer.status, { 'content-type': answer.headers.get('content-type') ?? '' }).end(text)
  })
  server.listen(0, '127.0.0.1')
  await once(server, 'listening')
  const relay: UnreliableRelay = {
    url: `http://127.0.0.1:${(server.address() as AddressInfo).port}`,
    get posts() {
      return posts
    },
    async [Symbol.asyncDispose]() {
      const closed = once(server, 'close')
      server.close()
      server.closeAllConnections()
      await closed
    },
  }
  return relay
}
