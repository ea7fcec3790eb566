import { type Dialer, dialFailureReason } from '@openoz/machine'
import { ApiError, AppError } from '@openoz/protocol'
import {
  workerChannelPath,
  workerProtocolHeader,
  workerProtocolVersion,
  workerSocketPath,
} from '@openoz/protocol/schemas'
import type { Logger } from 'pino'
import { openHttpChannel } from './http-channel.ts'

/**
 * Which socket a worker gets. The WebSocket is tried first. Where HTTP reaches the control plane and the WebSocket does not, something in between ends
 * it: the plain HTTP channel is opened instead, at once, and for 10 minutes is what is tried first, so that a connection that breaks there is not long
 * away. Where that does not pass either, the problem is `websocket_blocked`. That is no refusal: the network may be repaired.
 */

/** What is used of a socket: ws' WebSocket, or the plain HTTP channel. A pong says that all that was sent before its ping was handled. */
export interface WorkerSocket {
  readonly readyState: number
  readonly OPEN: number
  send(text: string): void
  ping(payload: string): void
  close(code: number, reason: string): void
  /** Ends at once. */
  terminate(): void
  on(event: 'message', listener: (data: { toString(): string }, isBinary: boolean) => void): unknown
  on(event: 'ping' | 'pong', listener: (payload: Buffer) => void): unknown
  on(event: 'error', listener: (error: Error) => void): unknown
  /** The end, once, whoever wanted it. */
  on(event: 'close', listener: (code: number, reason: Buffer) => void): unknown
}

interface SocketDialOptions {
  dialer: Dialer
  workerId: string
  apiKey: string
  webSocketUrl: string | undefined
  log: Logger
  timing?: Partial<DialTiming>
}

interface DialTiming {
  /** After the WebSocket was found blocked. */
  httpFirstMs: number
  /** For the first event of a stream. */
  openTimeoutMs: number
}

const defaultTiming: DialTiming = { httpFirstMs: 10 * 60_000, openTimeoutMs: 10_000 }

export class SocketDial {
  readonly #options: SocketDialOptions
  readonly #timing: DialTiming
  /** When the WebSocket was last found blocked while plain HTTP worked. */
  #blockedAt = -Infinity

  constructor(options: SocketDialOptions) {
    this.#options = options
    this.#timing = { ...defaultTiming, ...options.timing }
  }

  async dial(signal: AbortSignal): Promise<WorkerSocket> {
    const { log } = this.#options
    if (performance.now() - this.#blockedAt < this.#timing.httpFirstMs) {
      try {
        return await this.#openHttpChannel(signal)
      } catch (error) {
        if (signal.aborted || isFinal(error)) throw error
        log.debug(detailsOf(error), 'Why the plain HTTP channel could not be opened')
      }
    }
    try {
      return await this.#openWebSocket(signal)
    } catch (error) {
      log.debug(detailsOf(error), 'Why the server could not be dialled')
      const problem = signal.aborted ? undefined : await this.#blockedBy(error, signal)
      if (problem === undefined) throw error
      return await this.#openInstead(problem, signal)
    }
  }

  async #openInstead(problem: string, signal: AbortSignal): Promise<WorkerSocket> {
    const { log } = this.#options
    try {
      const socket = await this.#openHttpChannel(signal)
      this.#blockedAt = performance.now()
      log.warn({ url: this.#url, problem }, 'The WebSocket is blocked on the way; the plain HTTP channel is used')
      return socket
    } catch (error) {
      if (signal.aborted || isFinal(error)) throw error
      log.debug(detailsOf(error), 'Why the plain HTTP channel could not be opened')
      const details = { url: this.#url, problem, channelProblem: problemOf(error) }
      throw new AppError('websocket_blocked', details, { cause: error })
    }
  }

  /** What came in place of the WebSocket, when the control plane answers over HTTP on the way on which that failed. */
  async #blockedBy(error: unknown, signal: AbortSignal): Promise<string | undefined> {
    if (!mayBeBlocked(error)) return undefined
    const problem = error instanceof ApiError ? 'the upgrade was taken out on the way' : problemOf(error)
    try {
      const response = await this.#options.dialer.fetch(this.#httpAddress('/healthz'), {
        signal: AbortSignal.any([signal, AbortSignal.timeout(10_000)]),
      })
      await response.body?.cancel()
      return response.ok ? problem : undefined
    } catch {
      return undefined
    }
  }

  #openWebSocket(signal: AbortSignal): Promise<WorkerSocket> {
    const { dialer, workerId, webSocketUrl = workerSocketPath } = this.#options
    const query = `worker_id=${encodeURIComponent(workerId)}`
    const address = `${webSocketUrl}${webSocketUrl.includes('?') ? '&' : '?'}${query}`
    return dialer.openWebSocket(address, { headers: this.#headers, signal })
  }

  #openHttpChannel(signal: AbortSignal): Promise<WorkerSocket> {
    const { dialer, workerId } = this.#options
    const address = this.#httpAddress(workerChannelPath)
    return openHttpChannel({
      dialer,
      address,
      workerId,
      headers: this.#headers,
      openTimeoutMs: this.#timing.openTimeoutMs,
      signal,
    })
  }

  get #headers(): Record<string, string> {
    return {
      authorization: `Bearer ${this.#options.apiKey}`,
      [workerProtocolHeader]: String(workerProtocolVersion),
    }
  }

  get #url(): string {
    const { webSocketUrl, dialer } = this.#options
    return webSocketUrl === undefined ? dialer.serverUrl : new URL(webSocketUrl.replace(/^ws/, 'http')).origin
  }

  /** Where the WebSocket has an address of its own, HTTP is asked for there. */
  #httpAddress(path: string): string {
    return this.#options.webSocketUrl === undefined ? path : `${this.#url}${path}`
  }
}

/** 401, 403 and every other refusal that the server itself calls final. Anything else may pass: restarts, proxies, networks. */
export function isFinal(error: unknown): error is Error {
  if (error instanceof ApiError) {
    const { status, retryable, code } = error.problem
    // Asked without an upgrade, or by a worker that is newer, it has no such route.
    return status < 500 && status !== 429 && retryable !== true && code !== 'route_not_found'
  }
  if (!(error instanceof AppError)) return false
  const { status } = error.details
  if (error.code === 'server_answer_unreadable') return status === 401 || status === 403
  return error.code !== 'server_unreachable' && error.code !== 'websocket_blocked'
}

/** An answer that is not the control plane's, an upgrade that was taken out on the way, or a connection that was cut during the handshake. */
function mayBeBlocked(error: unknown): boolean {
  if (error instanceof ApiError) return error.problem.code === 'route_not_found'
  if (!(error instanceof AppError)) return false
  if (error.code === 'server_answer_unreadable') return true
  return ['reset', 'protocol', 'timeout'].includes(dialFailureReason(error) ?? '')
}

function problemOf(error: unknown): string {
  if (error instanceof ApiError) return error.problem.detail
  if (!(error instanceof AppError)) return 'unknown error'
  const { status, problem = `it answered ${status}` } = error.details
  return String(problem)
}

/** For operators who look closely. Texts of other libraries are left out: they may quote a header. */
function detailsOf(error: unknown): Record<string, unknown> {
  if (!(error instanceof AppError)) return { error: error instanceof Error ? error.name : 'unknown' }
  const { cause } = error
  const inner =
    cause instanceof Error && 'code' in cause
      ? { cause: cause.code, syscall: 'syscall' in cause ? cause.syscall : undefined }
      : {}
  return { code: error.code, ...error.details, ...inner }
}
