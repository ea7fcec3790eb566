import { once } from 'node:events'
import { createServer, type IncomingMessage, type ServerResponse } from 'node:http'
import type { AddressInfo } from 'node:net'
import { expect, test } from 'vitest'
import { createDialer } from './dialer.ts'
import type { EventStreamOptions, StreamEvent } from './event-stream.ts'

type Handler = (response: ServerResponse, request: IncomingMessage) => void

async function serve(handler: Handler) {
  const server = createServer((request, response) => {
    response.setHeader('content-type', 'text/event-stream')
    handler(response, request)
  })
  server.listen(0, '127.0.0.1')
  await once(server, 'listening')
  const dialer = createDialer({ serverUrl: `http://127.0.0.1:${(server.address() as AddressInfo).port}`, env: {} })
  return {
    server,
    stream: (options?: EventStreamOptions) => dialer.eventStream('/stream', options),
    async [Symbol.asyncDispose]() {
      await dialer.close()
      server.closeAllConnections()
      server.close()
      await once(server, 'close')
    },
  }
}

async function all(stream: AsyncGenerator<StreamEvent, void, undefined>): Promise<StreamEvent[]> {
  const events: StreamEvent[] = []
  for await (const event of stream) events.push(event)
  return events
}

test('a stream is read right wherever its bytes are cut', async () => {
  const text =
    '\ufeff: comment\r\nid: 1\r\nevent: greeting\r\ndata: zwei\r\ndata:  Zeilen \u{1f600}\r\n\r\nretry: 1500\n\nid: 2\ndata\n\ndata: ü\n\ndata: cut off'
  const bytes = Buffer.from(text)
  const expected = [
    { id: '1', event: 'greeting', data: 'zwei\n Zeilen \u{1f600}' },
    { id: '2', event: 'message', data: '' },
    { id: undefined, event: 'message', data: 'ü' },
  ]
  let cut = 0
  await using server = await serve((response) => {
    response.write(bytes.subarray(0, cut))
    // One turn of the event loop apart, so that both halves travel alone.
    setTimeout(() => response.end(bytes.subarray(cut)), 2)
  })
  for (cut = 1; cut < bytes.length; cut++) {
    const retries: number[] = []
    expect(await all(server.stream({ onRetry: (ms) => retries.push(ms) })), `cut at ${cut}`).toEqual(expected)
    expect(retries).toEqual([1500])
  }
})

test('the last event id and the headers are sent', async () => {
  await using server = await serve((response, { headers }) => {
    response.end(`data: ${headers['last-event-id']} ${headers.authorization} ${headers.accept}\n\n`)
  })
  const [event] = await all(server.stream({ lastEventId: '41', headers: { authorization: 'Bearer x' } }))
  expect(event?.data).toBe('41 Bearer x text/event-stream')
})

test('silence ends a stream, comments keep it alive', async () => {
  await using server = await serve((response) => {
    let comments = 0
    const timer = setInterval(() => {
      if (++comments <= 6) response.write(': still here\n\n')
      else clearInterval(timer)
    }, 100)
    response.write('data: first\n\n')
  })
  const started = performance.now()
  const events: string[] = []
  const reading = (async () => {
    for await (const { data } of server.stream({ idleTimeoutMs: 300 })) events.push(data)
  })()
  await expect(reading).rejects.toMatchObject({ code: 'server_unreachable', details: { reason: 'timeout' } })
  expect(performance.now() - started).toBeGreaterThan(700)
  expect(events).toEqual(['first'])
})

test('a broken stream, a refusal and a page instead of a stream are told apart', async () => {
  let mode = 'break'
  await using server = await serve((response) => {
    if (mode === 'break') response.write('data: one\n\n', () => response.destroy())
    if (mode === 'page') response.setHeader('content-type', 'text/html').end('<html>')
    const problem = { title: 'Over', status: 410, detail: 'Over.', code: 'execution_superseded', retryable: false }
    if (mode === 'refuse') response.writeHead(410).end(JSON.stringify(problem))
  })
  await expect(all(server.stream())).rejects.toMatchObject({ details: { reason: 'reset' } })
  mode = 'page'
  await expect(all(server.stream())).rejects.toMatchObject({ code: 'server_answer_unreadable' })
  mode = 'refuse'
  await expect(all(server.stream())).rejects.toMatchObject({ problem: { code: 'execution_superseded' } })
})

test('a reader that leaves, or aborts, closes the connection', async () => {
  let closed = 0
  await using server = await serve((response) => {
    response.on('close', () => closed++)
    response.write('data: one\n\n')
  })
  for await (const _event of server.stream()) break
  await expect.poll(() => closed).toBe(1)
  const abort = new AbortController()
  const reading = all(server.stream({ signal: abort.signal }))
  setTimeout(() => abort.abort(new Error('enough')), 50)
  await expect(reading).rejects.toThrow('enough')
  await expect.poll(() => closed).toBe(2)
})
