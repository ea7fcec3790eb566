import { once } from 'node:events'
import { type AddressInfo, createConnection, createServer, type Socket } from 'node:net'
import { setTimeout as sleep } from 'node:timers/promises'
import { expect, test } from 'vitest'
import { type Link, startLink } from './link.ts'

/** Sends back what it gets. */
async function startEcho() {
  const sockets = new Set<Socket>()
  const server = createServer((socket) => {
    sockets.add(socket)
    socket.on('error', () => {})
    socket.pipe(socket)
  })
  server.listen(0, '127.0.0.1')
  await once(server, 'listening')
  return {
    address: { host: '127.0.0.1', port: (server.address() as AddressInfo).port },
    async [Symbol.asyncDispose]() {
      for (const socket of sockets) socket.destroy()
      server.close()
      await once(server, 'close')
    },
  }
}

async function dial({ port }: Link) {
  const socket = createConnection({ host: '127.0.0.1', port })
  socket.on('error', () => {})
  await once(socket, 'connect')
  const closed = once(socket, 'close')
  return {
    closed,
    ask: async (text: string) => {
      socket.write(text)
      const [data] = await Promise.race([once(socket, 'data'), closed.then(() => ['closed'])])
      return String(data)
    },
    write: (text: string) => void socket.write(text),
    hears: async (ms: number) =>
      Promise.race([once(socket, 'data').then(String), closed.then(() => 'closed'), sleep(ms, 'nothing')]),
    [Symbol.dispose]: () => void socket.destroy(),
  }
}

test('without trouble everything passes, also when the first target is away', async () => {
  await using echo = await startEcho()
  await using link = await startLink(() => [{ host: '127.0.0.1', port: 1 }, echo.address])
  using client = await dial(link)
  expect(await client.ask('one')).toBe('one')
})

test('a delay changes neither content nor order, and ends', async () => {
  await using echo = await startEcho()
  await using link = await startLink(() => [echo.address])
  using client = await dial(link)
  const heal = link.begin('delay')
  client.write('a')
  await sleep(20)
  heal()
  client.write('b')
  let heard = ''
  while (heard.length < 2) heard += await client.hears(5_000)
  expect(heard).toBe('ab')
  expect(await client.ask('c')).toBe('c')
})

test.each(['drop', 'half-open'] as const)(
  '%s: nothing arrives, and nobody hangs up before it ends',
  async (trouble) => {
    await using echo = await startEcho()
    await using link = await startLink(() => [echo.address])
    using client = await dial(link)
    expect(await client.ask('one')).toBe('one')
    const heal = link.begin(trouble)
    client.write('two')
    expect(await client.hears(300)).toBe('nothing')
    heal()
    await client.closed
    using next = await dial(link)
    expect(await next.ask('three')).toBe('three')
  },
)

test('cut: connections break and new ones are refused, until it ends', async () => {
  await using echo = await startEcho()
  await using link = await startLink(() => [echo.address])
  using client = await dial(link)
  expect(await client.ask('one')).toBe('one')
  const heal = link.begin('cut')
  await client.closed
  using refused = await dial(link)
  await refused.closed
  heal()
  using next = await dial(link)
  expect(await next.ask('two')).toBe('two')
})

test('a trouble that another one has followed does not end that one', async () => {
  await using echo = await startEcho()
  await using link = await startLink(() => [echo.address])
  const heal = link.begin('delay')
  const healCut = link.begin('cut')
  heal()
  using refused = await dial(link)
  await refused.closed
  healCut()
  using next = await dial(link)
  expect(await next.ask('one')).toBe('one')
})

test('nothing arrives behind what was dropped, also when another trouble follows', async () => {
  await using echo = await startEcho()
  await using link = await startLink(() => [echo.address])
  using client = await dial(link)
  expect(await client.ask('one')).toBe('one')
  link.begin('drop')
  client.write('two')
  expect(await client.hears(200)).toBe('nothing')
  link.begin('delay')
  client.write('three')
  expect(await client.hears(5_000)).toBe('closed')
})
