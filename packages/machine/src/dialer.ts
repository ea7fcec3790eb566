import { readFileSync } from 'node:fs'
import { AppError } from '@openoz/protocol'
import type { WebSocket } from 'ws'
import type { ArrangedFetch } from './arranged-fetch.ts'
import type { Connect } from './connector.ts'
import { toDialError } from './dial-failure.ts'
import { type EventStreamOptions, readEventStream, type StreamEvent } from './event-stream.ts'
import { proxyFor } from './proxy-environment.ts'
import { parseServerAddress, urlOnServer } from './server-address.ts'
import type { WebSocketOptions } from './web-socket.ts'

/**
 * The one way from a worker, an agent or the CLI to the control plane. It honours `HTTPS_PROXY`, `HTTP_PROXY` and `NO_PROXY`, extra
 * authorities in `OZ_CA_FILE` and `NODE_EXTRA_CA_CERTS`, and `unix:` addresses, for requests, event streams and WebSockets alike.
 *
 * No answer is always an AppError `server_unreachable` whose `details.reason` is a DialFailureReason (see `dialFailureReason`); an
 * answer that says no is an answer. When the caller's own signal aborts, its reason is thrown, except that a timeout of the caller
 * (`AbortSignal.timeout`) is an unreachable server too. Nothing is retried here.
 *
 * Requests that need nothing special go through Node's own `fetch`; what the others and WebSockets need is loaded when it is first used,
 * because an agent's start waits for every module.
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
  /** For name, TCP, proxy and TLS together. Default: 10 s, which is also Node's. */
  connectTimeoutMs?: number
}

/** Throws `option_invalid` for an address or a CA file that cannot be used; opens no connection yet. */
export function createDialer(options: DialerOptions): Dialer {
  const { env = process.env, connectTimeoutMs } = options
  const address = parseServerAddress(options.serverUrl)
  const { socketPath } = address
  // Node itself trusts what this process was started with.
  const extra = env.NODE_EXTRA_CA_CERTS === process.env.NODE_EXTRA_CA_CERTS ? undefined : env.NODE_EXTRA_CA_CERTS
  const authorities = [options.caFile ?? env.OZ_CA_FILE, extra].flatMap(readAuthorities)
  const closing = new AbortController()

  let connector: Promise<Connect> | undefined
  const loadConnector = () => {
    connector ??= import('./connector.ts').then(({ createConnector }) =>
      createConnector({
        socketPath,
        proxyFor: (target) => proxyFor(target, env),
        authorities,
        timeoutMs: connectTimeoutMs ?? 10_000,
      }),
    )
    return connector
  }
  let arrangedFetch: Promise<ArrangedFetch> | undefined
  const loadArrangedFetch = () => {
    arrangedFetch ??= import('./arranged-fetch.ts').then(async ({ createArrangedFetch }) =>
      createArrangedFetch(await loadConnector()),
    )
    return arrangedFetch
  }
  // Node would decide by itself what goes through a proxy, and reads NO_PROXY differently.
  const isArranged =
    socketPath !== undefined ||
    authorities.length > 0 ||
    connectTimeoutMs !== undefined ||
    env.NODE_USE_ENV_PROXY !== undefined

  const shownAddress = (path: string | URL, url: URL) =>
    typeof path === 'string' && path.startsWith('/') ? address.display : url.origin

  async function dialFetch(path: string | URL, init: RequestInit = {}): Promise<Response> {
    const url = urlOnServer(address, path)
    const shown = shownAddress(path, url)
    const signal = init.signal ? AbortSignal.any([closing.signal, init.signal]) : closing.signal
    let response: Response
    try {
      const needsArranging = isArranged || proxyFor(url, env) !== undefined
      const send = needsArranging ? (await loadArrangedFetch()).fetch : fetch
      response = await send(url, { redirect: 'manual', ...init, signal })
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
      const [{ openWebSocket }, connect] = await Promise.all([import('./web-socket.ts'), loadConnector()])
      return openWebSocket({ url, shown: shownAddress(path, url), connect, connectTimeoutMs, ...socketOptions })
    },
    eventStream: (path, streamOptions = {}) =>
      readEventStream((init) => dialFetch(path, init), { shown: address.display, ...streamOptions }),
    async close() {
      closing.abort(
        new AppError('server_unreachable', { url: address.display, reason: 'other', problem: 'we are closing' }),
      )
      await (await arrangedFetch)?.close()
    },
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

/** What a PEM file of authorities holds; nothing when none is named. */
function readAuthorities(file: string | undefined): string[] {
  if (!file) return []
  try {
    const pem = readFileSync(file, 'utf8')
    if (pem.includes('-----BEGIN CERTIFICATE-----')) return [pem]
  } catch (error) {
    const code = error instanceof Error && 'code' in error ? error.code : 'unreadable'
    throw new AppError('option_invalid', { option: `The CA file ${file}`, problem: `it cannot be read (${code})` })
  }
  throw new AppError('option_invalid', { option: `The CA file ${file}`, problem: 'it holds no PEM certificate' })
}
