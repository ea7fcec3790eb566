import { z } from '@hono/zod-openapi'
import { AppError, type CreateApiKeyResponse } from '@openoz/protocol'
import { createApiKeyRequest, createApiKeyResponse, listApiKeysResponse, whoami } from '@openoz/protocol/schemas'
import { actorLabel } from '../domain/actors.ts'
import { createApiKey, expireApiKey, listApiKeys } from '../domain/api-keys.ts'
import type { Ctx } from '../domain/context.ts'
import { doOnce } from '../domain/idempotency.ts'
import { describeActor } from '../domain/whoami.ts'
import { requestIdentity } from './request-identity.ts'
import { createRouter, describe } from './router.ts'

export function apiKeyRoutes(ctx: Ctx) {
  const router = createRouter(ctx)

  router.openapi(
    describe(ctx, {
      method: 'get',
      path: '/whoami',
      operationId: 'whoami',
      action: 'self.read',
      summary: 'Who the caller is',
      success: { status: 200, body: whoami },
      errors: [],
    }),
    async (c) => c.json(await describeActor(ctx, c.get('actor')), 200),
  )

  router.openapi(
    describe(ctx, {
      method: 'get',
      path: '/api-keys',
      operationId: 'listApiKeys',
      action: 'api-key.read',
      summary: 'List API keys',
      success: { status: 200, body: listApiKeysResponse },
      errors: [],
    }),
    async (c) => c.json({ api_keys: await listApiKeys(ctx, c.get('actor')) }, 200),
  )

  router.openapi(
    describe(ctx, {
      method: 'post',
      path: '/api-keys',
      operationId: 'createApiKey',
      action: 'api-key.create',
      summary: 'Make an API key; it is shown this once',
      request: { body: { required: true, content: { 'application/json': { schema: createApiKeyRequest } } } },
      success: { status: 201, body: createApiKeyResponse },
      errors: [400, 409],
    }),
    async (c) => {
      const actor = c.get('actor')
      const answer = await doOnce(
        ctx,
        { ...(await requestIdentity(c)), owner: actorLabel(actor), route: 'api-key.create' },
        {
          plan: async () => c.req.valid('json'),
          async act(tx, _hint, request) {
            const created = await createApiKey(tx, request, actor)
            // The raw key is nowhere in the database, here neither: who repeats the request hears which key it made.
            return { status: 201, body: created, kept: { uid: created.api_key.uid } }
          },
        },
      )
      if (answer.isRepeated) throw new AppError('api_key_created_before', answer.body as { uid: string })
      return c.json(answer.body as CreateApiKeyResponse, 201)
    },
  )

  router.openapi(
    describe(ctx, {
      method: 'delete',
      path: '/api-keys/{uidOrName}',
      operationId: 'expireApiKey',
      action: 'api-key.expire',
      summary: 'End an API key at once',
      request: { params: z.object({ uidOrName: z.string() }) },
      success: { status: 200, body: z.object({ uid: z.uuid() }) },
      errors: [400, 404],
    }),
    async (c) => c.json({ uid: await expireApiKey(ctx, c.req.valid('param').uidOrName, c.get('actor')) }, 200),
  )

  return router
}
