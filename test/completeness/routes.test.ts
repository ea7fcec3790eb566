import { agentChannelPaths } from '@openoz/protocol'
import { workerSocketPath } from '@openoz/protocol/schemas'
import { pino } from 'pino'
import { expect, test } from 'vitest'
import { readServerOptions } from '../../packages/server/src/config.ts'
import type { Ctx } from '../../packages/server/src/domain/context.ts'
import { createHints } from '../../packages/server/src/hints.ts'
import { createApp } from '../../packages/server/src/http/app.ts'
import { createModelCatalog } from '../../packages/server/src/llm/catalog.ts'
import { createProviderConnections } from '../../packages/server/src/llm/connections.ts'
import { gatewayRoutes } from '../../packages/server/src/llm/gateway-routes.ts'
import { markdownFiles, read } from './documents.ts'

/** What answers before and beside the app. */
const healthRoutes = ['GET /healthz', 'GET /readyz', 'GET /metrics', `GET ${workerSocketPath}`]

const log = pino({ level: 'silent' })

function createParts() {
  const connections = createProviderConnections({})
  const catalog = createModelCatalog({ providers: [], missing: [] }, { connections, log, clock: performance })
  // Routes are only looked at: nothing reaches the database.
  const ctx = {
    log,
    hints: createHints({ serverId: 'test', log }),
    config: readServerOptions({}, {}),
    models: { resolve: async (modelId: string | undefined) => (await catalog.resolve(modelId)).access },
    serverId: 'test',
    publicUrl: 'http://127.0.0.1',
  } as Partial<Ctx> as Ctx
  const sockets = { openChannel: () => Promise.reject(new Error('nobody connects here')) }
  const archives = { find: () => Promise.reject(new Error('nobody installs here')) }
  const app = createApp(ctx, { catalog, version: '0', stopping: new AbortController().signal, sockets, archives })
  return { app }
}

function routesOf({ app }: ReturnType<typeof createParts>): string[] {
  const own = app.routes.map(({ method, path }) => `${method} ${path}`)
  return [...own, ...gatewayRoutes, ...healthRoutes].map(withoutNames)
}

/** `/runs/:runId` and `/runs/{runId}` are the same route. */
function withoutNames(route: string): string {
  return route.replaceAll(/:\w+(\{[^}]*\})?|\{[^}]*\}/g, '{}')
}

test('every route that a document shows exists', () => {
  const routes = routesOf(createParts())
  const shown = markdownFiles().flatMap((page) =>
    [...read(page).matchAll(/`(GET|POST|PUT|PATCH|DELETE) (\/[^`\s?]*)[^`]*`/g)].map(([, method, path]) => ({
      page,
      route: `${method} ${path}`,
    })),
  )
  expect(shown.length).toBeGreaterThan(10)
  for (const { page, route } of shown) expect(routes, `${page}: ${route}`).toContain(withoutNames(route))
})

test('every route of the OpenAPI document is served', async () => {
  const parts = createParts()
  const document = (await (await parts.app.request('/api/v1/openapi.json')).json()) as {
    paths: Record<string, Record<string, unknown>>
  }
  const described = Object.entries(document.paths).flatMap(([path, methods]) =>
    Object.keys(methods).map((method) => `${method.toUpperCase()} /api/v1${path}`),
  )
  const routes = routesOf(parts)
  // One route serves both parts of a saved workspace.
  const served = (route: string) =>
    routes.includes(withoutNames(route)) || routes.includes(withoutNames(route.replace(/(bundle|diff)$/, '{part}')))
  expect(described.length).toBeGreaterThan(10)
  expect(described.filter((route) => !served(route))).toEqual([])
})

test('the agent channel’s paths are served, and described in the page about the life of a run', () => {
  const routes = routesOf(createParts())
  for (const path of Object.values(agentChannelPaths)) {
    expect(
      routes.some((route) => route.endsWith(` ${path}`)),
      path,
    ).toBe(true)
    expect(read('docs/the-life-of-a-run.md')).toContain(path)
  }
})
