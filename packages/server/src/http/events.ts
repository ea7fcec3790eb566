import { z } from '@hono/zod-openapi'
import { isTerminal } from '@openoz/protocol'
import { listEventsQuery, listEventsResponse } from '@openoz/protocol/schemas'
import type { Ctx } from '../domain/context.ts'
import { requireRun } from '../domain/runs.ts'
import type { RunTails } from '../sockets/run-tails.ts'
import { hasLiveExecution } from '../store/executions.ts'
import { findLastSeq, listEvents } from '../store/session-log.ts'
import { eventStream } from './event-stream.ts'
import { allow, createRouter, describe } from './router.ts'

export function eventRoutes(ctx: Ctx, tails: RunTails, stopping: AbortSignal) {
  const router = createRouter(ctx)

  router.openapi(
    describe(ctx, {
      method: 'get',
      path: '/agent/runs/{runId}/events',
      operationId: 'listEvents',
      action: 'run.read',
      summary: 'The session log after a seq',
      request: { params: z.object({ runId: z.string() }), query: listEventsQuery },
      success: { status: 200, body: listEventsResponse },
      errors: [400, 404],
    }),
    async (c) => {
      const { since, limit } = c.req.valid('query')
      const run = await requireRun(ctx, c.req.valid('param').runId, c.get('actor'))
      // In this order: what is complete was complete before the page was read.
      const isOver = isTerminal(run.state) && !(await hasLiveExecution(ctx.db, run.id))
      const lastSeq = await findLastSeq(ctx.db, run.id)
      const events = await listEvents(ctx.db, run.id, since, limit)
      const nextSince = events.at(-1)?.seq ?? since
      // Events are serialised by the database already: put together instead of parsed and written again.
      const body = `{"events":[${events.map((event) => event.json).join(',')}],"next_since":${nextSince},"is_complete":${isOver && nextSince >= lastSeq}}`
      return new Response(body, { headers: { 'content-type': 'application/json' } }) as never
    },
  )

  router.get('/agent/runs/:runId/events/stream', allow(ctx, 'run.read'), async (c) => {
    const run = await requireRun(ctx, c.req.param('runId'), c.get('actor'))
    const lastEventId = c.req.header('last-event-id')
    const { since } = listEventsQuery.parse({ since: lastEventId ?? c.req.query('since') ?? 0 })
    return eventStream(ctx, c, stopping, (signal) => tails.view(run.id, since, signal))
  })

  return router
}
