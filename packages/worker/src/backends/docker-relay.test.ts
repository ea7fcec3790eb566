import { once } from 'node:events'
import { mkdtempSync, rmSync } from 'node:fs'
import { createServer, type IncomingMessage, type RequestListener, request } from 'node:http'
import { type AddressInfo, connect } from 'node:net'
import { join } from 'node:path'
import { createDialer } from '@openoz/machine'
import { pino } from 'pino'
import { expect, test } from 'vitest'
import { until } from '../test-support/until.ts'
import { createRelay, isOnlyHere, pathOf, relaySocketName } from './docker-relay.ts'

async function scene(listener: RequestListener, prefix = '') {
  const server = createServer(listener)
  await once(server.listen(0, '127.0.0.1'), 'listening')
  const serverUrl = `http://127.0.0.1:${(server.address() as AddressInfo).port}${prefix}`
  const folder = mkdtempSync('/tmp/oz-relay-')
  const dialer = createDialer({ serverUrl, env: {} })
  const open = () => createRelay({ folder, dialer, serverUrl, log: pino({ level: 'silent' }) })
  const relay = open()
  const socket = join(await relay.open('task-1'), relaySocketName)
  return {
    ...{ relay, socket, open },
    async [Symbol.asyncDispose]() {
      await relay.leave()
      await dialer.close()
      server.closeAllConnections()
      server.close()
      rmSync(folder, { recursive: true, force: true })
    },
  }
}

async function ask(
  socketPath: string,
  path: string,
  options: { method?: string; headers?: Record<string, string>; body?: Buffer } = {},
) {
  const { method = 'GET', headers, body } = options
  const asking = request({ socketPath, path, method, headers, agent: false })
  asking.end(body)
  const [answer] = (await once(asking, 'response')) as [IncomingMessage]
  return answer
}

async function textOf(answer: AsyncIterable<Buffer>): Promise<string> {
  const chunks: Buffer[] = []
  for await (const chunk of answer) chunks.push(chunk)
  return Buffer.concat(chunks).toString()
}

test('a request comes out as it went in, with the rights that it had', async () => {
  await using place = await scene(async (message, response) => {
    response.writeHead(201, { 'x-answer': 'yes', 'content-type': 'application/json' })
    const { authorization, 'content-length': length, host } = message.headers
    response.end(
      JSON.stringify({
        url: message.url,
        method: message.method,
        authorization,
        length,
        host,
        body: await textOf(message),
      }),
    )
  })
  const body = Buffer.from('{"a":1}')
  const headers = { authorization: 'Bearer t', host: 'evil.example', 'content-length': String(body.length) }
  const answer = await ask(place.socket, '/api/v1/agent-channel/hello?x=1', { method: 'POST', headers, body })
  expect(answer.statusCode).toBe(201)
  expect(answer.headers['x-answer']).toBe('yes')
  const seen = JSON.parse(await textOf(answer))
  expect(seen).toMatchObject({
    url: '/api/v1/agent-channel/hello?x=1',
    method: 'POST',
    authorization: 'Bearer t',
    length: '7',
    body: '{"a":1}',
  })
  expect(seen.host).toMatch(/^127\.0\.0\.1:/)
})

test('a stream is passed on piece by piece, and its end on either side is the end of both', async () => {
  let onGone = () => {}
  const gone = new Promise<void>((resolve) => {
    onGone = resolve
  })
  await using place = await scene((_message, response) => {
    response.writeHead(200, { 'content-type': 'text/event-stream' })
    response.write('data: 1\n\n')
    response.once('close', onGone)
  })
  const answer = await ask(place.socket, '/api/v1/agent-channel/commands')
  const [first] = (await once(answer, 'data')) as [Buffer]
  expect(first.toString()).toBe('data: 1\n\n')
  answer.destroy()
  await gone
})

test('a body of many megabytes goes through whole', async () => {
  await using place = await scene(async (message, response) => {
    let bytes = 0
    for await (const chunk of message) bytes += (chunk as Buffer).length
    response.end(String(bytes))
  })
  const body = Buffer.alloc(20 * 1024 * 1024, 1)
  const headers = { 'content-length': String(body.length) }
  const answer = await ask(place.socket, '/api/v1/agent-channel/blobs', { method: 'POST', headers, body })
  expect(await textOf(answer)).toBe(String(body.length))
})

test('what is not for agents is refused, and a control plane that is away is said to be', async () => {
  const asked: (string | undefined)[] = []
  await using place = await scene((message, response) => {
    asked.push(message.url)
    response.destroy()
  })
  for (const path of ['/api/v1/api_keys', '/', '/api/v1/agent/../api_keys', '/metrics']) {
    const answer = await ask(place.socket, path)
    expect(answer.statusCode).toBe(403)
    answer.resume()
  }
  expect(asked).toEqual([])
  const answer = await ask(place.socket, '/llm/v1/models')
  expect(answer.statusCode).toBe(502)
  answer.resume()
})

test('another process listens anew at the same place', async () => {
  await using place = await scene((_message, response) => response.end('here'))
  await place.relay.leave()
  const second = place.open()
  await second.open('task-1')
  expect(await textOf(await ask(place.socket, '/llm/x'))).toBe('here')
  await second.close('task-1')
  await expect(ask(place.socket, '/llm/x')).rejects.toMatchObject({ code: 'ENOENT' })
})

test('a task has no more connections at a time than it can need', async () => {
  await using place = await scene((_message, response) => response.end())
  const sockets = Array.from({ length: 260 }, () => connect(place.socket))
  let closed = 0
  for (const socket of sockets) socket.on('error', () => {}).once('close', () => closed++)
  await until('the end of four connections', () => closed === 4)
  for (const socket of sockets) socket.destroy()
})

test('paths are those below the control plane’s own, and lead nowhere else', () => {
  expect(pathOf('/oz/api/v1/agent/downloads/1?s=2', '/oz')).toBe('/api/v1/agent/downloads/1?s=2')
  expect(pathOf('/llm/models/a%2Fb', '')).toBe('/llm/models/a%2Fb')
  for (const url of ['//evil/llm/', 'http://evil/llm/', '/llm/../x', '/api/v1/agent/..%2f..%2fx', '/llm/%2e%2e/x'])
    expect(pathOf(url, '')).toBeUndefined()
})

test('an address that means something else in a container is told from one that does not', () => {
  for (const url of [
    'unix:/run/oz.sock',
    'http://localhost:1',
    'http://127.0.0.2',
    'http://[::1]:80',
    'http://[::]:80',
    'http://0.0.0.0:1',
    'http://[::ffff:127.0.0.1]:80',
    'http://a.localhost',
  ])
    expect(isOnlyHere(url)).toBe(true)
  for (const url of ['http://10.0.0.1', 'https://oz.example', 'http://127.example', 'http://[::ffff:10.0.0.1]'])
    expect(isOnlyHere(url)).toBe(false)
})
