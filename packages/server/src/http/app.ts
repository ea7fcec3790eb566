import { AppError, describeError, type ErrorCode, errorSpecs } from '@openoz/protocol'
import { Hono } from 'hono'
import type { AgentArchives } from '../agent-archives.ts'
import type { Ctx } from '../domain/context.ts'
import type { ModelCatalog } from '../llm/catalog.ts'
import { RunEventFeed } from '../sockets/run-event-feed.ts'
import { RunTails } from '../sockets/run-tails.ts'
import type { WorkerSockets } from '../sockets/worker-socket.ts'
import { agentChannelRoutes } from './agent-channel.ts'
import { agentRoutes } from './agents.ts'
import { apiKeyRoutes } from './api-keys.ts'
import { apiPageRoutes } from './api-page.ts'
import { artifactRoutes } from './artifacts.ts'
import { attachmentRoutes } from './attachments.ts'
import { limitBody, limitsItself, maxBodyBytes } from './body-limits.ts'
import { conversationRoutes } from './conversations.ts'
import { downloadRoutes } from './downloads.ts'
import { environmentRoutes } from './environments.ts'
import { eventRoutes } from './events.ts'
import { installRoutes } from './install.ts'
import { localRunRoutes } from './local-runs.ts'
import { modelRoutes } from './models.ts'
import { addOpenApiDocument } from './openapi.ts'
import { createRouter, problemResponse } from './router.ts'
import { runEventRoutes } from './run-events.ts'
import { runMessageRoutes } from './run-messages.ts'
import { runRoutes } from './runs.ts'
import { workerChannelRoutes } from './worker-channel.ts'
import { workerJoinRoutes } from './worker-join.ts'
import { workerRoutes } from './workers.ts'

/** Everything under /api/v1, what installs machines, and the pages of errors. `stopping` ends the streams. */
export function createApp(
  ctx: Ctx,
  deps: {
    catalog: ModelCatalog
    version: string
    stopping: AbortSignal
    sockets: Pick<WorkerSockets, 'openChannel'>
    archives: AgentArchives
  },
): Hono {
  const api = createRouter(ctx)
  const limit = limitBody(maxBodyBytes)
  api.use((c, next) => (limitsItself(c.req.path) ? next() : limit(c, next)))
  api.route('/', runRoutes(ctx))
  api.route('/', localRunRoutes(ctx))
  api.route('/', conversationRoutes(ctx))
  api.route('/', eventRoutes(ctx, new RunTails(ctx), deps.stopping))
  api.route('/', environmentRoutes(ctx))
  api.route('/', runEventRoutes(ctx, new RunEventFeed(ctx), deps.stopping))
  api.route('/', runMessageRoutes(ctx))
  api.route('/', artifactRoutes(ctx))
  api.route('/', attachmentRoutes(ctx))
  api.route('/', downloadRoutes(ctx))
  api.route('/', agentRoutes(ctx))
  api.route('/', modelRoutes(ctx, deps.catalog))
  api.route('/', workerRoutes(ctx))
  api.route('/', workerJoinRoutes(ctx))
  api.route('/', workerChannelRoutes(ctx, deps.sockets))
  api.route('/', apiKeyRoutes(ctx))
  api.route('/', agentChannelRoutes(ctx, deps.stopping))
  addOpenApiDocument(api, deps.version)
  api.route('/', apiPageRoutes())

  const app = new Hono()
  app.route('/api/v1', api)
  app.route('/', installRoutes(ctx, deps.archives))
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
