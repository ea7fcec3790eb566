import { once } from 'node:events'
import { createServer, type ServerResponse } from 'node:http'
import type { AddressInfo } from 'node:net'
import { createDialer } from '@openoz/machine'
import type { SessionEvent } from '@openoz/protocol'
import { expect, test } from 'vitest'
import { followSession } from './follow-session.ts'

/** A log of ten events over the real wire. `script` says what each connection does. */
async function startLog(script: (connection: { response: ServerResponse; since: number; number: number }) => void) {
  let number = 0
  const server = createServer((request, response) => {
    response.writeHead(200, { 'content-type': 'text/event-stream' })
    script({ response, since: Number(request.headers['last-event-id']), number: ++number })
  })
  server.listen(0, '127.0.0.1')
  await once(server, 'listening')
  const dialer = createDialer({ serverUrl: `http://127.0.0.1:${(server.address() as AddressInfo).port}`, env: {} })
  return {
    dialer,
    connections: () => number,
    async [Symbol.asyncDispose]() {
      await dialer.close()
      server.closeAllConnections()
      server.close()
      await once(server, 'close')
    },
  }
}

function event(seq: number, state = 'INPROGRESS'): string {
  const item = { seq, type: 'run_state', at: '2026-11-23T12:00:00Z', data: { state } }
  return `id: ${seq}\nevent: run_state\ndata: ${JSON.stringify(item)}\n\n`
}

const end = 'event: end\ndata: {}\n\n'

async function collect(events: AsyncIterable<SessionEvent>): Promise<number[]> {
  const seqs: number[] = []
  for await (const { seq } of events) seqs.push(seq)
  return seqs
}

const run = { apiKey: 'wk-x', runId: 'r' }
const oneToTen = Array.from({ length: 10 }, (_, index) => index + 1)

test('a stream that breaks again and again shows every event once, in order', async () => {
  await using log = await startLog(({ response, since }) => {
    // Two new events per connection, after two that were sent before, then a cut in the middle of a frame.
    for (let seq = Math.max(1, since - 1); seq <= Math.min(10, since + 2); seq++) response.write(event(seq))
    if (since + 2 >= 10) response.end(end)
    else response.write('id: 99\nevent: run_st', () => response.destroy())
  })
  let breaks = 0
  const onBreak = () => {
    breaks++
  }
  expect(await collect(followSession({ ...run, dialer: log.dialer, onBreak }))).toEqual(oneToTen)
  expect(breaks).toBe(log.connections() - 1)
  expect(breaks).toBeGreaterThan(2)
})

test('a stream that ends without the word of the server is opened again', async () => {
  await using log = await startLog(({ response, since, number }) => {
    for (let seq = since + 1; seq <= 5 * number; seq++) response.write(event(seq))
    response.end(number === 2 ? end : '')
  })
  expect(await collect(followSession({ ...run, dialer: log.dialer }))).toEqual(oneToTen)
})

test('a run that rests is not waited for until its agent has idled away', async () => {
  await using log = await startLog(({ response }) => {
    response.write(event(1) + event(2, 'SUCCEEDED'))
  })
  const asked: number[] = []
  const isAtRest = async (lastSeq: number) => asked.push(lastSeq) > 0
  expect(await collect(followSession({ ...run, dialer: log.dialer, restMs: 50, isAtRest }))).toEqual([1, 2])
  expect(asked).toEqual([2])
  expect(log.connections()).toBe(1)
})

test('a run that rested before the first event that is shown is not waited for either', async () => {
  await using log = await startLog(({ response }) => {
    response.write(': nothing new\n\n')
  })
  const isAtRest = async () => true
  expect(await collect(followSession({ ...run, dialer: log.dialer, since: 9, restMs: 50, isAtRest }))).toEqual([])
})

test('a run that the server knows to go on is followed past its first outcome', async () => {
  await using log = await startLog(({ response }) => {
    response.write(event(1, 'BLOCKED'))
    setTimeout(() => response.end(event(2, 'QUEUED') + event(3, 'SUCCEEDED') + end), 200)
  })
  const isAtRest = async () => false
  expect(await collect(followSession({ ...run, dialer: log.dialer, restMs: 20, isAtRest }))).toEqual([1, 2, 3])
})

test('a run that was continued before anybody asked is followed on', async () => {
  await using log = await startLog(({ response }) => {
    response.write(event(1, 'FAILED') + event(2, 'QUEUED'))
    setTimeout(() => response.end(event(3, 'SUCCEEDED') + end), 200)
  })
  const isAtRest = () => Promise.reject(new Error('it need not be asked'))
  expect(await collect(followSession({ ...run, dialer: log.dialer, restMs: 50, isAtRest }))).toEqual([1, 2, 3])
})

test('a question about the rest that fails is asked again', async () => {
  await using log = await startLog(({ response }) => {
    response.write(event(1, 'SUCCEEDED'))
  })
  let failures = 0
  const isAtRest = async () => {
    if (++failures < 3) throw new Error('away')
    return true
  }
  expect(await collect(followSession({ ...run, dialer: log.dialer, restMs: 10, isAtRest }))).toEqual([1])
})

test('who wants to follow to the end does', async () => {
  await using log = await startLog(({ response }) => {
    response.write(event(1, 'SUCCEEDED'))
    setTimeout(() => response.end(event(2, 'INPROGRESS') + event(3, 'SUCCEEDED') + end), 200)
  })
  expect(await collect(followSession({ ...run, dialer: log.dialer, restMs: 20 }))).toEqual([1, 2, 3])
})

test('who has seen enough gets away at once', async () => {
  await using log = await startLog(({ response }) => {
    response.write(event(1))
  })
  const stop = new AbortController()
  const seqs: number[] = []
  const watching = (async () => {
    for await (const { seq } of followSession({ ...run, dialer: log.dialer, signal: stop.signal })) {
      seqs.push(seq)
      stop.abort(new Error('enough'))
    }
  })()
  await expect(watching).rejects.toThrow('enough')
  expect(seqs).toEqual([1])
})
