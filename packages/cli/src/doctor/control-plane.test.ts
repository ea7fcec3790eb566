import { once } from 'node:events'
import {
  createServer as createHttpServer,
  type IncomingMessage,
  type RequestListener,
  type ServerResponse,
} from 'node:http'
import { type AddressInfo, createServer, type Server, type Socket } from 'node:net'
import { expect, test } from 'vitest'
import { checkControlPlane } from './control-plane.ts'
import type { Finding } from './finding.ts'
import { checkClock } from './network.ts'

/** Something that listens where a control plane is looked for. */
async function listening(server: Server): Promise<{ url: string } & AsyncDisposable> {
  const sockets = new Set<Socket>()
  server.on('connection', (socket) => sockets.add(socket))
  server.listen(0, '127.0.0.1')
  await once(server, 'listening')
  return {
    url: `http://127.0.0.1:${(server.address() as AddressInfo).port}`,
    async [Symbol.asyncDispose]() {
      const closed = once(server, 'close')
      server.close()
      for (const socket of sockets) socket.destroy()
      await closed
    },
  }
}

/** Where nobody listens. */
async function freeAddress(): Promise<string> {
  await using gone = await listening(createServer())
  return gone.url
}

const json = (response: ServerResponse, status: number, body: unknown, type = 'application/json') =>
  void response.writeHead(status, { 'content-type': type }).end(JSON.stringify(body))

interface ControlPlane {
  ready?: boolean
  whoami?: { status: number; body: unknown }
  /** What the worker's WebSocket is answered with. */
  upgrade?: { status: number; code?: string }
  /** What the plain HTTP channel begins with. */
  channel?: string
  date?: string
}

/** The answers of a control plane that the doctor asks for. */
function controlPlane({
  ready = true,
  whoami,
  upgrade = { status: 400, code: 'worker_id_reserved' },
  channel,
  date,
}: ControlPlane = {}) {
  const answer: RequestListener = (request, response) => {
    if (date !== undefined) response.setHeader('date', date)
    if (request.url === '/healthz') return json(response, 200, { status: 'alive' })
    if (request.url === '/readyz') return json(response, ready ? 200 : 503, { status: ready ? 'ready' : 'not ready' })
    if (request.url === '/api/v1/whoami') return json(response, whoami?.status ?? 200, whoami?.body ?? me('user'))
    if (request.url?.startsWith('/api/v1/selfhosted/worker/channel?') && channel !== undefined)
      return void response.writeHead(200, { 'content-type': 'text/event-stream' }).write(channel)
    if (request.url === '/api/v1/workers') return json(response, 200, { workers: [worker] })
    return json(response, 200, { models: [{ id: 'm/1' }], default_model_id: 'm/1', problems: [] })
  }
  const server = createHttpServer(answer)
  server.on('upgrade', (_request: IncomingMessage, socket) => {
    const body = upgrade.code === undefined ? 'no' : JSON.stringify(problem(upgrade.status, upgrade.code))
    const type = upgrade.code === undefined ? 'text/html' : 'application/problem+json'
    socket.end(
      `HTTP/1.1 ${upgrade.status} X\r\ncontent-type: ${type}\r\ncontent-length: ${body.length}\r\nconnection: close\r\n\r\n${body}`,
    )
  })
  return listening(server)
}

const worker = { worker_id: 'build-1', backend: 'direct', draining: false }
const me = (key_scope: string) => ({
  type: 'user',
  uid: 'u',
  display_name: 'Ann',
  key_scope,
  team_uids: [],
  team_names: [],
})
const problem = (status: number, code: string) => ({
  status,
  code,
  title: code,
  detail: `It says ${code}.`,
  message: code,
})

const home = { HOME: '/nonexistent', XDG_CONFIG_HOME: '/nonexistent' }
const examine = (url: string, env: NodeJS.ProcessEnv = {}) =>
  checkControlPlane({ serverUrl: url, outputFormat: 'pretty' }, { ...home, OZ_API_KEY: 'wk-some-key', ...env })

const levels = (findings: Finding[]) => findings.map(({ check, level }) => `${check} ${level}`)

function failed(findings: Finding[], check: string): string {
  const found = findings.find((finding) => finding.check === check && finding.level === 'fail')
  expect(found?.remedy, `${check} in ${JSON.stringify(findings)}`).toBeTruthy()
  return `${found?.text} ${found?.remedy}`
}

test('where all is well, all is said to be well', async () => {
  await using server = await controlPlane()
  const findings = await examine(server.url)
  expect(levels(findings)).toEqual(
    ['address', 'clock', 'database', 'key', 'websocket', 'models', 'workers'].map((check) => `${check} ok`),
  )
  expect(findings.at(-1)?.text).toBe('build-1 (direct)')
})

test('a name that does not exist, a port where nobody listens, something else that listens and a broken proxy are told apart', async () => {
  expect(failed(await examine('http://control-plane.invalid'), 'address')).toMatch(/cannot be resolved.*DNS/)
  expect(failed(await examine(await freeAddress()), 'address')).toMatch(/nothing listens.*oz up/)
  await using other = await listening(createServer((socket) => socket.on('error', () => {}).end('SSH-2.0-OpenSSH\r\n')))
  expect(failed(await examine(other.url), 'address')).toMatch(/not HTTP.*Something else/)
  expect(failed(await examine(other.url.replace('http', 'https')), 'address')).toMatch(/TLS.*OZ_CA_FILE/)
  const proxy = { HTTP_PROXY: 'http://user:password@127.0.0.1:9' }
  const broken = failed(await examine('http://control-plane.example', proxy), 'address')
  expect(broken).toMatch(/through the proxy 127\.0\.0\.1:9.*HTTPS_PROXY/)
  expect(broken).not.toContain('password')
})

test('a control plane without its database is told from one that is not there', async () => {
  await using server = await controlPlane({ ready: false })
  const findings = await examine(server.url)
  expect(levels(findings)).toEqual(['address ok', 'clock ok', 'database fail'])
  expect(failed(findings, 'database')).toContain('DATABASE_URL')
})

test('a key that is missing, empty, unknown, expired, revoked or for something else is told which', async () => {
  const answered = async (whoami: ControlPlane['whoami'], env: NodeJS.ProcessEnv = {}) => {
    await using server = await controlPlane(whoami === undefined ? {} : { whoami })
    return await examine(server.url, env)
  }
  const none = await answered(undefined, { OZ_API_KEY: undefined })
  expect(failed(none, 'key')).toContain('no API key')
  const blank = await answered(undefined, { OZ_API_KEY: '', WARP_API_KEY: ' ' })
  expect(blank.find(({ level }) => level === 'warn')?.text).toContain('OZ_API_KEY and WARP_API_KEY are set, but empty')
  failed(blank, 'key')
  const two = await answered(undefined, { WARP_API_KEY: 'wk-another' })
  expect(two.find(({ level }) => level === 'warn')?.text).toContain('OZ_API_KEY counts')
  for (const code of ['api_key_unknown', 'api_key_expired', 'api_key_revoked'])
    expect(failed(await answered({ status: 401, body: problem(401, code) }), 'key')).toContain(`It says ${code}.`)
  expect(failed(await answered({ status: 200, body: me('worker') }), 'key')).toMatch(
    /lets a worker connect.*--scope team/,
  )
  expect(failed(await answered({ status: 200, body: me('execution') }), 'key')).toContain('run’s agent')
})

test('a WebSocket that is refused on the way is a warning while streams pass, and else an error', async () => {
  const open = 'event: open\ndata: {"channel_id":"x"}\n\n'
  for (const upgrade of [{ status: 403 }, { status: 404, code: 'route_not_found' }]) {
    await using streaming = await controlPlane({ upgrade, channel: open })
    const found = (await examine(streaming.url)).find(({ check }) => check === 'websocket')
    expect(found).toMatchObject({ level: 'warn', text: expect.stringContaining('use the plain HTTP channel here') })
    expect(found?.text).toContain(upgrade.code ? 'taken out on the way' : 'it answered 403')
  }
  await using refusing = await controlPlane({ upgrade: { status: 403 } })
  const findings = await examine(refusing.url)
  expect(failed(findings, 'websocket')).toMatch(/403.*\[websocket_blocked\].*Upgrade: websocket/)
  // What depends on it here does not.
  expect(levels(findings)).toContain('workers ok')
})

test('a clock that is off is noticed, and one that is far off is an error', async () => {
  const now = Date.parse('2026-05-04T10:00:00Z')
  const clock = (date: string | null) => checkClock(date, now).map(({ level, text }) => `${level} ${text}`)
  expect(clock('Mon, 04 May 2026 10:00:20 GMT')).toEqual(['ok agrees with the control plane’s'])
  expect(clock('Mon, 04 May 2026 10:01:00 GMT')).toEqual(['warn 60 s behind the control plane’s'])
  expect(clock('Mon, 04 May 2026 09:50:00 GMT')).toEqual(['fail 600 s ahead of the control plane’s'])
  expect(clock(null)).toEqual([])
  await using server = await controlPlane({ date: 'Mon, 04 May 2020 10:00:00 GMT' })
  expect(failed(await examine(server.url), 'clock')).toContain('NTP')
})
