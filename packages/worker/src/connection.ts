import { type Dialer, fullJitterMs, sleep } from '@openoz/machine'
import { AppError, type ErrorCode, type ServerMessage, type WorkerMessage } from '@openoz/protocol'
import { serverMessage, workerCloseCodes } from '@openoz/protocol/schemas'
import type { Logger } from 'pino'
import { Outbox } from './outbox.ts'
import { isFinal, SocketDial, type WorkerSocket } from './socket-dial.ts'

/**
 * The worker's one connection to the control plane, dialled out and dialled again for ever. It owns the socket and the outbox; what the
 * messages mean is the caller's.
 *
 * connecting → open (hello, then what waited) → broken → waiting (full jitter, up to 10 s) → connecting …
 * It ends when the caller closes it, or with an error when the control plane refused this worker for good: reconnecting with a wrong key
 * would only fill two logs.
 *
 * Which kind of socket it is, `socket-dial.ts` decides.
 */
interface ConnectionOptions {
  dialer: Dialer
  workerId: string
  apiKey: string
  webSocketUrl?: string
  log: Logger
  /** Sent first on every connection. */
  hello: () => Extract<WorkerMessage, { type: 'worker_hello' }>
  onMessage: (message: ServerMessage) => void
  onOpen?: () => void
  /** The control plane has handled this connection's hello. */
  onHello?: (hello: Extract<WorkerMessage, { type: 'worker_hello' }>) => void
  onBroken?: (problem: string, reason: 'dial_failed' | 'remote_close') => void
  timing?: Partial<ConnectionTiming>
}

export interface ConnectionTiming {
  /** The reference pings every 30 s; half of that notices a dead path within a minute. */
  pingEveryMs: number
  pongWaitMs: number
  backoffBaseMs: number
  backoffMaxMs: number
  /** A connection that lived this long was a good one: the next back-off starts from the beginning. */
  stableAfterMs: number
}

const defaultTiming: ConnectionTiming = {
  pingEveryMs: 15_000,
  pongWaitMs: 60_000,
  backoffBaseMs: 1_000,
  // Of an hour without a control plane nobody notices six dials a minute; of a restart everybody notices a minute.
  backoffMaxMs: 10_000,
  stableAfterMs: 5_000,
}

export class Connection {
  readonly #options: ConnectionOptions
  readonly #timing: ConnectionTiming
  readonly #outbox = new Outbox()
  readonly #dial: SocketDial
  #socket: WorkerSocket | undefined
  #settled: (() => void) | undefined
  #isRenewing = false

  constructor(options: ConnectionOptions) {
    this.#options = options
    this.#timing = { ...defaultTiming, ...options.timing }
    const { dialer, workerId, apiKey, webSocketUrl, log } = options
    this.#dial = new SocketDial({ dialer, workerId, apiKey, webSocketUrl, log })
  }

  /** Queues a message; it is written at once when a connection is open, else on the next one. */
  send(message: WorkerMessage): void {
    this.#outbox.push(message)
    this.#flush()
  }

  /** The same, and resolves when the control plane has handled it, on whichever connection. For claims, ends and `task_gone`. */
  deliver(message: WorkerMessage): Promise<void> {
    const confirmed = this.#outbox.confirmed(message)
    this.send(message)
    return confirmed
  }

  /** Says hello anew, which a connection does once: this one is closed and dialled again at once. */
  renew(): void {
    const socket = this.#socket
    if (socket === undefined) return
    this.#isRenewing = true
    socket.close(1000, 'the worker says hello anew')
    setTimeout(() => socket.terminate(), 1_000).unref()
  }

  /** Connects and stays connected until the signal is aborted. Rejects when the control plane refuses this worker for good. */
  async run(signal: AbortSignal): Promise<void> {
    const { log, onBroken, dialer, webSocketUrl = dialer.serverUrl } = this.#options
    let attempt = 0
    while (!signal.aborted) {
      const startedAt = performance.now()
      log.debug({ url: webSocketUrl, attempt }, 'Dialling the server')
      let problem: string
      let code: ErrorCode | undefined
      let reason: 'dial_failed' | 'remote_close' = 'dial_failed'
      try {
        const socket = await this.#dial.dial(signal)
        reason = 'remote_close'
        problem = await this.#serve(socket, signal)
      } catch (error) {
        if (signal.aborted) return
        if (isFinal(error)) throw error
        problem = error instanceof Error ? error.message : 'unknown error'
        if (error instanceof AppError) code = error.code
      }
      if (signal.aborted) return
      onBroken?.(problem, reason)
      if (this.#isRenewing) {
        this.#isRenewing = false
        continue
      }
      if (reason === 'remote_close' && performance.now() - startedAt > this.#timing.stableAfterMs) attempt = 0
      const waitMs = fullJitterMs(attempt++, { baseMs: this.#timing.backoffBaseMs, maxMs: this.#timing.backoffMaxMs })
      log.warn({ problem, code, retryInMs: Math.round(waitMs) }, 'Not connected to the server')
      await sleep(waitMs, signal)
    }
  }

  /** Waits until claims and outcomes have arrived, at most `timeoutMs`. False when some have not. */
  async settle(timeoutMs: number): Promise<boolean> {
    if (this.#outbox.isSettled) return true
    this.#ping()
    const timeout = new AbortController()
    const settled = new Promise<void>((resolve) => {
      this.#settled = resolve
    })
    await Promise.race([settled, sleep(timeoutMs, timeout.signal)])
    timeout.abort()
    this.#settled = undefined
    return this.#outbox.isSettled
  }

  /** Resolves with why the connection ended. Throws when the close code says not to come back. */
  #serve(socket: WorkerSocket, signal: AbortSignal): Promise<string> {
    const { log, onOpen, onHello } = this.#options
    const { pingEveryMs, pongWaitMs } = this.#timing
    return new Promise((resolve, reject) => {
      let heardAt = performance.now()
      let failure = ''
      let isHelloHandled = false
      const hello = this.#options.hello()
      const pinging = setInterval(() => {
        if (performance.now() - heardAt > pongWaitMs) {
          failure = `nothing was heard for ${Math.round(pongWaitMs / 1000)} s`
          socket.terminate()
        } else this.#ping()
      }, pingEveryMs)
      const onAbort = () => {
        socket.close(1000, 'worker stopped')
        // A server that does not answer the close must not keep the worker.
        setTimeout(() => socket.terminate(), 1_000).unref()
      }
      signal.addEventListener('abort', onAbort, { once: true })

      socket.on('message', (data, isBinary) => {
        heardAt = performance.now()
        this.#receive(isBinary ? undefined : String(data))
      })
      // Work of the control plane that hangs keeps its pongs back; its own pings go on.
      socket.on('ping', () => {
        heardAt = performance.now()
      })
      socket.on('pong', (payload) => {
        heardAt = performance.now()
        // Pings go out after the hello.
        if (!isHelloHandled) onHello?.(hello)
        isHelloHandled = true
        const writes = Number(payload.toString())
        if (Number.isSafeInteger(writes)) this.#outbox.confirm(writes)
        if (this.#outbox.isSettled) this.#settled?.()
      })
      socket.on('error', (error) => {
        failure ||= error.message
      })
      socket.on('close', (code, closeReason) => {
        clearInterval(pinging)
        signal.removeEventListener('abort', onAbort)
        this.#socket = undefined
        this.#outbox.reopen()
        const words = closeReason.toString() || failure || 'the connection was closed'
        const refusal = refusalOfClose(code, words, this.#options.workerId)
        if (refusal) reject(refusal)
        else resolve(`${words} (${code})`)
      })

      socket.send(JSON.stringify(hello))
      this.#socket = socket
      this.#ping()
      log.info({ workerId: this.#options.workerId }, 'Successfully connected to server')
      onOpen?.()
      this.#flush()
      if (signal.aborted) onAbort()
    })
  }

  #flush(): void {
    const socket = this.#socket
    if (socket?.readyState !== socket?.OPEN || !socket) return
    let hasWritten = false
    for (let message = this.#outbox.take(); message !== undefined; message = this.#outbox.take()) {
      socket.send(JSON.stringify(message))
      hasWritten = true
    }
    if (hasWritten && !this.#outbox.isSettled) this.#ping()
  }

  #ping(): void {
    const socket = this.#socket
    if (socket && socket.readyState === socket.OPEN) socket.ping(String(this.#outbox.writes))
  }

  /** The control plane may be newer than we are: what we do not know is logged and left. Contents are never logged: they may hold secrets. */
  #receive(text: string | undefined): void {
    const { log, onMessage } = this.#options
    let json: unknown
    try {
      json = text === undefined ? undefined : JSON.parse(text)
    } catch {
      json = undefined
    }
    const parsed = serverMessage.safeParse(json)
    if (!parsed.success) {
      const type = isEnvelope(json) ? json.type.slice(0, 64) : undefined
      const fields = parsed.error.issues.map(({ path }) => path.join('.')).filter((path) => path !== '')
      if (type === undefined) log.warn('The server sent a frame that is no message; ignored')
      else if (isKnownType(type)) log.warn({ type, fields }, 'The server sent a malformed message; ignored')
      else log.warn({ type }, 'The server sent a message of an unknown type; ignored')
      return
    }
    try {
      onMessage(parsed.data)
    } catch (error) {
      log.error({ error }, 'A message could not be handled')
    }
  }
}

function refusalOfClose(code: number, words: string, workerId: string): AppError | undefined {
  if (code === workerCloseCodes.keyRefused) {
    return new AppError('worker_refused', { workerId, problem: words })
  }
  if (code === workerCloseCodes.protocolViolation) {
    return new AppError('worker_protocol_violation', { workerId, problem: words })
  }
  return code >= 4400 && code <= 4409 ? new AppError('worker_refused', { workerId, problem: words }) : undefined
}

function isEnvelope(json: unknown): json is { type: string } {
  return typeof json === 'object' && json !== null && 'type' in json && typeof json.type === 'string'
}

function isKnownType(type: string): boolean {
  return serverMessage.options.some((option) => option.shape.type.value === type)
}
