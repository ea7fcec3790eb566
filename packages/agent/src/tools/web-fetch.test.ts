import { once } from 'node:events'
import { createServer, type RequestListener, type Server } from 'node:http'
import type { AddressInfo } from 'node:net'
import { gzipSync } from 'node:zlib'
import { afterEach, beforeEach, expect, test } from 'vitest'
import { makeToolWorkspace } from '../../../../test/support/tool-workspace.ts'
import { isPublicAddress } from './public-address.ts'
import type { ToolCall } from './tool.ts'
import { fetchText, webFetch } from './web-fetch.ts'

let work: ReturnType<typeof makeToolWorkspace>
const servers: Server[] = []
beforeEach(() => {
  work = makeToolWorkspace({ secrets: ['hunter2'] })
})
afterEach(async () => {
  work[Symbol.dispose]()
  for (const server of servers.splice(0)) {
    server.closeAllConnections()
    server.close()
    await once(server, 'close')
  }
})

async function serve(listener: RequestListener): Promise<{ server: Server; url: string }> {
  const server = createServer(listener).listen(0, '127.0.0.1')
  servers.push(server)
  await once(server, 'listening')
  return { server, url: `http://127.0.0.1:${(server.address() as AddressInfo).port}` }
}

/** The loopback stands for the internet here. */
const fetchHere = (url: string, options: Partial<ToolCall> = {}) =>
  fetchText(url, { ...work.context, ...options }, (address) => address === '127.0.0.1').then(({ result }) => result)

const page = (type: string, body: string | Buffer, headers: Record<string, string> = {}): RequestListener => {
  return (_, response) => void response.writeHead(200, { 'content-type': type, ...headers }).end(body)
}

test('HTML comes as markdown, after redirects, marked as the word of strangers', async () => {
  const html = `<html><head><title>A page</title><style>p{}</style></head><body><script>alert(1)</script><h1>Hello</h1>
    <p>One <b>bold</b> <a href="/x">link</a>, hunter2</p><table><tr><th>a</th><th>b</th></tr><tr><td>1</td><td>2</td></tr></table></body></html>`
  const { url } = await serve((request, response) => {
    if (request.url === '/start') return void response.writeHead(302, { location: '/page' }).end()
    page('text/html; charset=utf-8', gzipSync(html), { 'content-encoding': 'gzip' })(request, response)
  })
  expect(await fetchHere(`${url}/start`)).toEqual({
    url: `${url}/page`,
    status: 200,
    content_type: 'text/html; charset=utf-8',
    title: 'A page',
    note: expect.stringContaining('written by strangers'),
    content: '# Hello\n\nOne **bold** [link](/x), ***\n\n| a | b |\n| 1 | 2 |',
  })
})

test('text and JSON come as they are, in their own encoding; anything else is refused', async () => {
  const json = await serve(page('application/problem+json', '{"a": 1}'))
  expect(await fetchHere(json.url)).toMatchObject({ content: '{"a": 1}' })
  const latin = await serve(page('text/plain; charset=iso-8859-1', Buffer.from('caf\xe9', 'latin1')))
  expect(await fetchHere(latin.url)).toMatchObject({ content: 'café' })
  const binary = await serve(page('application/zip', 'PK'))
  await expect(fetchHere(binary.url)).rejects.toThrow('is no text (application/zip, 2 bytes)')
  const hidden = await serve(page('text/plain', 'a\0b'))
  await expect(fetchHere(hidden.url)).rejects.toThrow('is no text')
})

test('a refusal of the server is told with its page', async () => {
  const { url } = await serve((_, response) => void response.writeHead(404, { 'content-type': 'text/plain' }).end('no'))
  expect(await fetchHere(url)).toMatchObject({
    status: 404,
    error: 'The server answered with status 404.',
    content: 'no',
  })
})

test('what is endless, packed endlessly, or never comes is cut', async () => {
  const bomb = await serve(page('text/plain', gzipSync(Buffer.alloc(50_000_000, 'a')), { 'content-encoding': 'gzip' }))
  expect(await fetchHere(bomb.url)).toMatchObject({ cut: 'Only the first 60000 characters are here.' })
  const circle = await serve((_, response) => void response.writeHead(301, { location: '/' }).end())
  await expect(fetchHere(circle.url)).rejects.toThrow('redirects more than 10 times')
  const broken = await serve((_, response) => {
    response.writeHead(200, { 'content-type': 'text/plain', 'content-length': '10' })
    response.write('half', () => response.destroy())
  })
  await expect(fetchHere(broken.url)).rejects.toThrow()
  const unpackable = await serve(page('text/plain', 'no gzip', { 'content-encoding': 'gzip' }))
  await expect(fetchHere(unpackable.url)).rejects.toThrow()
  const silent = await serve(() => {})
  const stop = new AbortController()
  const waiting = fetchHere(silent.url, { signal: stop.signal })
  silent.server.once('request', () => stop.abort(new Error('stopped')))
  await expect(waiting).rejects.toThrow('stopped')
})

test('a page that is made to be expensive does not hold the agent up', async () => {
  const { url } = await serve(page('text/html', `<pre>a${`${'&#32;'.repeat(150)} `.repeat(2_000)}b</pre>`))
  const start = performance.now()
  expect(await fetchHere(url)).toMatchObject({ status: 200 })
  expect(performance.now() - start).toBeLessThan(10_000)
})

test('nothing but the public internet is asked, by whatever name', async () => {
  const { url, server } = await serve(page('text/plain', 'secret'))
  let requests = 0
  server.on('request', () => requests++)
  const { port } = new URL(url)
  const hosts = ['127.0.0.1', 'localhost', '[::1]', '2130706433', '0x7f.1', '0.0.0.0', '[::ffff:127.0.0.1]', '10.1.2.3']
  for (const host of [...hosts, '169.254.169.254', '[fd00::1]', '[fe80::1]', '[64:ff9b::7f00:1]']) {
    const refused = work.call(webFetch, { url: `http://${host}:${port}/` })
    await expect(refused, host).rejects.toThrow('is not on the public internet')
  }
  const redirecting = await serve(
    (_, response) => void response.writeHead(302, { location: `http://[::1]:${port}/` }).end(),
  )
  await expect(fetchHere(redirecting.url)).rejects.toThrow('is not on the public internet')
  expect(requests).toBe(0)
  for (const bad of ['file:///etc/passwd', 'ftp://x', 'nonsense', 'http://user:pw@example.com/']) {
    await expect(work.call(webFetch, { url: bad }), bad).rejects.toThrow()
  }
})

test('addresses by kind', () => {
  expect(['1.1.1.1', '8.8.8.8', '2606:4700::1111', '::ffff:8.8.8.8'].map(isPublicAddress)).toEqual(Array(4).fill(true))
  const others = ['100.64.0.1', '172.31.0.1', '192.168.1.1', '224.0.0.1', '255.255.255.255', '198.18.0.1']
  const others6 = [
    '::',
    '::1',
    'fc00::1',
    'fe80::1%eth0',
    'ff02::1',
    '2001:db8::1',
    '2002:7f00:1::',
    '::ffff:10.0.0.1',
    '::ffff:a00:1',
    'x',
  ]
  expect([...others, ...others6].filter(isPublicAddress)).toEqual([])
})

test('through a proxy it is the proxy that resolves names', async () => {
  const proxy = await serve((request, response) => page('text/plain', `proxied ${request.url}`)(request, response))
  proxy.server.on('connect', (_, socket) => socket.end('HTTP/1.1 403 Forbidden\r\n\r\n'))
  const env = { HTTP_PROXY: proxy.url, HTTPS_PROXY: proxy.url, NO_PROXY: 'direct.invalid' }
  const { result } = await work.call(webFetch, { url: 'http://name.invalid/a' }, { env })
  expect(result.content).toBe('proxied http://name.invalid/a')
  await expect(work.call(webFetch, { url: 'https://name.invalid/' }, { env })).rejects.toThrow('through the proxy')
  await expect(work.call(webFetch, { url: 'http://direct.invalid/' }, { env })).rejects.toThrow(
    'could not be reached: ',
  )
  await expect(work.call(webFetch, { url: 'http://10.0.0.1/' }, { env })).rejects.toThrow('not on the public internet')
})
