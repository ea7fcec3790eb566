import { once } from 'node:events'
import http, { type ServerResponse } from 'node:http'
import { expect, test } from 'vitest'
import {
  beginEvents,
  chatChunk,
  startTestGateway,
  startTestProvider,
  testToken,
  until,
  withModel,
} from './test-provider.ts'

const openAi = (url: string) => ({ OPENAI_BASE_URL: `${url}/v1` })
const chat = '/openai/v1/chat/completions'
const request = { model: 'm', stream: true, stream_options: { include_usage: true }, messages: [] }

test('each chunk arrives before the next one exists', async () => {
  let upstream: ServerResponse | undefined
  await using provider = await startTestProvider(
    withModel((response) => {
      upstream = response
      beginEvents(response)
    }),
  )
  await using gateway = await startTestGateway(openAi(provider.url))
  for (const body of [request, { ...request, stream_options: undefined }]) {
    // The head as well: a client shall see that it is being answered.
    const response = await gateway.post(chat, body)
    const reader = response.body?.getReader()
    for (const word of ['one', 'two', 'three']) {
      upstream?.write(chatChunk(word))
      const { value } = (await reader?.read()) ?? {}
      expect(Buffer.from(value ?? []).toString()).toBe(chatChunk(word))
    }
    upstream?.end()
    expect((await reader?.read())?.done).toBe(true)
  }
})

test('a client that leaves ends the provider’s work at once, and what was said is estimated', async () => {
  let closed = false
  await using provider = await startTestProvider(
    withModel((response) => {
      response.on('close', () => {
        closed = true
      })
      beginEvents(response)
      response.write(chatChunk('x'.repeat(400)))
    }),
  )
  await using gateway = await startTestGateway(openAi(provider.url))
  const leaving = new AbortController()
  const response = await gateway.post(chat, request, { signal: leaving.signal })
  await response.body?.getReader().read()
  const left = performance.now()
  leaving.abort()
  await until(() => closed, 'the end of the provider’s request')
  expect(performance.now() - left).toBeLessThan(500)
  await until(() => gateway.usage.length > 0, 'the record')
  expect(gateway.usage).toMatchObject([{ outputTokens: 100, estimated: true }])
})

test('a client that leaves before there is an answer ends the provider’s work too', async () => {
  let closed = false
  await using provider = await startTestProvider(
    withModel((response) => {
      response.on('close', () => {
        closed = true
      })
    }),
  )
  await using gateway = await startTestGateway(openAi(provider.url))
  const leaving = new AbortController()
  const answer = gateway.post(chat, request, { signal: leaving.signal }).catch((error: Error) => error.name)
  await until(() => provider.calls().length === 1, 'the call')
  leaving.abort()
  expect(await answer).toBe('AbortError')
  await until(() => closed && gateway.usage.length > 0, 'the end of the provider’s request, and its record')
  expect(gateway.usage).toMatchObject([{ outputTokens: 0, estimated: true }])
  expect(gateway.logged()).not.toContain('"level":50')
})

test.each([true, false])(
  'a stream that breaks off at the provider breaks off at the client (usage asked for: %s)',
  async (asks) => {
    await using provider = await startTestProvider(
      withModel((response) => {
        beginEvents(response)
        response.write(chatChunk('x'.repeat(40)), () => response.destroy())
      }),
    )
    await using gateway = await startTestGateway(openAi(provider.url))
    const response = await gateway.post(chat, asks ? request : { ...request, stream_options: undefined })
    let received = ''
    const reading = (async () => {
      for await (const chunk of response.body ?? []) received += Buffer.from(chunk).toString()
    })()
    await expect(reading).rejects.toThrow()
    expect(received).toBe(chatChunk('x'.repeat(40)))
    expect(gateway.usage).toMatchObject([{ outputTokens: 10, estimated: true }])
  },
)

test('a whole answer that breaks off is not taken for a whole one', async () => {
  await using provider = await startTestProvider(
    withModel((response) => {
      response.writeHead(200, { 'content-type': 'application/json', 'content-length': '1000' })
      response.write('{"choices":', () => response.destroy())
    }),
  )
  await using gateway = await startTestGateway(openAi(provider.url))
  const response = await gateway.post(chat, { model: 'm' })
  await expect(response.text()).rejects.toThrow()
  expect(gateway.usage).toMatchObject([{ estimated: true }])
})

test('fifty streams at once keep their order and their own words', async () => {
  await using provider = await startTestProvider(
    withModel(async (response, { body }) => {
      const { name } = JSON.parse(body)
      beginEvents(response)
      for (let i = 0; i < 100; i++) {
        response.write(chatChunk(`${name}:${i}`))
        if (i % 10 === 0) await new Promise(setImmediate)
      }
      response.end(`data: {"choices":[],"usage":{"prompt_tokens":1,"completion_tokens":100}}\n\n`)
    }),
  )
  await using gateway = await startTestGateway(openAi(provider.url))
  await Promise.all(
    Array.from({ length: 50 }, async (_, name) => {
      const text = await (await gateway.post(chat, { ...request, name, stream_options: undefined })).text()
      expect(text).toBe(Array.from({ length: 100 }, (_, i) => chatChunk(`${name}:${i}`)).join(''))
    }),
  )
  expect(gateway.usage).toHaveLength(50)
  expect(gateway.usage.every(({ outputTokens, estimated }) => outputTokens === 100 && !estimated)).toBe(true)
})

test.each([true, false])(
  'a slow client slows the provider down and nothing piles up (usage asked for: %s)',
  async (asks) => {
    const chunk = Buffer.from(chatChunk('x'.repeat(64 * 1024)))
    const wanted = 200 * 1024 * 1024
    let sent = 0
    await using provider = await startTestProvider(
      withModel(async (response) => {
        beginEvents(response)
        const closed = once(response, 'close')
        while (sent < wanted && !response.destroyed) {
          sent += chunk.length
          if (!response.write(chunk)) await Promise.race([once(response, 'drain'), closed])
        }
      }),
    )
    await using gateway = await startTestGateway(openAi(provider.url))
    const body = JSON.stringify(asks ? request : { ...request, stream_options: undefined })
    const client = http.request(gateway.url + chat, {
      method: 'POST',
      headers: { authorization: `Bearer ${testToken}` },
    })
    client.end(body)
    const [response] = (await once(client, 'response')) as [http.IncomingMessage]
    response.pause()
    // Nobody reads: what has been sent stands in socket buffers. It settles far below what the provider would like to send.
    let before = -1
    let stillFor = 0
    await until(() => {
      stillFor = sent === before && sent > 0 ? stillFor + 1 : 0
      before = sent
      return stillFor === 40
    }, 'the provider to stand still')
    expect(sent).toBeLessThan(40 * 1024 * 1024)
    client.destroy()
    await until(() => gateway.usage.length === 1, 'the record')
  },
)
