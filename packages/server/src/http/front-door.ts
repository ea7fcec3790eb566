import { once } from 'node:events'
import { readFile } from 'node:fs/promises'
import {
  createServer as createHttpServer,
  type IncomingMessage,
  type RequestListener,
  type Server,
  type ServerResponse,
} from 'node:http'
import { createServer as createHttpsServer } from 'node:https'
import type { AddressInfo } from 'node:net'
import { getRequestListener } from '@hono/node-server'
import { AppError } from '@openoz/protocol'
import { workerSocketPath } from '@openoz/protocol/schemas'
import { Hono } from 'hono'
import type { Logger } from 'pino'
import type { ServerOptions } from '../config.ts'
import { refuseEarly } from '../llm/gateway.ts'
import type { WorkerSockets } from '../sockets/worker-socket.ts'
import type { ClientAddress } from './client-address.ts'
import { problemAnswer, toProblem } from './problems.ts'

/** How long requests at work may take to end when the server stops. */
const drainMs = 5_000

/** What answers before the database is there, and while the server stops. */
export class FrontDoor {
  app: Hono | undefined
  /** Everything under `/llm/`. */
  gateway: RequestListener | undefined
  isDraining = false
  /** Resolves to nothing where it is ready. */
  whyNotReady: () => Promise<unknown> = async () => new AppError('server_starting')
  metrics: (() => Promise<string>) | undefined
  upgrade: WorkerSockets['upgrade'] | undefined
  /** Metrics have an address of their own. */
  hidesMetrics = false
  readonly log: Logger

  constructor(log: Logger) {
    this.log = log
  }

  readonly routes = new Hono()
    // Without it, hono prints the error past the log.
    .onError((error, c) => problemAnswer(toProblem(this.log, error, '', c.req.path)))
    .get('/healthz', (c) => c.json({ status: 'alive' }))
    .get('/readyz', async (c) => {
      if (this.isDraining) return c.json({ status: 'stopping' }, 503)
      const error = await this.whyNotReady()
      if (error === undefined) return c.json({ status: 'ready' })
      const { code, detail } = toProblem(this.log, error, '', '/readyz')
      return c.json({ status: 'not ready', code, detail }, 503)
    })
    .get('/metrics', async (c, next) => {
      if (!this.metrics || this.hidesMetrics) return next()
      return c.text(await this.metrics(), 200, { 'content-type': 'text/plain; version=0.0.4; charset=utf-8' })
    })

  fetch = async (request: Request, env: object): Promise<Response> => {
    const { pathname } = new URL(request.url)
    if (pathname === '/healthz' || pathname === '/readyz' || (pathname === '/metrics' && !this.hidesMetrics))
      return this.routes.fetch(request, env)
    if (this.app) return this.app.fetch(request, env)
    return problemAnswer(toProblem(this.log, new AppError('server_starting'), '', pathname))
  }

  readonly #listener = getRequestListener(this.fetch)

  listener: Listener = (request, response) => {
    if (!request.url?.startsWith('/llm/')) return this.#listener(request, response)
    if (this.gateway) return this.gateway(request, response)
    return refuseEarly(response, request.url, new AppError('server_starting'))
  }
}

export async function listen(
  options: ServerOptions,
  frontDoor: FrontDoor,
  log: Logger,
): Promise<{ server: Server; url: string }> {
  frontDoor.hidesMetrics = options.metricsListen !== null
  const listener = withRequestLog(frontDoor.listener, options.proxies.clientAddress, log)
  const server = options.tls
    ? createHttpsServer(
        { cert: await readFile(options.tls.certFile), key: await readFile(options.tls.keyFile) },
        listener,
      )
    : createHttpServer(listener)
  // Streams stay open; a request's head does not take long.
  server.requestTimeout = 0
  server.headersTimeout = 30_000
  server.on('upgrade', (request: IncomingMessage, socket, head) => {
    const isWorker = request.url?.split('?', 1)[0] === workerSocketPath
    if (isWorker && frontDoor.upgrade && !frontDoor.isDraining) void frontDoor.upgrade(request, socket, head)
    else socket.end(`HTTP/1.1 ${isWorker ? '503 Service Unavailable' : '404 Not Found'}\r\nConnection: close\r\n\r\n`)
  })
  await bind(server, options.listen)
  const { port } = server.address() as AddressInfo
  const host = options.listen.host.includes(':') ? `[${options.listen.host}]` : options.listen.host
  // Nobody can dial "any address": on this machine it is loopback.
  const dialable = host === '0.0.0.0' || host === '[::]' ? '127.0.0.1' : host
  return { server, url: `${options.tls ? 'https' : 'http'}://${dialable}:${port}` }
}

type Listener = (request: IncomingMessage, response: ServerResponse) => unknown

/** One line per request at level debug: who, what, how it went. Never a header or a body. */
function withRequestLog(listener: Listener, clientAddress: ClientAddress, log: Logger): Listener {
  if (!log.isLevelEnabled('debug')) return listener
  return (request, response) => {
    const from = performance.now()
    response.once('close', () =>
      log.debug(
        {
          client: clientAddress(request),
          method: request.method,
          path: request.url?.split('?', 1)[0],
          status: response.statusCode,
          ms: Math.round(performance.now() - from),
        },
        'request',
      ),
    )
    return listener(request, response)
  }
}

export async function listenMetrics(address: { host: string; port: number }, frontDoor: FrontDoor): Promise<Server> {
  const listener = getRequestListener(async (request) => {
    if (new URL(request.url).pathname !== '/metrics' || !frontDoor.metrics) return new Response('', { status: 404 })
    return new Response(await frontDoor.metrics(), { headers: { 'content-type': 'text/plain; version=0.0.4' } })
  })
  const server = createHttpServer(listener)
  await bind(server, address)
  return server
}

async function bind(server: Server, { host, port }: { host: string; port: number }): Promise<void> {
  const address = `${host}:${port}`
  try {
    server.listen(port, host)
    await once(server, 'listening')
  } catch (error) {
    const { code, message } = error as NodeJS.ErrnoException
    if (code === 'EADDRINUSE') throw new AppError('port_in_use', { address }, { cause: error })
    throw new AppError('listen_failed', { address, problem: message }, { cause: error })
  }
}

/** Takes nothing new and waits for what is being answered. Safe to call twice. */
export async function closeHttp(server: Server): Promise<void> {
  if (!server.listening) return
  const closed = once(server, 'close')
  server.close()
  // A connection becomes idle when its answer is out; left alone it would stay for the client's keep-alive time.
  const idle = setInterval(() => server.closeIdleConnections(), 20)
  const timer = setTimeout(() => server.closeAllConnections(), drainMs)
  await closed
  clearInterval(idle)
  clearTimeout(timer)
}
