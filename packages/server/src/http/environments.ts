import { z } from '@hono/zod-openapi'
import type { CloudEnvironment } from '@openoz/protocol'
import {
  cloudEnvironment,
  cloudEnvironmentConfig,
  createEnvironmentRequest,
  deleteEnvironmentResponse,
  listEnvironmentsQuery,
  listEnvironmentsResponse,
} from '@openoz/protocol/schemas'
import { actorLabel } from '../domain/actors.ts'
import type { Ctx } from '../domain/context.ts'
import {
  createEnvironment,
  deleteEnvironment,
  getEnvironment,
  listEnvironments,
  replaceEnvironment,
} from '../domain/environments.ts'
import { doOnce } from '../domain/idempotency.ts'
import { requestIdentity } from './request-identity.ts'
import { createRouter, describe } from './router.ts'

const uid = z.object({ uid: z.string() })

export function environmentRoutes(ctx: Ctx) {
  const router = createRouter(ctx)

  router.openapi(
    describe(ctx, {
      method: 'get',
      path: '/agent/environments',
      operationId: 'listEnvironments',
      action: 'environment.read',
      summary: 'List environments',
      request: { query: listEnvironmentsQuery },
      success: { status: 200, body: listEnvironmentsResponse },
      errors: [400],
    }),
    async (c) => c.json({ environments: await listEnvironments(ctx, c.req.valid('query'), c.get('actor')) }, 200),
  )

  router.openapi(
    describe(ctx, {
      method: 'post',
      path: '/agent/environments',
      operationId: 'createEnvironment',
      action: 'environment.write',
      summary: 'Store an environment, for runs to name by its id',
      request: { body: { required: true, content: { 'application/json': { schema: createEnvironmentRequest } } } },
      success: { status: 201, body: cloudEnvironment },
      errors: [400, 409],
    }),
    async (c) => {
      const actor = c.get('actor')
      const answer = await doOnce(
        ctx,
        { ...(await requestIdentity(c)), owner: actorLabel(actor), route: 'environment.create' },
        {
          plan: async () => c.req.valid('json'),
          act: async (tx, _hint, request) => ({ status: 201, body: await createEnvironment(tx, request, actor) }),
        },
      )
      return c.json(answer.body as CloudEnvironment, 201)
    },
  )

  router.openapi(
    describe(ctx, {
      method: 'get',
      path: '/agent/environments/{uid}',
      operationId: 'getEnvironment',
      action: 'environment.read',
      summary: 'Get an environment',
      request: { params: uid },
      success: { status: 200, body: cloudEnvironment },
      errors: [404],
    }),
    async (c) => c.json(await getEnvironment(ctx, c.req.valid('param').uid, c.get('actor')), 200),
  )

  router.openapi(
    describe(ctx, {
      method: 'put',
      path: '/agent/environments/{uid}',
      operationId: 'replaceEnvironment',
      action: 'environment.write',
      summary: 'Replace an environment’s whole config; runs that exist keep their copy',
      request: {
        params: uid,
        body: { required: true, content: { 'application/json': { schema: cloudEnvironmentConfig } } },
      },
      success: { status: 200, body: cloudEnvironment },
      errors: [400, 404],
    }),
    async (c) =>
      c.json(await replaceEnvironment(ctx, c.req.valid('param').uid, c.req.valid('json'), c.get('actor')), 200),
  )

  router.openapi(
    describe(ctx, {
      method: 'delete',
      path: '/agent/environments/{uid}',
      operationId: 'deleteEnvironment',
      action: 'environment.write',
      summary: 'Delete an environment; runs that exist keep their copy',
      request: { params: uid },
      success: { status: 200, body: deleteEnvironmentResponse },
      errors: [404],
    }),
    async (c) => {
      const id = c.req.valid('param').uid
      await deleteEnvironment(ctx, id, c.get('actor'))
      return c.json({ uid: id, deleted: true as const }, 200)
    },
  )

  return router
}
