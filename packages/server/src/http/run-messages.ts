import { z } from '@hono/zod-openapi'
import { runScopeHeader, type SendMessageResponse } from '@openoz/protocol'
import {
  fullMessage,
  listMessagesQuery,
  messageHeader,
  sendMessageRequest,
  sendMessageResponse,
} from '@openoz/protocol/schemas'
import type { Context } from 'hono'
import { actorLabel } from '../domain/actors.ts'
import type { Ctx } from '../domain/context.ts'
import { doOnce } from '../domain/idempotency.ts'
import {
  listInbox,
  type MessageChoice,
  markMessageDelivered,
  readMessage,
  sendMessage,
} from '../domain/run-messages.ts'
import { requestIdentity } from './request-identity.ts'
import { createRouter, describe } from './router.ts'

const messageId = z.object({ messageId: z.string() })

export function runMessageRoutes(ctx: Ctx) {
  const router = createRouter(ctx)

  router.openapi(
    describe(ctx, {
      method: 'post',
      path: '/agent/messages',
      operationId: 'sendAgentMessage',
      action: 'message.send',
      summary: 'Send a message from a run to others; to all of them, or to none',
      request: { body: { required: true, content: { 'application/json': { schema: sendMessageRequest } } } },
      success: { status: 200, body: sendMessageResponse },
      errors: [400, 404, 409, 422],
    }),
    async (c) => {
      const actor = c.get('actor')
      const answer = await doOnce(
        ctx,
        { ...(await requestIdentity(c)), owner: actorLabel(actor), route: 'message.send' },
        {
          plan: async () => c.req.valid('json'),
          act: async (tx, hint, request) => ({ status: 200, body: await sendMessage(tx, hint, request, actor) }),
        },
      )
      return c.json(answer.body as SendMessageResponse, 200)
    },
  )

  router.openapi(
    describe(ctx, {
      method: 'get',
      path: '/agent/messages/{runId}',
      operationId: 'listAgentMessages',
      action: 'message.read',
      summary: 'What other runs sent to a run, oldest first, without the bodies',
      request: { params: z.object({ runId: z.string() }), query: listMessagesQuery },
      success: { status: 200, body: z.array(messageHeader) },
      errors: [400, 404],
    }),
    async (c) => c.json(await listInbox(ctx, c.req.valid('param').runId, c.req.valid('query'), c.get('actor')), 200),
  )

  router.openapi(
    describe(ctx, {
      method: 'post',
      path: '/agent/messages/{messageId}/read',
      operationId: 'readAgentMessage',
      action: 'message.read',
      summary: 'Read a message; from then on it counts as read',
      request: { params: messageId },
      success: { status: 200, body: fullMessage },
      errors: [404],
    }),
    async (c) => c.json(await readMessage(ctx, choiceOf(c, c.req.valid('param').messageId), c.get('actor')), 200),
  )

  router.openapi(
    describe(ctx, {
      method: 'post',
      path: '/agent/messages/{messageId}/delivered',
      operationId: 'markAgentMessageDelivered',
      action: 'message.read',
      summary: 'Say that a message has reached its run; a second time changes nothing',
      request: { params: messageId },
      success: { status: 204 },
      errors: [404],
    }),
    async (c) => {
      await markMessageDelivered(ctx, choiceOf(c, c.req.valid('param').messageId), c.get('actor'))
      return c.body(null, 204) as never
    },
  )

  return router
}

function choiceOf(c: Context, messageId: string): MessageChoice {
  return { messageId, forRun: c.req.header(runScopeHeader) }
}
