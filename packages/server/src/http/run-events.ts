import { z } from '@hono/zod-openapi'
import {
  pollRunEventsQuery,
  pollRunEventsResponse,
  reportEventRequest,
  reportEventResponse,
  streamRunEventsQuery,
} from '@openoz/protocol/schemas'
import { type Actor, actorLabel } from '../domain/actors.ts'
import type { Ctx } from '../domain/context.ts'
import { doOnce } from '../domain/idempotency.ts'
import { reportRunEvent, viewerOf } from '../domain/run-events.ts'
import { requireRun } from '../domain/runs.ts'
import type { RunEventFeed } from '../sockets/run-event-feed.ts'
import type { RunEventScope } from '../store/run-events.ts'
import { eventStream } from './event-stream.ts'
import { requestIdentity } from './request-identity.ts'
import { allow, createRouter, describe } from './router.ts'

type Named = z.output<typeof pollRunEventsQuery> | z.output<typeof streamRunEventsQuery>

/** The events over all runs. Those of one run's session log are in `events.ts`. */
export function runEventRoutes(ctx: Ctx, feed: RunEventFeed, stopping: AbortSignal) {
  const router = createRouter(ctx)

  router.openapi(
    describe(ctx, {
      method: 'get',
      path: '/agent/events',
      operationId: 'pollAgentEvents',
      action: 'event.read',
      summary: 'What happened to runs after a sequence, in one order over all of them',
      request: { query: pollRunEventsQuery },
      success: { status: 200, body: pollRunEventsResponse },
      errors: [400],
    }),
    async (c) => {
      const query = c.req.valid('query')
      const wish = { viewer: viewerOf(c.get('actor')), scope: { runIds: runIdsOf(query) }, since: query.since }
      return c.json(await feed.page(wish, query.limit), 200)
    },
  )

  router.get('/agent/events/stream', allow(ctx, 'event.read'), async (c) => {
    const actor = c.get('actor')
    const query = streamRunEventsQuery.parse({
      ...c.req.query(),
      run_ids: c.req.queries('run_ids'),
      'run_ids[]': c.req.queries('run_ids[]'),
      ...(c.req.header('last-event-id') === undefined ? {} : { since: c.req.header('last-event-id') }),
    })
    const wish = { viewer: viewerOf(actor), scope: await scopeOf(ctx, query, actor), since: query.since }
    return eventStream(ctx, c, stopping, (signal) => feed.view(wish, signal))
  })

  router.openapi(
    describe(ctx, {
      method: 'post',
      path: '/agent/events/{runId}',
      operationId: 'reportAgentEvent',
      action: 'event.report',
      summary: 'Tell of a run to those who follow the events; the run itself stays as it is',
      request: {
        params: z.object({ runId: z.string() }),
        body: { required: true, content: { 'application/json': { schema: reportEventRequest } } },
      },
      success: { status: 200, body: reportEventResponse },
      errors: [400, 404, 409],
    }),
    async (c) => {
      const actor = c.get('actor')
      const run = await requireRun(ctx, c.req.valid('param').runId, actor)
      const answer = await doOnce(
        ctx,
        { ...(await requestIdentity(c)), owner: actorLabel(actor), route: `event.report ${run.id}` },
        {
          plan: async () => c.req.valid('json'),
          act: async (tx, hint, request) => ({
            status: 200,
            body: await reportRunEvent(tx, hint, { run, request, actor }),
          }),
        },
      )
      return c.json(answer.body as z.infer<typeof reportEventResponse>, 200)
    },
  )

  return router
}

/** One who may see the ancestor follows what of its descendants they may see, those that are started later as well. */
async function scopeOf(ctx: Ctx, query: z.output<typeof streamRunEventsQuery>, actor: Actor): Promise<RunEventScope> {
  if (query.ancestor_run_id === undefined) return { runIds: runIdsOf(query) }
  const ancestor = await requireRun(ctx, query.ancestor_run_id, actor)
  return { ancestorRunId: ancestor.id, includeSelf: query.include_self ?? false }
}

function runIdsOf(query: Named): string[] {
  return [...(query.run_ids ?? []), ...(query['run_ids[]'] ?? [])]
}
