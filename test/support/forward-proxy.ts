import { createServer, request as httpRequest, type IncomingMessage } from 'node:http'
import { type AddressInfo, connect } from 'node:net'
import { pipeline } from 'node:stream'

export interface Dial {
  /** Whose user name the proxy was given. */
  by: string
  /** `host:port` */
  to: string
}

/**
 * A forward proxy on the loopback: tunnels (CONNECT), and plain requests for what is not encrypted. It knows every name and takes it for the
 * loopback, so a program that reaches `oz.test` has come through here: no name server knows that name. Without a user it says 407.
 */
export async function startForwardProxy() {
  const dials: Dial[] = []
  const sockets = new Set<{ destroy: () => void }>()
  const record = (request: IncomingMessage, to: string): boolean => {
    const [, encoded = ''] = /^Basic (.+)$/.exec(request.headers['proxy-authorization'] ?? '') ?? []
    const [by = ''] = Buffer.from(encoded, 'base64').toString().split(':')
    if (by !== '') dials.push({ by, to })
    return by !== ''
  }
  const server = createServer((request, response) => {
    const target = new URL(request.url ?? '')
    if (!record(request, target.host))
      return void response.writeHead(407, { 'proxy-authenticate': 'Basic realm="proxy"' }).end()
    const { 'proxy-authorization': _, 'proxy-connection': __, ...headers } = request.headers
    const { method } = request
    const onward = httpRequest(
      { host: '127.0.0.1', port: target.port, path: target.pathname + target.search, method, headers },
      (answer) => {
        response.writeHead(answer.statusCode ?? 502, answer.headers)
        pipeline(answer, response, () => {})
      },
    )
    pipeline(request, onward, () => {})
    onward.on('error', () => response.destroy())
  })
  server.on('connect', (request, socket, head) => {
    sockets.add(socket)
    const [, port] = /:(\d+)$/.exec(request.url ?? '') ?? []
    if (!record(request, request.url ?? '')) {
      return socket.end('HTTP/1.1 407 Wanted\r\nproxy-authenticate: Basic realm="proxy"\r\ncontent-length: 0\r\n\r\n')
    }
    const onward = connect(Number(port), '127.0.0.1', () => {
      socket.write('HTTP/1.1 200 Connection Established\r\n\r\n')
      onward.write(head)
      pipeline(socket, onward, socket, () => {})
    })
    sockets.add(onward)
    onward.on('error', () => socket.destroy())
  })
  await new Promise<void>((resolve) => server.listen(0, '127.0.0.1', resolve))
  const { port } = server.address() as AddressInfo
  return {
    dials,
    /** With a user name, by which `dials` tells programs apart. */
    urlFor: (user: string) => `http://${user}:proxy-password@127.0.0.1:${port}`,
    async [Symbol.asyncDispose]() {
      for (const socket of sockets) socket.destroy()
      server.closeAllConnections()
      await new Promise((resolve) => server.close(resolve))
    },
  }
}
