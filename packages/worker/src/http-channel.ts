import { EventEmitter } from 'node:events'
import {
  type Dialer,
  fullJitterMs,
  judgeSendFailure,
  readAnswerOrRetryLater,
  type SendDecision,
  type StreamEvent,
  sleep,
} from '@openoz/machine'
import { AppError, type WorkerFramesResponse } from '@openoz/protocol'
import { maxWorkerFrames, workerCloseCodes } from '@openoz/protocol/schemas'
import type { WorkerSocket } from './socket-dial.ts'

/**
 * The worker's connection over plain HTTP, as a socket: what the control plane says is a stream of server-sent events, what the worker says goes by
 * POST, one at a time, and is repeated until it is answered or the stream has ended. Frames are numbered, so a repetition is none to the control plane.
 *
 * A ping is a frame too (`heartbeat`); its pong comes when the control plane has handled all frames up to it, which is also what a pong of the WebSocket
 * says. Between frames a heartbeat goes every 5 s: the control plane takes 20 s of silence for the end.
 */

const heartbeatEveryMs = 5_000
/** Six missed pings of the control plane. */
const idleTimeoutMs = 30_000
/** Two fit into the silence that the control plane endures. */
const postTimeoutMs = 8_000
/** Proxies have limits; 1 MB is a common one. */
const maxPostCharacters = 256 * 1024

const heartbeat = JSON.stringify({ type: 'heartbeat', data: {} })

interface HttpChannelOptions {
  dialer: Dialer
  /** Path on the server, or a URL. */
  address: string
  workerId: string
  headers: Record<string, string>
  openTimeoutMs: number
  signal: AbortSignal
}

/** Resolves once the stream has brought its first event: something in between may pass the request and keep the answer. Rejects as dialling does. */
export async function openHttpChannel(options: HttpChannelOptions): Promise<WorkerSocket> {
  const { dialer, address, workerId, headers, openTimeoutMs, signal } = options
  const stop = new AbortController()
  const onAbort = () => stop.abort(signal.reason)
  signal.addEventListener('abort', onAbort, { once: true })
  if (signal.aborted) onAbort()
  const opening = setTimeout(() => stop.abort(streamBlocked(dialer.serverUrl, openTimeoutMs)), openTimeoutMs)
  try {
    const path = `${address}?worker_id=${encodeURIComponent(workerId)}`
    const events = dialer.eventStream(path, { headers, signal: stop.signal, idleTimeoutMs })
    const { value } = await events.next()
    const channelId = value?.event === 'open' ? channelIdOf(value.data) : undefined
    if (channelId !== undefined)
      return new HttpChannel({ dialer, path: `${address}/${channelId}`, headers, events, stop })
    stop.abort()
    throw new AppError('server_answer_unreadable', { url: dialer.serverUrl, status: 200 })
  } finally {
    clearTimeout(opening)
    signal.removeEventListener('abort', onAbort)
  }
}

interface OpenChannel {
  dialer: Dialer
  path: string
  headers: Record<string, string>
  events: AsyncGenerator<StreamEvent, void, undefined>
  stop: AbortController
}

class HttpChannel extends EventEmitter implements WorkerSocket {
  readonly OPEN = 1
  readyState = 1
  readonly #channel: OpenChannel
  readonly #heartbeat: NodeJS.Timeout
  /** Not answered yet; the first has the number `#first`. */
  #frames: string[] = []
  #first = 1
  #handled = 0
  #pings: { payload: string; number: number }[] = []
  #isPosting = false
  #maxPostCharacters = maxPostCharacters

  constructor(channel: OpenChannel) {
    super()
    this.#channel = channel
    this.#heartbeat = setInterval(() => {
      if (this.#frames.length === 0) this.send(heartbeat)
    }, heartbeatEveryMs)
    // The caller adds its listeners first.
    setImmediate(() => void this.#read())
  }

  send(text: string): void {
    if (this.readyState !== this.OPEN) return
    this.#frames.push(text)
    if (!this.#isPosting) void this.#post()
  }

  ping(payload: string): void {
    // What is on its way already will say as much.
    if (this.#handled >= this.#last) this.send(heartbeat)
    this.#pings.push({ payload, number: this.#last })
  }

  /** Nobody waits for an answer to it: the control plane sees the stream close. */
  close(code: number, reason: string): void {
    this.#end(code, reason)
  }

  terminate(): void {
    this.#end(1006, '')
  }

  get #last(): number {
    return this.#first + this.#frames.length - 1
  }

  async #read(): Promise<void> {
    try {
      for await (const event of this.#channel.events) this.#receive(event)
      this.#end(1006, 'the stream has ended')
    } catch (error) {
      if (this.readyState !== this.OPEN) return
      this.#end(1006, error instanceof Error ? error.message : 'the stream broke')
    }
  }

  #receive({ event, data }: StreamEvent): void {
    if (event === 'message') this.emit('message', data, false)
    else if (event === 'ping') this.emit('ping', Buffer.from(data))
    else if (event === 'handled') this.#onHandled(Number(read(data)?.through))
    else if (event === 'close') {
      const { code, reason } = read(data) ?? {}
      this.#end(typeof code === 'number' ? code : 1006, String(reason ?? ''))
    }
  }

  #onHandled(through: number): void {
    if (!Number.isSafeInteger(through)) return
    this.#handled = through
    for (const { payload } of this.#pings.filter(({ number }) => number <= through))
      this.emit('pong', Buffer.from(payload))
    this.#pings = this.#pings.filter(({ number }) => number > through)
  }

  async #post(): Promise<void> {
    const { signal } = this.#channel.stop
    this.#isPosting = true
    for (let attempt = 0; this.#frames.length > 0 && !signal.aborted; attempt++) {
      const count = this.#countForPost()
      try {
        const received = await this.#postOnce(this.#frames.slice(0, count), signal)
        this.#frames.splice(0, received + 1 - this.#first)
        this.#first = received + 1
        attempt = -1
      } catch (error) {
        if (signal.aborted) break
        const decision = judgeSendFailure(error)
        if (decision.action === 'refused') this.#end(...closeOf(decision))
        else if (decision.action === 'shrink') this.#shrink(count, decision.problem)
        else await sleep(Math.max(decision.afterMs, fullJitterMs(attempt, { baseMs: 250, maxMs: 4_000 })), signal)
      }
    }
    this.#isPosting = false
  }

  async #postOnce(frames: string[], signal: AbortSignal): Promise<number> {
    const { dialer, path, headers } = this.#channel
    const first = this.#first
    const response = await dialer.fetch(path, {
      method: 'POST',
      headers: { ...headers, 'content-type': 'application/json' },
      body: `{"first":${first},"frames":[${frames.join(',')}]}`,
      signal: AbortSignal.any([signal, AbortSignal.timeout(postTimeoutMs)]),
    })
    const { received } = await readAnswerOrRetryLater<WorkerFramesResponse>(response, dialer.serverUrl)
    if (received >= first + frames.length - 1 && received <= this.#last) return received
    throw new AppError('server_answer_unreadable', { url: dialer.serverUrl, status: response.status })
  }

  #countForPost(): number {
    let characters = 0
    let count = 0
    for (const frame of this.#frames.slice(0, maxWorkerFrames)) {
      characters += frame.length
      if (count > 0 && characters > this.#maxPostCharacters) break
      count += 1
    }
    return count
  }

  #shrink(count: number, problem: string): void {
    if (count === 1) this.#end(1009, `one message alone is too large: ${problem}`)
    else this.#maxPostCharacters = Math.floor(Math.min(this.#maxPostCharacters, this.#length(count)) / 2)
  }

  #length(count: number): number {
    return this.#frames.slice(0, count).reduce((sum, frame) => sum + frame.length, 0)
  }

  #end(code: number, reason: string): void {
    if (this.readyState !== this.OPEN) return
    this.readyState = 3
    clearInterval(this.#heartbeat)
    this.#channel.stop.abort(new Error('closed'))
    this.emit('close', code, Buffer.from(reason))
  }
}

/** As the control plane would have closed a WebSocket for it. */
function closeOf({ status, message }: Extract<SendDecision, { action: 'refused' }>): [number, string] {
  if (status === 401 || status === 403) return [workerCloseCodes.keyRefused, message]
  return [status === 400 ? workerCloseCodes.protocolViolation : 1006, message]
}

function channelIdOf(data: string): string | undefined {
  const id = read(data)?.channel_id
  return typeof id === 'string' ? id : undefined
}

function read(data: string): Record<string, unknown> | undefined {
  try {
    const json: unknown = JSON.parse(data)
    return typeof json === 'object' && json !== null ? (json as Record<string, unknown>) : undefined
  } catch {
    return undefined
  }
}

function streamBlocked(url: string, afterMs: number): AppError {
  const problem = `the stream of the plain HTTP channel did not begin within ${afterMs / 1000} s`
  return new AppError('server_unreachable', { url, reason: 'timeout', problem })
}
