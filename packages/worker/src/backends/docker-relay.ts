import { chmod, mkdir, rm } from 'node:fs/promises'
import { createServer, type IncomingMessage, type Server, type ServerResponse } from 'node:http'
import { BlockList, isIP } from 'node:net'
import { join } from 'node:path'
import { Readable } from 'node:stream'
import { pipeline } from 'node:stream/promises'
import type { Dialer } from '@openoz/machine'
import type { Logger } from 'pino'
import { removeTree } from '../folder-removal.ts'

/**
 * The way of containers to the control plane where they have none of their own: without a network, or when it listens on this machine's loopback alone.
 * One unix socket per task, in a folder that only its container gets mounted; what is asked there is asked of the one control plane, by the worker's own
 * way to it (its proxies, its authorities). It passes on what agents need and nothing else, adds no right to what comes, and opens no tunnels.
 *
 * The folder stays for as long as the task; a worker that is started again listens anew in it (`open`), and what was under way there breaks as any
 * connection does.
 */
export interface Relay {
  /** Resolves with the folder, on this machine. Fine when it is open. */
  open(executionId: string): Promise<string>
  /** With its folder. Never rejects. */
  close(executionId: string): Promise<void>
  /** Of all tasks; the folders stay for the next process. */
  leave(): Promise<void>
}

export const relaySocketName = 'server.sock'

/** What an agent asks for: its channel, its files and messages, its models. */
const passed = ['/api/v1/agent-channel/', '/api/v1/agent/', '/llm/']

/** Of one task. An agent has a dozen at most; each costs the worker a file descriptor, of which it has as many as it needs for all its tasks. */
const maxConnections = 256

/** Sent whole, with its length: some proxies take nothing else. Larger bodies are passed on as they come. */
const wholeBytes = 1024 * 1024

/** Of one connection, or for the connection's other end alone. `accept-encoding`: what came compressed would be told as that after it was unpacked. */
const ownHeaders = [
  ...['host', 'connection', 'keep-alive', 'proxy-authenticate', 'proxy-authorization', 'proxy-connection', 'te'],
  ...['trailer', 'transfer-encoding', 'upgrade', 'expect', 'content-length', 'accept-encoding'],
]

export interface RelayOptions {
  folder: string
  dialer: Dialer
  /** Of the control plane; a path in it is that of everything there. */
  serverUrl: string
  log: Logger
}

export function createRelay({ folder, dialer, serverUrl, log }: RelayOptions): Relay {
  const servers = new Map<string, Server>()
  const prefix = prefixOf(serverUrl)
  const folderOf = (executionId: string) => join(folder, executionId)

  async function open(executionId: string): Promise<string> {
    const own = folderOf(executionId)
    if (servers.has(executionId)) return own
    // Others of this machine have no business in there; the container gets the inner folder alone.
    await mkdir(folder, { recursive: true, mode: 0o700 })
    await mkdir(own, { recursive: true })
    await chmod(own, 0o755)
    const socket = join(own, relaySocketName)
    await rm(socket, { force: true })
    const server = createServer((request, response) => {
      void answer(request, response).catch((error: unknown) => {
        log.debug({ error, executionId }, 'A request of a task could not be passed on')
        if (response.headersSent) response.destroy()
        else refuse(response, 502, 'The control plane could not be reached.')
      })
    })
    // Streams of events are silent for long, and a model may think for minutes.
    server.requestTimeout = 0
    server.maxConnections = maxConnections
    await new Promise<void>((resolve, reject) => {
      server.once('error', reject)
      server.listen(socket, resolve)
    })
    await chmod(socket, 0o666)
    servers.set(executionId, server)
    return own
  }

  async function answer(request: IncomingMessage, response: ServerResponse): Promise<void> {
    const path = pathOf(request.url ?? '/', prefix)
    if (path === undefined) return refuse(response, 403, 'Tasks reach nothing of the control plane there.')
    const gone = new AbortController()
    response.once('close', () => gone.abort())
    const headers = Object.entries(request.headers).flatMap(([name, value]) =>
      value === undefined || ownHeaders.includes(name) ? [] : [[name, String(value)] as [string, string]],
    )
    const answered = await dialer.fetch(path, {
      method: request.method ?? 'GET',
      headers: [...headers, ['accept-encoding', 'identity']],
      redirect: 'manual',
      signal: gone.signal,
      ...(await bodyOf(request)),
    })
    const back = [...answered.headers].filter(([name]) => !ownHeaders.includes(name) && name !== 'content-encoding')
    response.writeHead(answered.status, back.flat())
    response.flushHeaders()
    if (!answered.body) return void response.end()
    await pipeline(Readable.fromWeb(answered.body as never), response)
  }

  async function end(executionId: string): Promise<void> {
    const server = servers.get(executionId)
    servers.delete(executionId)
    if (!server) return
    const { promise, resolve } = Promise.withResolvers<void>()
    server.close(() => resolve())
    server.closeAllConnections()
    await promise
  }

  return {
    open,
    async close(executionId) {
      await end(executionId)
      await removeTree(folderOf(executionId)).catch((error: unknown) =>
        log.warn({ error, executionId }, 'The folder of a task’s socket could not be removed'),
      )
    },
    async leave() {
      await Promise.all([...servers.keys()].map(end))
    },
  }
}

async function bodyOf(request: IncomingMessage): Promise<RequestInit & { duplex?: 'half' }> {
  const length = Number(request.headers['content-length'] ?? Number.NaN)
  if (length === 0 || (Number.isNaN(length) && request.headers['transfer-encoding'] === undefined)) return {}
  if (length > wholeBytes || Number.isNaN(length)) return { body: Readable.toWeb(request) as never, duplex: 'half' }
  const chunks: Buffer[] = []
  for await (const chunk of request) chunks.push(chunk as Buffer)
  return { body: Buffer.concat(chunks) }
}

function refuse(response: ServerResponse, status: number, detail: string): void {
  const title = status === 403 ? 'Not passed on' : 'Not reached'
  response.writeHead(status, { 'content-type': 'application/problem+json', connection: 'close' })
  response.end(JSON.stringify({ title, status, detail }))
}

/** undefined: not for tasks. An absolute URL has the control plane's own path in front, ours do not. */
export function pathOf(url: string, prefix: string): string | undefined {
  if (!url.startsWith('/') || url.startsWith('//')) return undefined
  const { pathname, search } = new URL(url, 'http://relay')
  const path = prefix !== '' && pathname.startsWith(`${prefix}/`) ? pathname.slice(prefix.length) : pathname
  if (!passed.some((start) => path.startsWith(start))) return undefined
  // A slash that stays encoded may mean a step upwards to whoever decodes it. Names of models have some.
  if (/%(2f|5c)/i.test(path) && !path.startsWith('/llm/')) return undefined
  return path + search
}

function prefixOf(serverUrl: string): string {
  return URL.canParse(serverUrl) && /^https?:/.test(serverUrl) ? new URL(serverUrl).pathname.replace(/\/+$/, '') : ''
}

/** Of IPv4 also as they are written in IPv6. */
const onlyHere = new BlockList()
onlyHere.addSubnet('127.0.0.0', 8)
onlyHere.addAddress('0.0.0.0')
onlyHere.addAddress('::1', 'ipv6')
onlyHere.addAddress('::', 'ipv6')

/** Whether a container with a network of its own cannot reach it: `localhost` means the container itself there, and a socket is no file of it. */
export function isOnlyHere(serverUrl: string): boolean {
  if (serverUrl.startsWith('unix:')) return true
  const host = URL.canParse(serverUrl) ? new URL(serverUrl).hostname.replace(/^\[|\]$/g, '') : ''
  if (host === 'localhost' || host.endsWith('.localhost')) return true
  const version = isIP(host)
  return version !== 0 && onlyHere.check(host, version === 4 ? 'ipv4' : 'ipv6')
}
