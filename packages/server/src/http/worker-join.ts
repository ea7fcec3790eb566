import {
  checkJoinTokenResponse,
  createJoinTokenRequest,
  createJoinTokenResponse,
  joinWorkerRequest,
  joinWorkerResponse,
} from '@openoz/protocol/schemas'
import type { Context } from 'hono'
import type { Ctx } from '../domain/context.ts'
import { checkJoinToken, createJoinToken, leaveAsWorker, redeemJoinToken } from '../domain/join-tokens.ts'
import { bearerToken } from '../sockets/worker-socket.ts'
import { createRouter, describe } from './router.ts'

export function workerJoinRoutes(ctx: Ctx) {
  const router = createRouter(ctx)

  router.openapi(
    describe(ctx, {
      method: 'post',
      path: '/worker-join-tokens',
      operationId: 'createJoinToken',
      action: 'worker.join-token',
      summary: 'Make a token with which one machine becomes a worker; it is shown this once',
      request: { body: { required: true, content: { 'application/json': { schema: createJoinTokenRequest } } } },
      success: { status: 201, body: createJoinTokenResponse },
      errors: [400],
    }),
    async (c) => {
      c.header('cache-control', 'no-store')
      return c.json(await createJoinToken(ctx, c.req.valid('json'), c.get('actor')), 201)
    },
  )

  router.openapi(
    describe(ctx, {
      method: 'get',
      path: '/worker-join',
      operationId: 'checkJoinToken',
      action: 'join-token',
      summary: 'Whether a join token, sent as the bearer, can be redeemed; spends nothing',
      success: { status: 200, body: checkJoinTokenResponse },
      errors: [410],
    }),
    async (c) => c.json(await checkJoinToken(ctx, tokenOf(c)), 200),
  )

  router.openapi(
    describe(ctx, {
      method: 'post',
      path: '/worker-join',
      operationId: 'joinWorker',
      action: 'join-token',
      summary: 'Redeem a join token, sent as the bearer, for a key that connects as one worker',
      request: { body: { required: true, content: { 'application/json': { schema: joinWorkerRequest } } } },
      success: { status: 200, body: joinWorkerResponse },
      errors: [400, 409, 410],
    }),
    async (c) => {
      const joined = await redeemJoinToken(ctx, tokenOf(c), c.req.valid('json'))
      c.header('cache-control', 'no-store')
      return c.json(joined, 200)
    },
  )

  router.openapi(
    describe(ctx, {
      method: 'delete',
      path: '/worker-join',
      operationId: 'leaveAsWorker',
      action: 'worker.leave',
      summary: 'End the worker key that asks',
      success: { status: 204 },
      errors: [],
    }),
    async (c) => {
      await leaveAsWorker(ctx, c.get('actor'))
      return c.body(null, 204) as never
    },
  )

  return router
}

/** The route has made sure that there is one. */
function tokenOf(c: Context): string {
  return bearerToken(c.req.header('authorization')) ?? ''
}
