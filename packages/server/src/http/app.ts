import { AppError, describeError, type ErrorCode, errorSpecs } from '@openoz/protocol'
import { Hono } from 'hono'
import { bodyLimit } from 'hono/body-limit'
import type { Ctx } from '../domain/context.ts'
import type { ModelCatalog } from '../llm/catalog.ts'
import { RunTails } from '../sockets/run-tails.ts'
import { agentChannelRoutes } from './agent-channel.ts'
import { apiKeyRoutes } from './api-keys.ts'
import { conversationRoutes } from './conversations.ts'
import { eventRoutes } from './events.ts'
import { modelRoutes } from './models.ts'
import { addOpenApiDocument } from './openapi.ts'
import { createRouter, problemResponse } from './router.ts'
import { runRoutes } from './runs.ts'
import { workerRoutes } from './workers.ts'

/** Prompts have a limit of their own below this one, so that they are refused in words about prompts. */
const maxBodyBytes = 8 * 1024 * 1024

/** Everything under /api/v1, and the pages of errors. `stopping` ends the streams. */
export function createApp(ctx: Ctx, deps: { catalog: ModelCatalog; version: string; stopping: AbortSignal }): Hono {
  const api = createRouter(ctx)
  const limit = bodyLimit({
    maxSize: maxBodyBytes,
    onError: () => {
      throw new AppError('body_too_large', { maxBytes: maxBodyBytes })
    },
  })
  // The agent channel has limits of its own: blobs are streams, and a batch must never be refused.
  api.use((c, next) => (c.req.path.includes('/agent-channel/') ? next() : limit(c, next)))
  api.route('/', runRoutes(ctx))
  api.route('/', conversationRoutes(ctx))
  api.route('/', eventRoutes(ctx, new RunTails(ctx), deps.stopping))
  api.route('/', modelRoutes(ctx, deps.catalog))
  api.route('/', workerRoutes(ctx))
  api.route('/', apiKeyRoutes(ctx))
  api.route('/', agentChannelRoutes(ctx, deps.stopping))
  addOpenApiDocument(api, deps.version)

  const app = new Hono()
  app.route('/api/v1', api)
  // Where a problem's `type` leads.
  app.get('/errors/:code', (c) => {
    const code = c.req.param('code')
    if (!Object.hasOwn(errorSpecs, code)) throw notFound(c.req.method, c.req.path)
    const { title, status, platform } = errorSpecs[code as ErrorCode]
    return c.text(`${title} (${code}, HTTP ${status}, ${platform})\n\n${describeError(code as ErrorCode)}\n`)
  })
  app.notFound((c) => problemResponse(ctx, c, notFound(c.req.method, c.req.path)))
  app.onError((error, c) => problemResponse(ctx, c, error))
  return app
}

function notFound(method: string, path: string): AppError {
  return new AppError('route_not_found', { method, path: path.slice(0, 200) })
}
