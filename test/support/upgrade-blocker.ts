import { once } from 'node:events'
import { createServer, request as httpRequest, type IncomingMessage, type ServerResponse } from 'node:http'
import { type AddressInfo, connect, type Socket } from 'node:net'
import { pipeline } from 'node:stream'
import { buffer } from 'node:stream/consumers'

/** A reverse proxy as companies have them: HTTP passes, streams as well, and an upgrade to a WebSocket meets `upgrades`. */
export interface UpgradeBlocker extends AsyncDisposable {
  readonly url: string
  /** A status to answer with; `cut`: without an answer; `pass`: it is no such proxy any more. */
  upgrades: number | 'cut' | 'pass'
  /** Where POSTs of the worker's channel go, when that is another server. */
  postTarget: string | undefined
  /** The next answer to a POST with each of these words is lost after the server gave it, with all connections. */
  readonly losesAnswersTo: Set<string>
  /** It reads streams to their end before it passes them on. */
  collectsStreams: boolean
  readonly upgradesSeen: number
  /** Ends every connection, in the middle of whatever it carries. */
  cut(): void
}

export async function startUpgradeBlocker(target: string, upgrades: UpgradeBlocker['upgrades']) {
  const sockets = new Set<Socket>()
  const blocker = {
    url: '',
    upgrades,
    postTarget: undefined as string | undefined,
    losesAnswersTo: new Set<string>(),
    collectsStreams: false,
    upgradesSeen: 0,
    cut() {
      for (const socket of sockets) socket.destroy()
    },
    async [Symbol.asyncDispose]() {
      const closed = once(server, 'close')
      server.close()
      blocker.cut()
      await closed
    },
  }

  async function pass(request: IncomingMessage, response: ServerResponse): Promise<void> {
    const isFrames = request.method === 'POST' && request.url?.startsWith('/api/v1/selfhosted/worker/channel/')
    const base = (isFrames && blocker.postTarget) || target
    const { host: _, ...headers } = request.headers
    const body = isFrames ? await buffer(request).catch(() => undefined) : undefined
    const lost = [...blocker.losesAnswersTo].find((word) => body?.includes(word))
    const onward = httpRequest(base + request.url, { method: request.method, headers, agent: false })
    onward.on('response', (answer) => {
      if (lost !== undefined && blocker.losesAnswersTo.delete(lost)) {
        onward.destroy()
        return blocker.cut()
      }
      if (blocker.collectsStreams && answer.headers['content-type'] === 'text/event-stream') return
      response.writeHead(answer.statusCode ?? 502, answer.headers)
      pipeline(answer, response, () => {})
    })
    onward.on('error', () => response.destroy())
    response.on('close', () => onward.destroy())
    if (body) onward.end(body)
    else pipeline(request, onward, () => {})
  }

  const server = createServer((request, response) => void pass(request, response))
  server.on('connection', (socket) => {
    sockets.add(socket)
    socket.on('close', () => sockets.delete(socket))
  })
  server.on('upgrade', (request, socket, head) => {
    blocker.upgradesSeen++
    socket.on('error', () => {})
    if (blocker.upgrades === 'cut') return void socket.destroy()
    if (blocker.upgrades !== 'pass')
      return void socket.end(`HTTP/1.1 ${blocker.upgrades} No\r\ncontent-length: 2\r\nconnection: close\r\n\r\nno`)
    const { hostname, port } = new URL(target)
    const onward = connect(Number(port), hostname, () => {
      const lines = request.rawHeaders.flatMap((name, at, all) => (at % 2 === 0 ? [`${name}: ${all[at + 1]}`] : []))
      onward.write(`${[`GET ${request.url} HTTP/1.1`, ...lines].join('\r\n')}\r\n\r\n`)
      onward.write(head)
      pipeline(onward, socket, () => {})
      pipeline(socket, onward, () => {})
    })
    onward.on('error', () => socket.destroy())
  })
  server.listen(0, '127.0.0.1')
  await once(server, 'listening')
  blocker.url = `http://127.0.0.1:${(server.address() as AddressInfo).port}`
  return blocker satisfies UpgradeBlocker
}
