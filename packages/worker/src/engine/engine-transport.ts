/**
 * How requests reach an engine: `node:http` on a unix socket, on TCP with or without TLS, or through `ssh`.
 *
 * Short calls use connections again where making one costs something; streams have one each, which ends with them: a pull of minutes must not keep a
 * short call waiting.
 */

import http, { type IncomingMessage } from 'node:http'
import https from 'node:https'
import type { Duplex, Readable } from 'node:stream'
import { pipeline } from 'node:stream/promises'
import type { EngineAddress } from './engine-address.ts'
import { dialOverSsh } from './engine-ssh.ts'

export interface Transport {
  /** Resolves with whatever is answered; rejects with Node's error, or the signal's reason. */
  send(request: RawRequest): Promise<IncomingMessage>
  close(): Promise<void>
}

interface RawRequest {
  method: string
  path: string
  headers?: Record<string, string>
  body?: Buffer | Readable
  signal?: AbortSignal
  /** A connection of its own. */
  isStream?: boolean
}

/** Of `ssh`, whose servers turn many at once away. */
const maxSshConnections = 8
/** Notices an engine whose machine is gone, however long nobody has said anything. */
const probeAfterMs = 30_000
/** An engine that does not say that it will take the body gets it all the same, as `curl` does. */
const continueWaitMs = 1_000

export function createTransport(address: EngineAddress, env: NodeJS.ProcessEnv): Transport {
  const maxSockets = address.kind === 'ssh' ? maxSshConnections : Number.POSITIVE_INFINITY
  const shared = { keepAlive: address.kind !== 'unix', maxSockets, maxFreeSockets: maxSshConnections }
  const agents = { shared: createAgent(address, shared, env), streams: createAgent(address, { keepAlive: false }, env) }
  const open = new Set<http.ClientRequest>()
  let isClosed = false
  const prefix = 'pathPrefix' in address ? address.pathPrefix : ''

  async function sendOnce(request: RawRequest): Promise<IncomingMessage> {
    const { method, path, headers, body, signal, isStream } = request
    signal?.throwIfAborted()
    if (isClosed) throw new Error('closed')
    const { promise, resolve, reject } = Promise.withResolvers<IncomingMessage>()
    const options = {
      ...placeOf(address),
      agent: isStream ? agents.streams : agents.shared,
      method,
      path: prefix + path,
      headers: { ...bodyHeaders(body), ...headers, 'user-agent': 'openoz' },
    }
    const sent = address.kind === 'tls' ? https.request(options) : http.request(options)
    open.add(sent)
    const onAbort = () => sent.destroy(reasonOf(signal))
    signal?.addEventListener('abort', onAbort, { once: true })
    sent.once('close', () => {
      open.delete(sent)
      signal?.removeEventListener('abort', onAbort)
      if (body && !Buffer.isBuffer(body)) body.destroy()
    })
    sent.once('socket', (socket) => socket.setKeepAlive(true, probeAfterMs))
    sent.once('response', (answer) => {
      // From here on whoever reads the answer is to be told, not we.
      signal?.removeEventListener('abort', onAbort)
      const onLateAbort = () => answer.destroy(reasonOf(signal))
      signal?.addEventListener('abort', onLateAbort, { once: true })
      answer.once('close', () => signal?.removeEventListener('abort', onLateAbort))
      resolve(answer)
    })
    // Stays: an error after the answer's end has nobody else to go to.
    sent.on('error', reject)
    sendBody(sent, body)
    return promise
  }

  async function send(request: RawRequest): Promise<IncomingMessage> {
    try {
      return await sendOnce(request)
    } catch (error) {
      request.signal?.throwIfAborted()
      // The engine had closed the connection that was kept, just as it was used again.
      if (request.method === 'GET' && isReset(error)) return sendOnce(request)
      throw error
    }
  }

  async function close(): Promise<void> {
    isClosed = true
    for (const request of open) request.destroy(new Error('closed'))
    agents.shared.destroy()
    agents.streams.destroy()
  }

  return { send, close }
}

/** To the end, as text. Rejects when it is cut short. `maxBytes`: the rest is not read. */
export async function readText(answer: IncomingMessage, maxBytes = Number.POSITIVE_INFINITY): Promise<string> {
  const chunks: Buffer[] = []
  let bytes = 0
  for await (const chunk of answer as AsyncIterable<Buffer>) {
    chunks.push(chunk)
    bytes += chunk.length
    if (bytes >= maxBytes) break
  }
  return Buffer.concat(chunks).toString('utf8')
}

function placeOf(address: EngineAddress): http.RequestOptions {
  switch (address.kind) {
    case 'unix':
      return { socketPath: address.socketPath, host: 'docker' }
    case 'tcp':
      return { host: address.host, port: address.port }
    case 'tls':
      return { host: address.host, port: address.port, ...address.tls } as http.RequestOptions
    case 'ssh':
      return { host: 'docker' }
  }
}

function createAgent(address: EngineAddress, options: http.AgentOptions, env: NodeJS.ProcessEnv): http.Agent {
  if (address.kind === 'tls') return new https.Agent({ ...options, ...address.tls })
  if (address.kind === 'ssh') return new SshAgent(options, () => dialOverSsh(address, env))
  return new http.Agent(options)
}

class SshAgent extends http.Agent {
  readonly #dial: () => Duplex

  constructor(options: http.AgentOptions, dial: () => Duplex) {
    super(options)
    this.#dial = dial
  }

  override createConnection(): Duplex {
    return this.#dial()
  }
}

function bodyHeaders(body: RawRequest['body']): Record<string, string | number> {
  if (body === undefined) return {}
  if (Buffer.isBuffer(body)) return { 'content-type': 'application/x-tar', 'content-length': body.length }
  return { 'content-type': 'application/x-tar', 'transfer-encoding': 'chunked', expect: '100-continue' }
}

/**
 * A stream is sent once the engine has said that it takes it: one that refuses closes the connection while we write, and its reason
 * would be lost with it.
 */
function sendBody(sent: http.ClientRequest, body: RawRequest['body']): void {
  if (body === undefined || Buffer.isBuffer(body)) {
    sent.end(body)
    return
  }
  const begin = () => {
    clearTimeout(timer)
    sent.off('continue', begin)
    pipeline(body, sent).catch((error) => sent.destroy(error))
  }
  const timer = setTimeout(begin, continueWaitMs)
  sent.once('continue', begin)
  sent.once('response', () => clearTimeout(timer))
  sent.once('close', () => clearTimeout(timer))
  sent.flushHeaders()
}

function reasonOf(signal: AbortSignal | undefined): Error {
  return signal?.reason instanceof Error ? signal.reason : new Error('aborted')
}

function isReset(error: unknown): boolean {
  return error instanceof Error && 'code' in error && (error.code === 'ECONNRESET' || error.code === 'EPIPE')
}
