import { connect as connectTcp, isIP, type Socket } from 'node:net'
import { connect as connectTls, createSecureContext, getCACertificates, type SecureContext } from 'node:tls'
import { ProxyFailure, toDialError } from './dial-failure.ts'
import { bareHost, portOf } from './proxy-environment.ts'

/** Opens one connection, ready for HTTP. Rejects with the socket's error, a ProxyFailure, or the signal's reason. */
export type Connect = (target: URL, signal?: AbortSignal) => Promise<Socket>

export interface ConnectorOptions {
  /** Every connection goes to this unix socket, whatever its target. */
  socketPath: string | undefined
  proxyFor: (target: URL) => URL | undefined
  /** PEM texts of authorities to trust, for server and proxy, beside Node's own. */
  authorities: string[]
  /** For name, TCP, proxy and TLS together. */
  timeoutMs: number
}

/**
 * The one way to a connection, for requests and WebSockets alike, so that both go through the same proxy with the same trust and fail
 * in the same words. A proxy is always asked for a tunnel (CONNECT), for `http://` too: a WebSocket cannot travel otherwise.
 */
export function createConnector({ socketPath, proxyFor, authorities, timeoutMs }: ConnectorOptions): Connect {
  // Node's own trust costs nothing where nothing is added to it.
  const secureContext =
    authorities.length === 0
      ? undefined
      : createSecureContext({ ca: [...getCACertificates('default'), ...authorities] })
  return async (target, signal) => {
    const deadline = AbortSignal.timeout(timeoutMs)
    const either = signal ? AbortSignal.any([signal, deadline]) : deadline
    either.throwIfAborted()
    if (socketPath !== undefined) return opened(connectTcp({ path: socketPath }), 'connect', either)

    const proxy = proxyFor(target)
    const raw = proxy
      ? await openTunnel({ proxy, target, secureContext, signal: either })
      : await opened(connectTcp({ host: bareHost(target), port: portOf(target) }), 'connect', either)
    return target.protocol === 'https:' ? overTls({ raw, target, secureContext, signal: either }) : raw
  }
}

async function openTunnel(options: {
  proxy: URL
  target: URL
  secureContext: SecureContext | undefined
  signal: AbortSignal
}): Promise<Socket> {
  const { proxy, target, secureContext, signal } = options
  const name = `${bareHost(proxy)}:${portOf(proxy)}`
  if (proxy.protocol !== 'http:' && proxy.protocol !== 'https:') {
    throw new ProxyFailure(`the proxy ${name} is of a kind (${proxy.protocol}) that is not supported`)
  }
  let socket: Socket
  try {
    socket = await opened(connectTcp({ host: bareHost(proxy), port: portOf(proxy) }), 'connect', signal)
    if (proxy.protocol === 'https:') socket = await overTls({ raw: socket, target: proxy, secureContext, signal })
  } catch (error) {
    if (signal.aborted && error === signal.reason && !isTimeout(error)) throw error
    throw new ProxyFailure(`the proxy ${name} failed: ${toDialError(error, name).details.problem}`)
  }
  const status = await askForTunnel({ socket, proxy, target, signal })
  if (status === 200) return socket
  socket.destroy()
  const hint = status === 407 ? '; put user and password into the proxy variable' : ''
  throw new ProxyFailure(`the proxy ${name} answered ${status} to CONNECT ${authority(target)}${hint}`)
}

async function askForTunnel(options: {
  socket: Socket
  proxy: URL
  target: URL
  signal: AbortSignal
}): Promise<number> {
  const { socket, proxy, target, signal } = options
  const headers: Record<string, string> = { host: authority(target) }
  if (proxy.username !== '' || proxy.password !== '') {
    const credentials = `${decodeURIComponent(proxy.username)}:${decodeURIComponent(proxy.password)}`
    headers['proxy-authorization'] = `Basic ${Buffer.from(credentials).toString('base64')}`
  }
  // Only here, since importing it brings Node's own fetch along: 15 MB.
  const { request: httpRequest } = await import('node:http')
  return new Promise((resolve, reject) => {
    const request = httpRequest({
      method: 'CONNECT',
      path: authority(target),
      headers,
      signal,
      createConnection: () => socket,
    })
    request.once('connect', (response, _socket, head: Buffer) => {
      if (head.length > 0) socket.unshift(head)
      resolve(response.statusCode ?? 0)
    })
    request.once('response', (response) => resolve(response.statusCode ?? 0))
    request.once('error', () => {
      socket.destroy()
      if (signal.aborted && !isTimeout(signal.reason)) reject(signal.reason)
      else
        reject(new ProxyFailure(`the proxy closed the connection before it answered to CONNECT ${authority(target)}`))
    })
    request.end()
  })
}

function overTls(options: {
  raw: Socket
  target: URL
  secureContext: SecureContext | undefined
  signal: AbortSignal
}): Promise<Socket> {
  const { raw, target, secureContext, signal } = options
  const host = bareHost(target)
  const socket = connectTls({
    socket: raw,
    host,
    // An address must not be sent as a server name (RFC 6066).
    servername: isIP(host) === 0 ? host : '',
    secureContext,
    ALPNProtocols: ['http/1.1'],
  })
  return opened(socket, 'secureConnect', signal)
}

function opened<S extends Socket>(socket: S, event: 'connect' | 'secureConnect', signal: AbortSignal): Promise<S> {
  return new Promise((resolve, reject) => {
    const settle = () => {
      signal.removeEventListener('abort', onAbort)
      socket.off('error', onError)
      socket.off('close', onClose)
    }
    const onAbort = () => {
      settle()
      socket.on('error', () => {})
      socket.destroy()
      reject(signal.reason)
    }
    const onError = (error: Error) => {
      settle()
      socket.destroy()
      reject(error)
    }
    const onClose = () => onError(Object.assign(new Error('closed while connecting'), { code: 'ECONNRESET' }))
    signal.addEventListener('abort', onAbort, { once: true })
    socket.once('error', onError)
    socket.once('close', onClose)
    socket.once(event, () => {
      settle()
      // A dead peer is noticed within about two minutes even where nobody reads or writes.
      socket.setNoDelay(true).setKeepAlive(true, 30_000)
      resolve(socket)
    })
  })
}

function authority(url: URL): string {
  return `${url.hostname}:${portOf(url)}`
}

function isTimeout(error: unknown): boolean {
  return error instanceof Error && error.name === 'TimeoutError'
}
