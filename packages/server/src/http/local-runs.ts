import type { StartLocalRunResponse } from '@openoz/protocol'
import { startLocalRunRequest, startLocalRunResponse } from '@openoz/protocol/schemas'
import { actorLabel } from '../domain/actors.ts'
import type { Ctx } from '../domain/context.ts'
import { doOnce } from '../domain/idempotency.ts'
import { planLocalRun, repeatLocalStart, type StartedLocalRun, startLocalRun } from '../domain/local-runs.ts'
import { maxBodyWithAttachmentsBytes } from './body-limits.ts'
import { requestIdentity } from './request-identity.ts'
import { createRouter, describe } from './router.ts'
import { runSourceOf } from './run-source.ts'

export function localRunRoutes(ctx: Ctx) {
  const router = createRouter(ctx)

  router.openapi(
    describe(ctx, {
      method: 'post',
      path: '/agent/local-runs',
      operationId: 'startLocalRun',
      action: 'run.create',
      summary: 'Start a run that the caller’s own machine performs, and get its agent’s key',
      request: { body: { required: true, content: { 'application/json': { schema: startLocalRunRequest } } } },
      success: { status: 201, body: startLocalRunResponse },
      errors: [400, 404, 409, 410, 422],
      maxBodyBytes: maxBodyWithAttachmentsBytes,
    }),
    async (c) => {
      const actor = c.get('actor')
      const source = runSourceOf(c)
      const answer = await doOnce(
        ctx,
        { ...(await requestIdentity(c)), owner: actorLabel(actor), route: 'run.start-local' },
        {
          plan: () => planLocalRun(ctx, c.req.valid('json'), actor),
          async act(tx, hint, plan) {
            const body = await startLocalRun(tx, hint, { ctx, plan, actor, source })
            const { execution_token: _, ...kept } = body
            return { status: 201, body, kept }
          },
        },
      )
      if (answer.isRepeated) return c.json(await repeatLocalStart(ctx, answer.body as StartedLocalRun), 201)
      return c.json(answer.body as StartLocalRunResponse, 201)
    },
  )

  return router
}
