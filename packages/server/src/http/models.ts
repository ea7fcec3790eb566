import { listModelsResponse } from '@openoz/protocol/schemas'
import type { Ctx } from '../domain/context.ts'
import type { ModelCatalog } from '../llm/catalog.ts'
import { createRouter, describe } from './router.ts'

export function modelRoutes(ctx: Ctx, catalog: ModelCatalog) {
  const router = createRouter(ctx)
  router.openapi(
    describe(ctx, {
      method: 'get',
      path: '/agent/models',
      operationId: 'listModels',
      action: 'model.read',
      summary: 'Models that are usable now',
      success: { status: 200, body: listModelsResponse },
      errors: [],
    }),
    async (c) => c.json(await catalog.list(), 200),
  )
  return router
}
