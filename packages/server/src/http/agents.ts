import { listAgentsQuery, listAgentsResponse } from '@openoz/protocol/schemas'
import type { Ctx } from '../domain/context.ts'
import { listAgents } from '../domain/repository-skills.ts'
import { createRouter, describe } from './router.ts'

export function agentRoutes(ctx: Ctx) {
  const router = createRouter(ctx)

  router.openapi(
    describe(ctx, {
      method: 'get',
      path: '/agent',
      operationId: 'listAgents',
      action: 'run.read',
      summary: 'List the skills of the repositories that runs have cloned, as last seen',
      request: { query: listAgentsQuery },
      success: { status: 200, body: listAgentsResponse },
      errors: [400],
    }),
    async (c) => c.json(await listAgents(ctx, c.req.valid('query'), c.get('actor')), 200),
  )

  return router
}
