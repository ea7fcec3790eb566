/** For the tests of this folder: a provider on loopback that does byte by byte what a test says, and a gateway in front of it. */

import { once } from 'node:events'
import http, { type IncomingHttpHeaders, type IncomingMessage, type ServerResponse } from 'node:http'
import type { AddressInfo } from 'node:net'
import { AppError } from '@openoz/protocol'
import { pino } from 'pino'
import { createModelCatalog } from './catalog.ts'
import { createProviderConnections } from './connections.ts'
import { createGateway, type GatewayDeps } from './gateway.ts'
import { createPrices } from './prices.ts'
import { findProviders } from './providers.ts'
import type { UsageRecord } from './usage-log.ts'

interface SeenRequest {
  method: string
  path: string
  headers: IncomingHttpHeaders
  body: string
}

export type Answer = (response: ServerResponse, request: SeenRequest, incoming: IncomingMessage) => void | Promise<void>

export async function startTestProvider(answer: Answer) {
  const requests: SeenRequest[] = []
  const server = http.createServer(async (incoming, response) => {
    const chunks: Buffer[] = []
    for await (const chunk of incoming) chunks.push(chunk as Buffer)
    const request = {
      method: incoming.method ?? '',
      path: incoming.url ?? '',
      headers: incoming.headers,
      body: Buffer.concat(chunks).toString(),
    }
    requests.push(request)
    await answer(response, request, incoming)
  })
  const url = await listen(server)
  return {
    url,
    requests,
    /** Without the questions for the model list. */
    calls: () => requests.filter(({ method }) => method === 'POST'),
    [Symbol.asyncDispose]: () => close(server),
  }
}

export async function startTestGateway(
  env: Record<string, string>,
  overrides: Partial<Pick<GatewayDeps, 'maxBodyBytes' | 'headersTimeoutMs' | 'prices'>> = {},
) {
  const lines: string[] = []
  const log = pino({ level: 'trace' }, { write: (line: string) => void lines.push(line) })
  const connections = createProviderConnections({})
  const catalog = createModelCatalog(findProviders(env), { connections, log, clock: performance })
  const usage: UsageRecord[] = []
  const gateway = createGateway({
    connections,
    catalog,
    log,
    callers: {
      async find(token) {
        if (token !== testToken) throw new AppError('api_key_unknown', { suffix: token.slice(-4) })
        return { executionId: 'execution-1', runId: 'run-1' }
      },
    },
    prices: createPrices(null),
    usageLog: { record: (record) => void usage.push(record) },
    ...overrides,
  })
  const server = http.createServer(gateway.handle)
  const url = await listen(server)
  return {
    url: `${url}/llm`,
    usage,
    gateway,
    logged: () => lines.join(''),
    post: (path: string, body: unknown, init: RequestInit = {}) =>
      fetch(`${url}/llm${path}`, {
        method: 'POST',
        body: typeof body === 'string' ? body : JSON.stringify(body),
        ...init,
        headers: { authorization: `Bearer ${testToken}`, 'content-type': 'application/json', ...init.headers },
      }),
    async [Symbol.asyncDispose]() {
      connections.close()
      await close(server)
    },
  }
}

/** Of an answer in OpenAI's shape. */
export async function errorOf(response: Response) {
  const { error } = (await response.json()) as {
    error: { message: string; type: string; param: string | null; code: string | null }
  }
  return error
}

export const testToken = 'exec-token-0123456789'

export function answerJson(
  response: ServerResponse,
  value: unknown,
  status = 200,
  headers: Record<string, string> = {},
) {
  response.writeHead(status, { 'content-type': 'application/json', ...headers }).end(JSON.stringify(value))
}

export function answerModels(response: ServerResponse, ...ids: string[]) {
  answerJson(response, { object: 'list', data: ids.map((id) => ({ id })) })
}

/** Lists the model `m`, and answers calls as the test says. */
export function withModel(answer: Answer): Answer {
  return (response, request, incoming) =>
    request.method === 'GET' ? answerModels(response, 'm') : answer(response, request, incoming)
}

export function beginEvents(response: ServerResponse) {
  response.writeHead(200, { 'content-type': 'text/event-stream' })
  response.flushHeaders()
}

export const chatChunk = (content: string) => `data: ${JSON.stringify({ choices: [{ delta: { content } }] })}\n\n`

/** Polls: what is waited for happens in another process's or socket's time. */
export async function until(isSo: () => boolean, what: string): Promise<void> {
  const deadline = performance.now() + 10_000
  while (!isSo()) {
    if (performance.now() > deadline) throw new Error(`waited for: ${what}`)
    await new Promise((resolve) => setTimeout(resolve, 5))
  }
}

async function listen(server: http.Server): Promise<string> {
  server.listen(0, '127.0.0.1')
  await once(server, 'listening')
  return `http://127.0.0.1:${(server.address() as AddressInfo).port}`
}

async function close(server: http.Server): Promise<void> {
  server.closeAllConnections()
  await new Promise((resolve) => server.close(resolve))
}
