import { z } from '@hono/zod-openapi'
import { artifactResponse, uploadArtifactQuery } from '@openoz/protocol/schemas'
import { getArtifact, uploadArtifact } from '../domain/artifacts.ts'
import type { Ctx } from '../domain/context.ts'
import { uploadOf } from './downloads.ts'
import { requestName } from './request-identity.ts'
import { allow, createRouter, describe } from './router.ts'

export function artifactRoutes(ctx: Ctx) {
  const router = createRouter(ctx)

  router.openapi(
    describe(ctx, {
      method: 'get',
      path: '/agent/artifacts/{artifactUid}',
      operationId: 'getArtifact',
      action: 'artifact.read',
      summary: 'A plan with its text, or a screenshot or file with a link to its bytes',
      request: { params: z.object({ artifactUid: z.string().max(128) }) },
      success: { status: 200, body: artifactResponse },
      errors: [400, 404],
    }),
    async (c) => c.json(await getArtifact(ctx, c.req.valid('param').artifactUid, c.get('actor')), 200),
  )

  // The body is a file, so a plain route; the document has it from `http/openapi.ts`.
  router.post('/agent/artifacts', allow(ctx, 'artifact.create'), async (c) => {
    const query = uploadArtifactQuery.parse(c.req.query())
    const upload = { query, upload: uploadOf(c), identity: requestName(c) }
    return c.json(await uploadArtifact(ctx, upload, c.get('actor')), 201)
  })

  return router
}
