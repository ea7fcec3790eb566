import { readFileSync } from 'node:fs'
import { createSecureContext, getCACertificates, type SecureContext } from 'node:tls'
import { AppError } from '@openoz/protocol'
import { Agent, fetch as undiciFetch } from 'undici'
import type { WebSocket } from 'ws'
import { createConnector } from './connector.ts'
import { toDialError } from './dial-failure.ts'
import { type EventStreamOptions, readEventStream, type StreamEvent } from './event-stream.ts'
import { proxyFor } from './proxy-environment.ts'
import { parseServerAddress, urlOnServer } from './server-address.ts'
import { openWebSocket, type WebSocketOptions } from './web-socket.ts'

/**
 * The one way from a worker, an agent or the CLI to the control plane. It honours `HTTPS_PROXY`, `HTTP_PROXY` and `NO_PROXY`, extra
 * authorities in `OZ_CA_FILE` and `NODE_EXTRA_CA_CERTS`, and `unix:` addresses, for requests, event streams and WebSockets alike.
 *
 * No answer is always an AppError `server_unreachable` whose `details.reason` is a DialFailureReason (see `dialFailureReason`); an
 * answer that says no is an answer. When the caller's own signal aborts, its reason is thrown, except that a timeout of the caller
 * (`AbortSignal.timeout`) is an unreachable server too. Nothing is retried here.
 */
export interface Dialer {
  /** The address as people may see it. */
  readonly serverUrl: string
  /**
   * `path` begins with `/` and is looked up below the server's address; an absolute URL is taken as it is. Redirects are an error that
   * names the new address (a POST would silently become a GET) unless `init.redirect` says otherwise. Fits `createApiClient`.
   */
  fetch(path: string | URL, init?: RequestInit): Promise<Response>
  /**
   * Resolves with an open socket; frames that came with the handshake are held back until the caller had a turn to add listeners.
   * A refusal rejects with ApiError (the server's problem document) or `server_answer_unreadable` with `details.status`.
   */
  openWebSocket(path: string | URL, options?: WebSocketOptions): Promise<WebSocket>
  /**
   * Server-sent events, until the server ends the stream (returns) or it breaks (throws `server_unreachable`; also when nothing, not even
   * a comment, came for `idleTimeoutMs`). A refusal throws like `openWebSocket`. Reconnecting is the caller's.
   */
  eventStream(path: string | URL, options?: EventStreamOptions): AsyncGenerator<StreamEvent, void, undefined>
  /** Ends all connections of requests and streams at once. WebSockets belong to who opened them. */
  close(): Promise<void>
}

export interface DialerOptions {
  /** `http://…`, `https://…` or `unix:/path/to.sock`. */
  serverUrl: string
  /** Where the proxy and authority variables are read from; the process's own by default. */
  env?: NodeJS.ProcessEnv
  /** PEM file of authorities to trust beside the usual ones; wins over `OZ_CA_FILE`. */
  caFile?: string
  /** For name, TCP, proxy and TLS together. */
  connectTimeoutMs?: number
  /** Until the head of an answer. */
  headersTimeoutMs?: number
  /** Between two pieces of an answer's body. */
  bodyTimeoutMs?: number
}

/** Throws `option_invalid` for an address or a CA file that cannot be used; opens no connection yet. */
export function createDialer(options: DialerOptions): Dialer {
  const { env = process.env, connectTimeoutMs = 10_000, headersTimeoutMs = 300_000, bodyTimeoutMs = 300_000 } = options
  const address = parseServerAddress(options.serverUrl)
  const connect = createConnector({
    socketPath: address.socketPath,
    proxyFor: (target) => proxyFor(target, env),
    secureContext: readTrust([options.caFile ?? env.OZ_CA_FILE, env.NODE_EXTRA_CA_CERTS]),
    timeoutMs: connectTimeoutMs,
  })
  const agent = new Agent({
    headersTimeout: headersTimeoutMs,
    bodyTimeout: bodyTimeoutMs,
    connect: ({ protocol, hostname, port }, callback) => {
      connect(new URL(`${protocol}//${hostname}${port ? `:${port}` : ''}`)).then(
        (socket) => callback(null, socket),
        (error: unknown) => callback(error instanceof Error ? error : new Error('not connected'), null),
      )
    },
  })

  const shownAddress = (path: string | URL, url: URL) =>
    typeof path === 'string' && path.startsWith('/') ? address.display : url.origin

  async function dialFetch(path: string | URL, init: RequestInit = {}): Promise<Response> {
    const url = urlOnServer(address, path)
    const shown = shownAddress(path, url)
    let response: Response
    try {
      // undici's own types and those that Node declares for its built-in copy describe the same objects.
      response = (await undiciFetch(url, {
        redirect: 'manual',
        ...(init as object),
        dispatcher: agent,
      })) as unknown as Response
    } catch (error) {
      throw callersReason(init.signal) ?? toDialError(error, shown)
    }
    if (init.redirect === undefined && response.status >= 300 && response.status < 400 && response.status !== 304) {
      const location = response.headers.get('location') ?? ''
      await response.body?.cancel()
      throw redirected(shown, location, url)
    }
    return response
  }

  return {
    serverUrl: address.display,
    fetch: dialFetch,
    async openWebSocket(path, socketOptions = {}) {
      const url = urlOnServer(address, path)
      return openWebSocket({ url, shown: shownAddress(path, url), connect, connectTimeoutMs, ...socketOptions })
    },
    eventStream: (path, streamOptions = {}) =>
      readEventStream((init) => dialFetch(path, init), { shown: address.display, ...streamOptions }),
    close: () => agent.destroy(),
  }
}

/** The reason to throw when it was the caller who stopped the request, and not because of a timeout. */
function callersReason(signal: AbortSignal | null | undefined): unknown {
  if (!signal?.aborted) return undefined
  const reason: unknown = signal.reason
  return reason instanceof Error && reason.name === 'TimeoutError' ? undefined : reason
}

function redirected(shown: string, location: string, from: URL): AppError {
  const to = URL.canParse(location, from.href) ? new URL(location, from.href).origin : 'another address'
  const problem = `it sends us to ${to}; use that address`
  return new AppError('server_unreachable', { url: shown, reason: 'redirect', problem })
}

/** Node's own authorities and the named files; undefined when there is no file, which costs nothing. */
function readTrust(files: (string | undefined)[]): SecureContext | undefined {
  const named = files.flatMap((file) => file || [])
  if (named.length === 0) return undefined
  const extra = named.map(readAuthorities)
  return createSecureContext({ ca: [...getCACertificates('default'), ...extra] })
}

function readAuthorities(file: string): string {
  try {
    const pem = readFileSync(file, 'utf8')
    if (pem.includes('-----BEGIN CERTIFICATE-----')) return pem
  } catch (error) {
    const code = error instanceof Error && 'code' in error ? error.code : 'unreadable'
    throw new AppError('option_invalid', { option: `The CA file ${file}`, problem: `it cannot be read (${code})` })
  }
  throw new AppError('option_invalid', { option: `The CA file ${file}`, problem: 'it holds no PEM certificate' })
}
