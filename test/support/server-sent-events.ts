import { once } from 'node:events'
import { get, type IncomingMessage } from 'node:http'
import { createParser } from 'eventsource-parser'

export interface ServerSentEvent {
  id: string | undefined
  event: string
  data: string
}

/** Reads a stream on a connection of its own, until it ends or until the reader has enough. */
export async function* readServerSentEvents(
  url: string,
  init: { key: string; lastEventId?: string | number; signal?: AbortSignal; headers?: Record<string, string> },
): AsyncGenerator<ServerSentEvent> {
  const request = get(url, {
    agent: false,
    ...(init.signal ? { signal: init.signal } : {}),
    headers: {
      ...init.headers,
      authorization: `Bearer ${init.key}`,
      ...(init.lastEventId === undefined ? {} : { 'last-event-id': String(init.lastEventId) }),
    },
  })
  try {
    const [response] = (await once(request, 'response')) as [IncomingMessage]
    response.setEncoding('utf8')
    if (response.statusCode !== 200)
      throw new Error(`HTTP ${response.statusCode}: ${(await response.toArray()).join('')}`)
    const ready: ServerSentEvent[] = []
    const parser = createParser({
      onEvent: ({ id, event, data }) => ready.push({ id, event: event ?? 'message', data }),
    })
    for await (const text of response) {
      parser.feed(text as string)
      yield* ready.splice(0)
    }
  } finally {
    request.destroy()
  }
}
