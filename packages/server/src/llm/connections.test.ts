import { expect, test } from 'vitest'
import { createProviderConnections } from './connections.ts'
import { answerJson, startTestProvider } from './test-provider.ts'

const get = (url: string) =>
  ({
    method: 'GET',
    url: new URL(url),
    headers: {},
    headersTimeoutMs: 5_000,
    signal: new AbortController().signal,
  }) as const

test('the environment’s proxy is used, but never for the loopback', async () => {
  await using proxy = await startTestProvider((response) => answerJson(response, { via: 'proxy' }))
  await using local = await startTestProvider((response) => answerJson(response, {}))
  const connections = createProviderConnections({ HTTP_PROXY: proxy.url, NO_PROXY: 'direct.invalid' })
  const answers = [
    await connections.send(get('http://models.invalid/v1/models')),
    await connections.send(get(`${local.url}/v1/models`)),
  ]
  for (const answer of answers) answer.resume()
  expect(proxy.requests.map(({ path }) => path)).toEqual(['http://models.invalid/v1/models'])
  expect(local.requests).toHaveLength(1)
  await expect(connections.send(get('http://direct.invalid/'))).rejects.toThrow('direct.invalid cannot be resolved')
  connections.close()
})

test('closing cuts what still streams', async () => {
  await using provider = await startTestProvider((response) => void response.write('half'))
  const connections = createProviderConnections({})
  const answer = await connections.send(get(provider.url))
  const reading = (async () => {
    for await (const _ of answer);
  })()
  connections.close()
  await expect(reading).rejects.toThrow()
})

test('connections are used again', async () => {
  const ports = new Set<number | undefined>()
  await using provider = await startTestProvider((response, _, incoming) => {
    ports.add(incoming.socket.remotePort)
    answerJson(response, {})
  })
  const connections = createProviderConnections({})
  for (let i = 0; i < 3; i++) for await (const _ of await connections.send(get(provider.url)));
  expect(ports.size).toBe(1)
  connections.close()
})
