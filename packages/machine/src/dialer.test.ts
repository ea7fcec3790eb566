import { execFileSync } from 'node:child_process'
import { once } from 'node:events'
import { mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs'
import { createServer, type IncomingMessage, type RequestListener, type Server } from 'node:http'
import { createServer as createTlsServer } from 'node:https'
import { type AddressInfo, connect, createServer as createTcpServer, type Socket } from 'node:net'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { AppError } from '@openoz/protocol'
import { afterAll, beforeAll, expect, test } from 'vitest'
import { WebSocketServer } from 'ws'
import { dialFailureReason } from './dial-failure.ts'
import { createDialer, type DialerOptions } from './dialer.ts'

const folder = mkdtempSync(join(tmpdir(), 'dialer-'))
const caFile = join(folder, 'ca.pem')
const token = 'wk-very-secret-token'

beforeAll(() => {
  const openssl = (...args: string[]) => execFileSync('openssl', args, { cwd: folder, stdio: 'pipe' })
  openssl(
    'req',
    '-x509',
    '-newkey',
    'rsa:2048',
    '-nodes',
    '-days',
    '2',
    '-subj',
    '/CN=Test CA',
    '-keyout',
    'ca.key',
    '-out',
    'ca.pem',
  )
  openssl('req', '-newkey', 'rsa:2048', '-nodes', '-subj', '/CN=oz.test', '-keyout', 'server.key', '-out', 'server.csr')
  writeFileSync(join(folder, 'san.txt'), 'subjectAltName=DNS:oz.test,IP:127.0.0.1')
  openssl(
    'x509',
    '-req',
    '-in',
    'server.csr',
    '-CA',
    'ca.pem',
    '-CAkey',
    'ca.key',
    '-CAcreateserial',
    '-days',
    '1',
    '-extfile',
    'san.txt',
    '-out',
    'server.pem',
  )
})
afterAll(() => rmSync(folder, { recursive: true }))

const answer: RequestListener = (request, response) => {
  response.setHeader('content-type', 'application/json')
  response.end(
    JSON.stringify({ path: request.url, authorization: request.headers.authorization, host: request.headers.host }),
  )
}

async function listen(server: Server, where: string | number = 0) {
  const sockets = new Set<Socket>()
  server.on('connection', (socket) => {
    sockets.add(socket)
    socket.on('close', () => sockets.delete(socket))
    socket.on('error', () => {})
  })
  if (typeof where === 'string') server.listen(where)
  else server.listen(where, '127.0.0.1')
  await once(server, 'listening')
  const address = server.address()
  return {
    port: typeof address === 'string' ? 0 : ((address as AddressInfo | null)?.port ?? 0),
    async [Symbol.asyncDispose]() {
      server.close()
      for (const socket of sockets) socket.destroy()
      await once(server, 'close')
    },
  }
}

const tlsServer = () =>
  createTlsServer(
    { key: readFileSync(join(folder, 'server.key')), cert: readFileSync(join(folder, 'server.pem')) },
    answer,
  ) as unknown as Server

function echoSockets(server: Server): Server {
  const sockets = new WebSocketServer({ server })
  sockets.on('connection', (socket, request) => {
    socket.send(`hello ${request.url} ${request.headers.authorization}`)
    socket.on('message', (data) => socket.send(`echo ${data}`))
  })
  return server
}

/** A real forward proxy that leads every name to the loopback and remembers what it was asked. */
function connectProxy({ credentials }: { credentials?: string } = {}) {
  const asked: string[] = []
  const server = createServer((_request, response) => response.writeHead(500).end())
  server.on('connect', (request: IncomingMessage, client: Socket, head: Buffer) => {
    asked.push(String(request.url))
    const wanted = credentials && `Basic ${Buffer.from(credentials).toString('base64')}`
    if (wanted && request.headers['proxy-authorization'] !== wanted) {
      client.end('HTTP/1.1 407 Proxy Authentication Required\r\n\r\n')
      return
    }
    const upstream = connect(Number(String(request.url).split(':')[1]), '127.0.0.1', () => {
      client.write('HTTP/1.1 200 OK\r\n\r\n')
      upstream.write(head)
      client.pipe(upstream).pipe(client)
    })
    upstream.on('error', () => client.destroy())
    client.on('error', () => upstream.destroy())
    client.on('close', () => upstream.destroy())
  })
  return { server, asked }
}

function dial(options: DialerOptions) {
  const dialer = createDialer({ env: {}, ...options })
  return Object.assign(dialer, { [Symbol.asyncDispose]: () => dialer.close() })
}

async function freePort(): Promise<number> {
  await using server = await listen(createServer())
  return server.port
}

async function failureOf(promise: Promise<unknown>): Promise<AppError> {
  const error = await promise.then(
    () => undefined,
    (reason: unknown) => reason,
  )
  expect(error).toBeInstanceOf(AppError)
  return error as AppError
}

async function firstMessages(dialer: ReturnType<typeof dial>, path = '/ws') {
  const socket = await dialer.openWebSocket(path, { headers: { authorization: token } })
  const messages: string[] = []
  socket.on('message', (data) => {
    messages.push(String(data))
    if (messages.length === 1) socket.send('ping')
    else socket.close()
  })
  await once(socket, 'close')
  return messages
}

test('requests keep the path prefix of the server address and send their headers', async () => {
  await using server = await listen(createServer(answer))
  await using dialer = dial({ serverUrl: `http://127.0.0.1:${server.port}/oz/` })
  const response = await dialer.fetch('/api/v1/whoami?x=1', { headers: { authorization: token } })
  expect(await response.json()).toMatchObject({ path: '/oz/api/v1/whoami?x=1', authorization: token })
  expect(dialer.serverUrl).toBe(`http://127.0.0.1:${server.port}/oz`)
})

test('a WebSocket gets the frames that came with the handshake', async () => {
  await using server = await listen(echoSockets(createServer()))
  await using dialer = dial({ serverUrl: `http://127.0.0.1:${server.port}` })
  expect(await firstMessages(dialer)).toEqual([`hello /ws ${token}`, 'echo ping'])
})

test('a unix socket serves requests and WebSockets', async () => {
  const path = join(folder, 'server.sock')
  await using _server = await listen(echoSockets(createServer(answer)), path)
  await using dialer = dial({ serverUrl: `unix:${path}`, env: { HTTP_PROXY: 'http://127.0.0.1:1' } })
  expect(await (await dialer.fetch('/x')).json()).toMatchObject({ path: '/x', host: 'localhost' })
  expect(await firstMessages(dialer)).toEqual([`hello /ws ${token}`, 'echo ping'])
})

test('an authority from OZ_CA_FILE or NODE_EXTRA_CA_CERTS is trusted, without it TLS fails with the reason', async () => {
  await using server = await listen(echoSockets(tlsServer()))
  const serverUrl = `https://127.0.0.1:${server.port}`
  for (const env of [{ OZ_CA_FILE: caFile }, { NODE_EXTRA_CA_CERTS: caFile }]) {
    await using dialer = dial({ serverUrl, env })
    expect((await dialer.fetch('/')).status).toBe(200)
    expect(await firstMessages(dialer)).toHaveLength(2)
  }
  await using stranger = dial({ serverUrl })
  const error = await failureOf(stranger.fetch('/'))
  expect(dialFailureReason(error)).toBe('tls')
  expect(error.message).toContain('OZ_CA_FILE')
  expect(dialFailureReason(await failureOf(stranger.openWebSocket('/')))).toBe('tls')
})

test('a certificate for another name is refused', async () => {
  await using server = await listen(tlsServer())
  const { server: proxyServer } = connectProxy()
  await using proxy = await listen(proxyServer)
  const env = { HTTPS_PROXY: `http://127.0.0.1:${proxy.port}`, OZ_CA_FILE: caFile }
  await using dialer = dial({ serverUrl: `https://other.test:${server.port}`, env })
  const error = await failureOf(dialer.fetch('/'))
  expect(dialFailureReason(error)).toBe('tls')
  expect(error.message).toContain('another name')
})

test.each(['https_proxy', 'HTTPS_PROXY'])('%s carries requests and WebSockets over TLS', async (name) => {
  await using server = await listen(echoSockets(tlsServer()))
  const { server: proxyServer, asked } = connectProxy({ credentials: 'user:p@ss' })
  await using proxy = await listen(proxyServer)
  const env = { [name]: `http://user:p%40ss@127.0.0.1:${proxy.port}`, OZ_CA_FILE: caFile }
  await using dialer = dial({ serverUrl: `https://oz.test:${server.port}`, env })
  expect((await dialer.fetch('/')).status).toBe(200)
  expect(await firstMessages(dialer)).toHaveLength(2)
  expect(asked).toEqual([`oz.test:${server.port}`, `oz.test:${server.port}`])
})

test('HTTP_PROXY carries requests and WebSockets to a plain server', async () => {
  await using server = await listen(echoSockets(createServer(answer)))
  const { server: proxyServer, asked } = connectProxy()
  await using proxy = await listen(proxyServer)
  await using dialer = dial({
    serverUrl: `http://oz.test:${server.port}`,
    env: { http_proxy: `127.0.0.1:${proxy.port}` },
  })
  expect(await (await dialer.fetch('/a')).json()).toMatchObject({ path: '/a' })
  expect(await firstMessages(dialer)).toHaveLength(2)
  expect(asked).toHaveLength(2)
})

test('a proxy that says no is named, and its credentials are not', async () => {
  const { server: proxyServer } = connectProxy({ credentials: 'user:right' })
  await using proxy = await listen(proxyServer)
  const env = { HTTPS_PROXY: `http://user:wrong-password@127.0.0.1:${proxy.port}` }
  await using dialer = dial({ serverUrl: 'https://oz.test', env })
  for (const attempt of [dialer.fetch, dialer.openWebSocket]) {
    const error = await failureOf(attempt('/'))
    expect(dialFailureReason(error)).toBe('proxy')
    expect(error.message).toContain('407')
    expect(`${error.message} ${String(error.cause)}`).not.toContain('wrong-password')
  }
})

test('a proxy that is not there is told from a server that is not there', async () => {
  const free = await freePort()
  await using dialer = dial({ serverUrl: 'http://oz.test', env: { HTTP_PROXY: `http://127.0.0.1:${free}` } })
  expect(dialFailureReason(await failureOf(dialer.fetch('/')))).toBe('proxy')
  await using direct = dial({ serverUrl: `http://127.0.0.1:${free}` })
  expect(dialFailureReason(await failureOf(direct.fetch('/')))).toBe('refused')
  expect(dialFailureReason(await failureOf(direct.openWebSocket('/')))).toBe('refused')
})

test.each([
  ['Node’s own fetch', {}],
  ['connections of our own', { connectTimeoutMs: 5_000 }],
])('names, ports and protocols that do not exist have their own reasons: %s', async (_, options) => {
  await using unknown = dial({ ...options, serverUrl: 'http://no-such-host.invalid' })
  expect(dialFailureReason(await failureOf(unknown.fetch('/')))).toBe('dns')
  await using nobody = dial({ ...options, serverUrl: `http://127.0.0.1:${await freePort()}` })
  expect(dialFailureReason(await failureOf(nobody.fetch('/')))).toBe('refused')
  await using plain = await listen(createServer(answer))
  await using tls = dial({ ...options, serverUrl: `https://127.0.0.1:${plain.port}` })
  expect(dialFailureReason(await failureOf(tls.fetch('/')))).toBe('tls')
  await using other = await listen(createTcpServer((socket) => socket.end('220 mail\r\n')) as unknown as Server)
  await using http = dial({ ...options, serverUrl: `http://127.0.0.1:${other.port}` })
  expect(dialFailureReason(await failureOf(http.fetch('/')))).toBe('protocol')
  await using silent = await listen(
    createTcpServer((socket) => socket.resume().once('data', () => socket.destroy())) as unknown as Server,
  )
  await using broken = dial({ ...options, serverUrl: `http://127.0.0.1:${silent.port}` })
  expect(dialFailureReason(await failureOf(broken.fetch('/')))).toBe('reset')
})

test('closing ends requests that wait for an answer', async () => {
  await using silent = await listen(createTcpServer() as unknown as Server)
  for (const options of [{}, { connectTimeoutMs: 5_000 }]) {
    const dialer = dial({ ...options, serverUrl: `http://127.0.0.1:${silent.port}` })
    const failure = failureOf(dialer.fetch('/'))
    await dialer.close()
    expect(dialFailureReason(await failure)).toBe('other')
  }
})

test('a port of another protocol is named as the problem, without the words of a library', async () => {
  await using dialer = dial({ serverUrl: 'http://127.0.0.1:22' })
  const problem = await dialer.fetch('/').catch((error: Error) => error.message)
  expect(problem).toContain('no such port')
  expect(problem).toContain('WARP_SERVER_ROOT_URL')
  expect(problem).not.toContain('TypeError')
})

test('sockets and addresses that cannot be have their own words', async () => {
  await using missing = dial({ serverUrl: `unix:${folder}/none.sock` })
  expect(dialFailureReason(await failureOf(missing.fetch('/')))).toBe('socket')
  for (const serverUrl of ['localhost:4747', 'ftp://x', 'unix:relative', 'http://user:pw@host']) {
    expect(() => createDialer({ serverUrl })).toThrow(/server address is not valid/)
  }
})

test('a server that accepts and says nothing is given up in time', async () => {
  await using silent = await listen(createTcpServer() as unknown as Server)
  await using tls = dial({ serverUrl: `https://127.0.0.1:${silent.port}`, connectTimeoutMs: 200 })
  expect(dialFailureReason(await failureOf(tls.fetch('/')))).toBe('timeout')
  expect(dialFailureReason(await failureOf(tls.openWebSocket('/')))).toBe('timeout')
  await using plain = dial({ serverUrl: `http://127.0.0.1:${silent.port}`, connectTimeoutMs: 200 })
  expect(dialFailureReason(await failureOf(plain.openWebSocket('/')))).toBe('timeout')
  expect(dialFailureReason(await failureOf(plain.fetch('/', { signal: AbortSignal.timeout(200) })))).toBe('timeout')
  await using proxied = dial({
    serverUrl: 'http://oz.test',
    connectTimeoutMs: 200,
    env: { HTTP_PROXY: `http://127.0.0.1:${silent.port}` },
  })
  expect(dialFailureReason(await failureOf(proxied.fetch('/')))).toBe('proxy')
})

test('the caller’s own abort comes back as it was', async () => {
  await using silent = await listen(createTcpServer() as unknown as Server)
  await using dialer = dial({ serverUrl: `http://127.0.0.1:${silent.port}` })
  const abort = new AbortController()
  const pending = [dialer.fetch('/', { signal: abort.signal }), dialer.openWebSocket('/', { signal: abort.signal })]
  abort.abort(new Error('enough'))
  await Promise.all(pending.map((promise) => expect(promise).rejects.toThrow('enough')))
})

test('a redirect is an error that names the right address', async () => {
  await using server = await listen(
    createServer((_request, response) => response.writeHead(301, { location: 'https://right.test/x?y' }).end()),
  )
  await using dialer = dial({ serverUrl: `http://127.0.0.1:${server.port}` })
  const error = await failureOf(dialer.fetch('/', { method: 'POST', body: '{}' }))
  expect(dialFailureReason(error)).toBe('redirect')
  expect(error.message).toContain('https://right.test;')
})

test('a header that cannot be sent does not put the token into the error', async () => {
  await using server = await listen(echoSockets(createServer(answer)))
  await using dialer = dial({ serverUrl: `http://127.0.0.1:${server.port}` })
  for (const authorization of [`Bearer ${token}\nx`, `Bearer ${token}\u{1f511}`]) {
    for (const attempt of [dialer.fetch, dialer.openWebSocket]) {
      const error = await failureOf(attempt('/', { headers: { authorization } }))
      expect(`${error.message} ${JSON.stringify(error.details)} ${String(error.cause)}`).not.toContain(token)
    }
  }
})

test('a refused WebSocket rejects with the problem of the server', async () => {
  const problem = {
    type: 'x',
    title: 'No',
    status: 401,
    detail: 'Wrong key.',
    error: 'authentication_required',
    code: 'api_key_unknown',
    message: 'Wrong key.',
    retryable: false,
  }
  const server = createServer()
  server.on('upgrade', (request, socket) => {
    const body = request.url === '/html' ? '<html>' : JSON.stringify(problem)
    socket.end(
      `HTTP/1.1 ${request.url === '/html' ? 502 : 401} No\r\ncontent-length: ${body.length}\r\nconnection: close\r\n\r\n${body}`,
    )
  })
  await using listening = await listen(server)
  await using dialer = dial({ serverUrl: `http://127.0.0.1:${listening.port}` })
  await expect(dialer.openWebSocket('/')).rejects.toMatchObject({
    name: 'ApiError',
    problem: { code: 'api_key_unknown' },
  })
  await expect(dialer.openWebSocket('/html')).rejects.toMatchObject({
    code: 'server_answer_unreadable',
    details: { status: 502 },
  })
})
