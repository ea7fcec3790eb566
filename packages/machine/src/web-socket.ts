import type { IncomingMessage } from 'node:http'
import type { Socket } from 'node:net'
import { AppError, readAnswer } from '@openoz/protocol'
import { WebSocket } from 'ws'
import type { Connect } from './connector.ts'
import { toDialError } from './dial-failure.ts'

export interface WebSocketOptions {
  headers?: Record<string, string>
  protocols?: string[]
  /** Gives up opening; an open socket is not touched. */
  signal?: AbortSignal
  /** A longer frame closes the socket with 1009. */
  maxPayloadBytes?: number
}

const maxRefusalBytes = 64 * 1024

export async function openWebSocket(
  options: WebSocketOptions & { url: URL; shown: string; connect: Connect; connectTimeoutMs?: number },
): Promise<WebSocket> {
  const { url, shown, connect, connectTimeoutMs = 10_000, headers = {}, protocols = [], signal } = options
  const { maxPayloadBytes = 16 * 1024 * 1024 } = options
  try {
    signal?.throwIfAborted()
    const socket = await connect(url, signal)
    const webSocket = handshake(socket, { url, protocols, headers, maxPayloadBytes })
    // ws leaves its own handshake timeout to the agent that made the socket, and there is none here.
    const deadline = AbortSignal.timeout(connectTimeoutMs)
    return await opened(webSocket, shown, signal ? AbortSignal.any([signal, deadline]) : deadline)
  } catch (error) {
    if (signal?.aborted && error === signal.reason) throw error
    if (error instanceof Error && error.name === 'ApiError') throw error
    throw toDialError(error, shown)
  }
}

function handshake(
  socket: Socket,
  options: { url: URL; protocols: string[]; headers: Record<string, string>; maxPayloadBytes: number },
): WebSocket {
  try {
    return new WebSocket(options.url.href.replace(/^http/, 'ws'), options.protocols, {
      createConnection: () => socket,
      headers: options.headers,
      maxPayload: options.maxPayloadBytes,
      perMessageDeflate: false,
    })
  } catch (error) {
    // A header that cannot be sent; the connection is not ws's yet.
    socket.destroy()
    throw error
  }
}

function opened(webSocket: WebSocket, shown: string, signal: AbortSignal): Promise<WebSocket> {
  return new Promise((resolve, reject) => {
    const fail = (error: unknown) => {
      signal.removeEventListener('abort', onAbort)
      webSocket.removeAllListeners()
      // ws reports what it thinks of being cut short; nobody is interested any more.
      webSocket.on('error', () => {})
      webSocket.terminate()
      reject(error)
    }
    const onAbort = () => fail(signal.reason)
    signal.addEventListener('abort', onAbort, { once: true })
    webSocket.once('error', (error: Error) => fail(codedLikeNode(error)))
    webSocket.once('unexpected-response', (_request, response: IncomingMessage) => {
      readRefusal(response, shown).then(fail, fail)
    })
    webSocket.once('open', () => {
      signal.removeEventListener('abort', onAbort)
      webSocket.removeAllListeners()
      // Every error is followed by `close`; a caller that listens only for that must not die of the error.
      webSocket.on('error', () => {})
      // Frames may already be here, and would be gone before the caller's `await` goes on and adds its listeners.
      webSocket.pause()
      setImmediate(() => webSocket.resume())
      resolve(webSocket)
    })
  })
}

/** ws has sentences instead of codes for a handshake that breaks the protocol. */
function codedLikeNode(error: Error): Error {
  return 'code' in error ? error : Object.assign(new Error('handshake failed'), { code: 'HPE_WEBSOCKET' })
}

/** Resolves with the error that the server's answer stands for. */
async function readRefusal(response: IncomingMessage, shown: string): Promise<unknown> {
  const chunks: Buffer[] = []
  let size = 0
  try {
    for await (const chunk of response) {
      size += (chunk as Buffer).length
      if (size > maxRefusalBytes) break
      chunks.push(chunk as Buffer)
    }
  } catch {
    // Half a refusal is still a refusal.
  }
  const status = response.statusCode ?? 0
  if (status < 400) return new AppError('server_answer_unreadable', { url: shown, status })
  return readAnswer(new Response(Buffer.concat(chunks), { status })).catch((error: unknown) =>
    error instanceof AppError ? new AppError('server_answer_unreadable', { url: shown, status }) : error,
  )
}
