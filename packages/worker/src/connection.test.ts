import { createServer, type RequestListener } from 'node:http'
import type { AddressInfo } from 'node:net'
import type { Duplex } from 'node:stream'
import { expect, test } from 'vitest'
import { startControlPlane } from './test-support/control-plane.ts'
import { until } from './test-support/until.ts'
import { createFolder, startWorker } from './test-support/worker.ts'

/** What stands between a worker and its control plane: HTTP goes through, upgrades meet `onUpgrade`. */
async function startMiddlebox(onUpgrade: (socket: Duplex) => void, onRequest: RequestListener = healthy) {
  const server = createServer(onRequest)
  server.on('upgrade', (_request, socket) => onUpgrade(socket))
  await new Promise<void>((resolve) => server.listen(0, '127.0.0.1', resolve))
  const { port } = server.address() as AddressInfo
  return {
    url: `http://127.0.0.1:${port}`,
    async [Symbol.asyncDispose]() {
      server.closeAllConnections()
      await new Promise((resolve) => server.close(resolve))
    },
  }
}

const healthy: RequestListener = (_request, response) => response.writeHead(200).end('{"status":"alive"}')
const answer = (head: string) => (socket: Duplex) =>
  void socket.end(`HTTP/1.1 ${head}\r\ncontent-length: 5\r\nconnection: close\r\n\r\nsorry`)

test.each([
  ['a page that forbids it', answer('403 Forbidden'), 'it answered 403'],
  ['a page instead of an upgrade', answer('200 OK'), 'it answered 200'],
  ['an upgrade that is taken for a bad request', answer('400 Bad Request'), 'it answered 400'],
  ['a cut connection', (socket: Duplex) => void socket.destroy(), 'the connection was closed'],
])(
  'a network that passes HTTP but no WebSocket is named as that, and tried again (%s)',
  async (_, onUpgrade, words) => {
    using folder = createFolder()
    await using middlebox = await startMiddlebox(onUpgrade)
    await using worker = startWorker(middlebox, folder.path)
    const blocked = () => lines(worker.lines).filter(({ code }) => code === 'websocket_blocked')
    await until('a second try', () => blocked().length > 1)
    expect(blocked()[0]?.problem).toContain(
      `${middlebox.url} answers over HTTP, but the WebSocket was refused on the way`,
    )
    expect(blocked()[0]?.problem).toContain(words)
    expect(blocked()[0]?.problem).toContain('Let the proxy pass WebSocket upgrades')
  },
)

test('a control plane that is slow to handle, but there, is not taken for a dead path', async () => {
  using folder = createFolder()
  await using cp = await startControlPlane({ answersPings: false })
  await using worker = startWorker(cp, folder.path, {
    timing: { connection: { backoffBaseMs: 20, pingEveryMs: 50, pongWaitMs: 300 } },
  })
  await worker.listening()
  let answers = 0
  cp.socket().on('pong', () => answers++)
  const pinging = setInterval(() => cp.socket().ping(), 25)
  try {
    await until('two times the wait', () => answers > 24)
  } finally {
    clearInterval(pinging)
  }
  expect(cp.messagesOf('worker_hello')).toHaveLength(1)
  // Without a sign of life it is one.
  await cp.message('worker_hello', () => cp.messagesOf('worker_hello').length > 1)
})

test('a control plane that answers nothing over HTTP either is unreachable, not blocked', async () => {
  using folder = createFolder()
  const refuse: RequestListener = (_request, response) => response.socket?.destroy()
  await using middlebox = await startMiddlebox((socket) => void socket.destroy(), refuse)
  await using worker = startWorker(middlebox, folder.path)
  const problem = () => lines(worker.lines).find(({ msg }) => msg === 'Not connected to the server')
  await until('a failure', problem)
  expect(problem()).toMatchObject({ code: 'server_unreachable' })
})

test('no outbound network is told apart by what failed: the name, or the port', async () => {
  using folder = createFolder()
  await using cp = await startControlPlane()
  const closed = cp.url
  await cp[Symbol.asyncDispose]()
  for (const [url, words] of [
    [closed, 'nothing listens there'],
    ['http://no-such-host.invalid:4747', 'no-such-host.invalid'],
  ] as const) {
    await using worker = startWorker({ url }, folder.path, { serverUrl: url })
    const problem = () => lines(worker.lines).find(({ msg }) => msg === 'Not connected to the server')
    await until('a failure', problem, 20_000)
    expect(problem()).toMatchObject({ code: 'server_unreachable', problem: expect.stringContaining(words) })
  }
})

test('at log level debug each try is told, with what the network answered', async () => {
  using folder = createFolder()
  await using cp = await startControlPlane()
  const closed = cp.url
  await cp[Symbol.asyncDispose]()
  await using worker = startWorker({ url: closed }, folder.path)
  await until('a second try', () => lines(worker.lines).filter(({ msg }) => msg === 'Dialling the server').length > 1)
  const why = lines(worker.lines).find(({ msg }) => msg === 'Why the server could not be dialled')
  expect(why).toMatchObject({ level: 20, code: 'server_unreachable', reason: 'refused', cause: 'ECONNREFUSED' })
})

function lines(log: string[]): { msg?: string; code?: string; problem?: string }[] {
  return log.map((line) => JSON.parse(line) as { msg?: string; code?: string; problem?: string })
}
