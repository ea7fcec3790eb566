import { once } from 'node:events'
import { mkdtempSync, rmSync } from 'node:fs'
import { createServer, type IncomingMessage, type ServerResponse } from 'node:http'
import type { AddressInfo } from 'node:net'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import type { EventBatch, EventBatchResponse, NumberedEvent } from '@openoz/protocol'
import { afterEach, expect, test } from 'vitest'
import { bootClockMs } from './boot-clock.ts'
import { createDialer } from './dialer.ts'
import { createEventPost } from './event-post.ts'
import { drainSpool, type EventSenderOptions, startEventSender } from './event-sender.ts'
import { judgeSendFailure, retryAfterMs } from './send-failure.ts'
import { openSpool, type SpoolOptions } from './spool.ts'

const cleanups: (() => unknown)[] = []
afterEach(async () => {
  for (const cleanup of cleanups.splice(0).reverse()) await cleanup()
})

type Trouble = (response: ServerResponse, batch: EventBatch, request: IncomingMessage) => boolean | Promise<boolean>

/** The acknowledging half of the agent channel: takes the contiguous prefix, skips duplicates, answers a gap. */
async function startChannel() {
  const stored: NumberedEvent[] = []
  const batches: NumberedEvent[][] = []
  let trouble: Trouble | undefined
  let inFlight = 0
  const channel = {
    stored,
    batches,
    maxInFlight: 0,
    superseded: false,
    /** Answers instead of the channel as long as it returns true. */
    set trouble(value: Trouble | undefined) {
      trouble = value
    },
    url: '',
  }
  const server = createServer(async (request, response) => {
    channel.maxInFlight = Math.max(channel.maxInFlight, ++inFlight)
    response.on('close', () => inFlight--)
    let body = ''
    for await (const chunk of request.setEncoding('utf8')) body += chunk
    const batch = JSON.parse(body) as EventBatch
    if (await trouble?.(response, batch, request)) return
    batches.push(batch.events)
    const answer: EventBatchResponse = { acked_n: stored.length }
    for (const event of batch.events) {
      if (event.n === stored.length + 1) stored.push(event)
      else if (event.n > stored.length) answer.resend_from = stored.length + 1
    }
    answer.acked_n = stored.length
    if (channel.superseded) answer.superseded = true
    response.setHeader('content-type', 'application/json').end(JSON.stringify(answer))
  })
  server.listen(0, '127.0.0.1')
  await once(server, 'listening')
  channel.url = `http://127.0.0.1:${(server.address() as AddressInfo).port}`
  cleanups.push(async () => {
    server.closeAllConnections()
    server.close()
    await once(server, 'close')
  })
  return channel
}

async function newSpool(options?: SpoolOptions) {
  const folder = mkdtempSync(join(tmpdir(), 'sender-'))
  const spool = await openSpool(folder, options)
  cleanups.push(() => {
    spool.close()
    rmSync(folder, { recursive: true })
  })
  return spool
}

function options(channel: { url: string }, spool: EventSenderOptions['spool'], more: Partial<EventSenderOptions> = {}) {
  const dialer = createDialer({ serverUrl: channel.url, env: {} })
  cleanups.push(() => dialer.close())
  const logged: string[] = []
  const write = (level: string) => (fields: unknown, message?: string) =>
    logged.push(`${level} ${JSON.stringify(fields)} ${message}`)
  const log = {
    debug: write('debug'),
    info: write('info'),
    warn: write('warn'),
    error: write('error'),
  } as unknown as EventSenderOptions['log']
  const made = {
    spool,
    post: createEventPost(dialer, () => 'execution-token'),
    log,
    backoff: { baseMs: 5, maxMs: 20 },
    ...more,
  }
  return { ...made, logged }
}

const notice = (text: string) => ({ type: 'notice', data: { text } })
const appendMany = (spool: EventSenderOptions['spool'], count: number) => {
  for (let i = 0; i < count; i++) spool.append([notice(`event ${i}`)])
}
const range = (from: number, to: number) => Array.from({ length: to - from + 1 }, (_, i) => from + i)
const storedNumbers = (channel: { stored: NumberedEvent[] }) => channel.stored.map(({ n }) => n)

function sendProblem(response: ServerResponse, status: number, code: string, retryable = false, headers = {}): true {
  const problem = {
    type: 'x',
    title: code,
    status,
    detail: `${code}.`,
    error: 'conflict',
    code,
    message: `${code}.`,
    retryable,
  }
  response.writeHead(status, headers).end(JSON.stringify(problem))
  return true
}

test('events arrive once, in order, in batches within the limits, one batch at a time', async () => {
  const channel = await startChannel()
  const spool = await newSpool()
  await using sender = startEventSender(options(channel, spool, { maxBytes: 8_000 }))
  for (let i = 0; i < 20; i++) {
    appendMany(spool, 50)
    await new Promise(setImmediate)
  }
  expect(await sender.flushed()).toBe(true)
  expect(storedNumbers(channel)).toEqual(range(1, 1000))
  expect(channel.maxInFlight).toBe(1)
  for (const batch of channel.batches) {
    expect(batch.length).toBeLessThanOrEqual(100)
    if (batch.length > 1) expect(JSON.stringify(batch).length).toBeLessThan(9_000)
  }
  expect(spool.ackedN).toBe(1000)
  expect(await sender.flushed()).toBe(true)
})

test('a single event goes at once, those that follow wait for company', async () => {
  const channel = await startChannel()
  const spool = await newSpool()
  const lingerMs = 300
  await using sender = startEventSender(options(channel, spool, { lingerMs }))
  await new Promise((resolve) => setTimeout(resolve, lingerMs))
  const started = performance.now()
  appendMany(spool, 1)
  await sender.flushed()
  expect(performance.now() - started).toBeLessThan(lingerMs / 2)
  for (let i = 0; i < 10; i++) {
    appendMany(spool, 1)
    await new Promise((resolve) => setTimeout(resolve, 1))
  }
  await sender.flushed()
  expect(performance.now() - started).toBeGreaterThanOrEqual(lingerMs - 5)
  expect(channel.batches.map((batch) => batch.length)).toEqual([1, 10])
})

test('every kind of passing trouble is waited out without loss or repetition', async () => {
  const channel = await startChannel()
  const spool = await newSpool()
  const troubles: Trouble[] = [
    (response) => !!response.destroy(),
    (response) => sendProblem(response, 503, 'server_draining', true),
    (response) => sendProblem(response, 429, 'server_draining', false, { 'retry-after': '0' }),
    (response) => !!response.writeHead(502).end('<html>bad gateway'),
    (response) => !!response.writeHead(403).end('<html>proxy says no'),
    (response) => !!response.writeHead(200).end('<html>sign in to the wifi'),
    (response) => {
      response.writeHead(200, { 'content-length': 100 }).write('{"acked_n":', () => response.destroy())
      return true
    },
    (response) => !!response.writeHead(200).end('{"acked":3}'),
    () => true,
  ]
  let at = 0
  channel.trouble = (response, batch, request) => {
    expect(request.headers.authorization).toBe('Bearer execution-token')
    // Each trouble twice, with some events getting through between them.
    const turn = at++
    if (turn % 3 === 2) return false
    return troubles[Math.floor(turn / 3)]?.(response, batch, request) ?? false
  }
  const made = options(channel, spool, { maxEvents: 3, lingerMs: 0, postTimeoutMs: 200 })
  await using sender = startEventSender(made)
  appendMany(spool, 60)
  expect(await sender.flushed()).toBe(true)
  expect(storedNumbers(channel)).toEqual(range(1, 60))
  expect(at).toBeGreaterThan(troubles.length * 3)
  expect(made.logged.join('\n')).not.toContain('execution-token')
  expect(made.logged.filter((line) => line.startsWith('error'))).toEqual([])
})

test('an acknowledgement that got lost is not a loss and not a repetition', async () => {
  const channel = await startChannel()
  const spool = await newSpool()
  let dropped = 0
  await using sender = startEventSender(options(channel, spool, { maxEvents: 5, lingerMs: 0 }))
  channel.trouble = (response, batch) => {
    if (dropped++ % 2 === 0) return false
    for (const event of batch.events) if (event.n === channel.stored.length + 1) channel.stored.push(event)
    response.destroy()
    return true
  }
  appendMany(spool, 40)
  expect(await sender.flushed()).toBe(true)
  expect(storedNumbers(channel)).toEqual(range(1, 40))
})

test('a server that went back in time gets again what is still here, and stand-ins for the rest', async () => {
  const channel = await startChannel()
  const spool = await newSpool({ limitSegmentBytes: 500 })
  await using sender = startEventSender(options(channel, spool, { maxEvents: 7, lingerMs: 0 }))
  appendMany(spool, 50)
  await sender.flushed()
  channel.stored.length = 10
  appendMany(spool, 1)
  await expect.poll(() => storedNumbers(channel)).toEqual(range(1, 51))
  const types = channel.stored.map(({ type }) => type)
  expect(types.slice(0, 10)).not.toContain('event_invalid')
  expect(types.slice(10, 20)).toContain('event_invalid')
  expect(types[50]).toBe('notice')
})

test('silence is filled with renewals, and the time of the last acknowledged one is that of its sending', async () => {
  const channel = await startChannel()
  const spool = await newSpool()
  await using sender = startEventSender(options(channel, spool, { renewEveryMs: 50 }))
  await expect.poll(() => channel.batches.length).toBeGreaterThan(3)
  expect(channel.batches.every((batch) => batch.length === 0)).toBe(true)
  channel.trouble = async (response) => {
    await new Promise((resolve) => setTimeout(resolve, 300))
    response.destroy()
    return true
  }
  await new Promise((resolve) => setTimeout(resolve, 100))
  const before = sender.lastAcknowledgedSendAt
  await new Promise((resolve) => setTimeout(resolve, 400))
  expect(sender.lastAcknowledgedSendAt).toBe(before)
  channel.trouble = async () => {
    await new Promise((resolve) => setTimeout(resolve, 300))
    return false
  }
  await expect.poll(() => sender.lastAcknowledgedSendAt).toBeGreaterThan(before)
  // The answer took 300 ms; what counts is when the question was asked.
  expect(bootClockMs() - sender.lastAcknowledgedSendAt).toBeGreaterThan(250)
})

test('a renewal can be asked for', async () => {
  const channel = await startChannel()
  await using sender = startEventSender(options(channel, await newSpool(), { renewEveryMs: 60_000 }))
  sender.renew()
  await expect.poll(() => channel.batches).toEqual([[]])
})

test.each([
  [401, 'execution_token_ended'],
  [403, 'not_authorized'],
  [410, 'execution_superseded'],
  [404, 'run_not_found'],
])('a refusal with %i ends the sender and says why', async (status, code) => {
  const channel = await startChannel()
  const spool = await newSpool()
  channel.trouble = (response) => sendProblem(response, status, code)
  await using sender = startEventSender(options(channel, spool))
  appendMany(spool, 1)
  expect(await sender.flushed()).toBe(false)
  expect(await sender.ended).toEqual({ kind: 'refused', code, status, message: `${code}.` })
  expect(spool.ackedN).toBe(0)
})

test('of an execution that is over the rest is still sent', async () => {
  const channel = await startChannel()
  const spool = await newSpool()
  channel.superseded = true
  let told = 0
  await using sender = startEventSender(
    options(channel, spool, { maxEvents: 5, lingerMs: 0, onSuperseded: () => told++ }),
  )
  appendMany(spool, 20)
  expect(await sender.flushed()).toBe(true)
  expect(storedNumbers(channel)).toEqual(range(1, 20))
  expect(told).toBe(1)
})

test('something on the way that takes only small bodies does not stop the events', async () => {
  const channel = await startChannel()
  const spool = await newSpool()
  channel.trouble = (response, batch) =>
    JSON.stringify(batch).length > 2_000 && !!response.writeHead(413).end('<html>nginx')
  await using sender = startEventSender(options(channel, spool, { lingerMs: 0 }))
  appendMany(spool, 30)
  spool.append([notice('x'.repeat(3_000)), notice('after')])
  expect(await sender.flushed()).toBe(true)
  expect(storedNumbers(channel)).toEqual(range(1, 32))
  expect(channel.stored[30]).toMatchObject({ n: 31, type: 'event_invalid' })
  expect(channel.stored[31]).toMatchObject({ data: { text: 'after' } })
})

test('who waits for the end can give up, and stopping ends everything at once', async () => {
  const channel = await startChannel()
  const spool = await newSpool()
  channel.trouble = () => true
  const stop = new AbortController()
  const sender = startEventSender(options(channel, spool, { signal: stop.signal }))
  appendMany(spool, 1)
  await expect(sender.flushed(AbortSignal.timeout(50))).rejects.toMatchObject({ name: 'TimeoutError' })
  const flushed = sender.flushed()
  const started = performance.now()
  stop.abort()
  expect(await sender.ended).toEqual({ kind: 'stopped' })
  expect(await flushed).toBe(false)
  await sender.stop()
  expect(performance.now() - started).toBeLessThan(500)
})

test('a worker drains what a dead agent left', async () => {
  const channel = await startChannel()
  const spool = await newSpool()
  appendMany(spool, 250)
  spool.acknowledge(20)
  channel.stored.push(...range(1, 30).map((n) => ({ n, type: 'notice', at: '', data: {} })))
  expect(await drainSpool(options(channel, spool))).toEqual({ kind: 'drained' })
  expect(storedNumbers(channel)).toEqual(range(1, 250))
  expect(await drainSpool(options(channel, spool))).toEqual({ kind: 'drained' })
  appendMany(spool, 1)
  channel.trouble = (response) => sendProblem(response, 410, 'execution_superseded')
  expect(await drainSpool(options(channel, spool))).toMatchObject({ kind: 'refused', status: 410 })
  channel.trouble = () => true
  expect(await drainSpool(options(channel, spool, { signal: AbortSignal.timeout(50) }))).toEqual({ kind: 'stopped' })
})

test('an error that nobody expected is retried and logged as one', () => {
  expect(judgeSendFailure(new TypeError('x'))).toMatchObject({ action: 'retry', isBug: true })
})

test('Retry-After is seconds or a date', () => {
  const read = (value: string) => retryAfterMs(new Headers({ 'retry-after': value }))
  expect(read('7')).toBe(7_000)
  expect(read(new Date(Date.now() + 60_000).toUTCString())).toBeGreaterThan(50_000)
  expect(read('soon')).toBeUndefined()
  expect(retryAfterMs(new Headers())).toBeUndefined()
})
