import { Validator } from '@seriousme/openapi-schema-validator'
import { expect, test } from 'vitest'
import type { Ctx } from '../domain/context.ts'
import type { ModelCatalog } from '../llm/catalog.ts'
import { createApp } from './app.ts'

/** Nothing here reaches a database: the routes themselves and their document are looked at. */
const app = createApp({ publicUrl: 'http://test' } as Ctx, {
  catalog: {} as ModelCatalog,
  version: '1.2.3',
  stopping: new AbortController().signal,
  sockets: { openChannel: () => Promise.reject(new Error('nobody connects here')) },
  archives: { find: () => Promise.reject(new Error('nobody installs here')) },
})

interface Document {
  openapi: string
  info: { version: string }
  paths: Record<
    string,
    Record<string, { operationId: string; responses: Record<string, unknown>; security: unknown; 'x-action': string }>
  >
}

const document = (await (await app.request('/api/v1/openapi.json')).json()) as Document

const operations = Object.entries(document.paths).flatMap(([path, methods]) =>
  Object.entries(methods).map(([method, operation]) => ({
    route: `${method.toUpperCase()} /api/v1${path}`,
    ...operation,
  })),
)

/** Described elsewhere: the agent's channel in the protocol package, the document by itself and its page, the pages of errors by the errors,
 * what machines are installed with by its page. */
const outsideOfTheDocument = [
  'GET /api/v1/openapi.json',
  'GET /api/v1/docs',
  'GET /api/v1/docs/start.js',
  'GET /api/v1/docs/swagger-ui-bundle.js',
  'GET /api/v1/docs/swagger-ui.css',
  'GET /errors/{code}',
  'GET /install.sh',
  'GET /install/{file}',
  'GET /api/v1/agent-channel/blobs/{blobId}',
  'GET /api/v1/agent-channel/commands',
  'POST /api/v1/agent-channel/blobs',
  'POST /api/v1/agent-channel/commands/ack',
  'POST /api/v1/agent-channel/events',
  'POST /api/v1/agent-channel/hello',
  'POST /api/v1/agent-channel/next-turn',
]

test('every route is in the OpenAPI document or is known to be outside of it', () => {
  const routes = app.routes
    .filter(({ method }) => method !== 'ALL')
    // One route answers bundle and diff.
    .flatMap(({ method, path }) =>
      path.includes(':part{')
        ? ['bundle', 'diff'].map((part) => `${method} ${path.replace(/:part\{.*\}/, part)}`)
        : [`${method} ${path}`],
    )
    .map((route) => route.replace(/:(\w+)/g, '{$1}'))
  const known = [...operations.map(({ route }) => route), ...outsideOfTheDocument]
  expect([...new Set(routes)].sort()).toEqual(known.sort())
})

test('the document is of its version, and every operation has a name of its own and leads somewhere', () => {
  expect(document).toMatchObject({ openapi: '3.1.0', info: { version: '1.2.3' } })
  const names = operations.map(({ operationId }) => operationId)
  expect(new Set(names).size).toBe(names.length)
  for (const { route, operationId, responses } of operations) {
    expect([route, typeof operationId]).toEqual([route, 'string'])
    expect([route, Object.keys(responses).some((status) => /^[23]/.test(status))]).toEqual([route, true])
  }
})

test('the document is what its version of OpenAPI says a document is', async () => {
  const { valid, errors } = await new Validator().validate({ ...document })
  expect([valid, errors]).toEqual([true, undefined])
})

test('every operation tells all refusals that any of its kind may give', () => {
  for (const { route, responses, security, 'x-action': action } of operations) {
    expect([route, Object.keys(responses)]).toEqual([route, expect.arrayContaining(['500', '503'])])
    const needsKey = action !== 'public' && action !== 'link'
    expect([route, security]).toEqual([route, needsKey ? [{ bearer: [] }] : []])
    // Nobody is named by a join token, so that nothing can be forbidden to them.
    const whoIsRefused = action === 'join-token' ? ['401'] : ['401', '403']
    if (needsKey) expect([route, Object.keys(responses)]).toEqual([route, expect.arrayContaining(whoIsRefused)])
    if (!route.startsWith('GET '))
      expect([route, Object.keys(responses)]).toEqual([route, expect.arrayContaining(['413'])])
  }
})

test('the page of the document loads nothing from elsewhere, and its policy holds the browser to that', async () => {
  const answer = await app.request('/api/v1/docs')
  expect([answer.status, answer.headers.get('content-type')]).toEqual([200, 'text/html; charset=utf-8'])
  const policy = answer.headers.get('content-security-policy')
  expect(policy).toContain("default-src 'none'")
  expect(policy).not.toMatch(/https?:|\*|unsafe-eval|script-src[^;]*unsafe/)
  const links = [...(await answer.text()).matchAll(/(?:href|src)="([^"]*)"/g)].map(([, link]) => link ?? '')
  expect(links.length).toBeGreaterThan(3)
  const loaded = new Map<string, string>()
  for (const link of links.filter((one) => !one.startsWith('data:'))) {
    const { origin, pathname } = new URL(link, 'http://test/api/v1/docs')
    expect(origin).toBe('http://test')
    const file = await app.request(pathname)
    expect([link, file.status]).toEqual([link, 200])
    loaded.set(link, await file.text())
  }
  expect(loaded.get('docs/swagger-ui.css')).not.toMatch(/url\((?!['"]?data:)|@import/)
  expect(loaded.get('docs/start.js')).toContain('validatorUrl: null')
  expect(loaded.get('docs/swagger-ui-bundle.js')?.length).toBeGreaterThan(1_000_000)
})

test('every reference inside of the document leads somewhere', () => {
  const text = JSON.stringify(document)
  for (const [, pointer] of text.matchAll(/"\$ref":"#([^"]+)"/g)) {
    const target = (pointer ?? '')
      .split('/')
      .slice(1)
      .reduce<unknown>((node, key) => (node as Record<string, unknown> | undefined)?.[key], document)
    expect([pointer, target !== undefined]).toEqual([pointer, true])
  }
})

test('a problem’s type leads to a page in words', async () => {
  const page = await app.request('/errors/run_not_found')
  expect([page.status, (await page.text()).split('\n')[0]]).toEqual([
    200,
    'No such run (run_not_found, HTTP 404, resource_not_found)',
  ])
})
