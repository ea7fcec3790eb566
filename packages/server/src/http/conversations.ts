import { z } from '@hono/zod-openapi'
import type { ForkedConversation } from '@openoz/protocol'
import {
  conversationRedirect,
  conversationResponse,
  conversationTitle,
  forkConversationRequest,
  forkConversationResponse,
  renameConversationRequest,
  sessionRedirect,
} from '@openoz/protocol/schemas'
import type { Context } from 'hono'
import { actorLabel } from '../domain/actors.ts'
import type { Ctx } from '../domain/context.ts'
import {
  conversationIdOf,
  forkConversation,
  renameConversation,
  whereConversationLives,
  whereSessionWent,
} from '../domain/conversation-forks.ts'
import { readConversation, readRunConversation } from '../domain/conversations.ts'
import { doOnce } from '../domain/idempotency.ts'
import { openTranscriptLink, transcriptJson, transcriptLink } from '../domain/transcripts.ts'
import { byteAnswer } from './byte-answer.ts'
import { requestIdentity } from './request-identity.ts'
import { allow, createRouter, describe } from './router.ts'

export function conversationRoutes(ctx: Ctx) {
  const router = createRouter(ctx)

  router.openapi(
    describe(ctx, {
      method: 'get',
      path: '/agent/runs/{runId}/conversation',
      operationId: 'getRunConversation',
      action: 'run.read',
      summary: 'What was said and done in a run, turn by turn',
      request: { params: z.object({ runId: z.string() }) },
      success: { status: 200, body: conversationResponse },
      errors: [404],
    }),
    async (c) =>
      jsonStream(ctx, c, await readRunConversation(ctx, c.req.valid('param').runId, c.get('actor'))) as never,
  )

  router.openapi(
    describe(ctx, {
      method: 'get',
      path: '/agent/conversations/{conversationId}',
      operationId: 'getConversation',
      action: 'run.read',
      summary: 'A conversation over all its runs',
      request: { params: z.object({ conversationId: z.string() }) },
      success: { status: 200, body: conversationResponse },
      errors: [404],
    }),
    async (c) =>
      jsonStream(ctx, c, await readConversation(ctx, c.req.valid('param').conversationId, c.get('actor'))) as never,
  )

  router.openapi(
    describe(ctx, {
      method: 'post',
      path: '/agent/conversations/{conversationId}/fork',
      operationId: 'forkConversation',
      action: 'conversation.change',
      summary: 'Copy a conversation as it is now; runs go on in the copy by its id',
      request: {
        params: z.object({ conversationId: z.string() }),
        body: { required: true, content: { 'application/json': { schema: forkConversationRequest } } },
      },
      success: { status: 200, body: forkConversationResponse },
      errors: [400, 404, 409],
    }),
    async (c) => {
      const actor = c.get('actor')
      const conversationId = conversationIdOf(c.req.valid('param').conversationId)
      const answer = await doOnce(
        ctx,
        { ...(await requestIdentity(c)), owner: actorLabel(actor), route: `conversation.fork ${conversationId}` },
        {
          plan: async () => c.req.valid('json'),
          act: async (tx, _hint, { title }) => ({
            status: 200,
            body: { forked_conversation_id: await forkConversation(tx, { conversationId, title }, actor) },
          }),
        },
      )
      return c.json(answer.body as ForkedConversation, 200)
    },
  )

  router.openapi(
    describe(ctx, {
      method: 'post',
      path: '/agent/conversations/{conversationId}/rename',
      operationId: 'renameConversation',
      action: 'conversation.change',
      summary: 'Give a conversation a title',
      request: {
        params: z.object({ conversationId: z.string() }),
        body: { required: true, content: { 'application/json': { schema: renameConversationRequest } } },
      },
      success: { status: 200, body: conversationTitle },
      errors: [400, 404],
    }),
    async (c) => {
      const conversationId = conversationIdOf(c.req.valid('param').conversationId)
      return c.json(await renameConversation(ctx, { conversationId, ...c.req.valid('json') }, c.get('actor')), 200)
    },
  )

  router.openapi(
    describe(ctx, {
      method: 'get',
      path: '/agent/sessions/{sessionUuid}/redirect',
      operationId: 'getSessionRedirect',
      action: 'public',
      summary: 'The conversation of a session that is over',
      request: { params: z.object({ sessionUuid: z.string() }) },
      success: { status: 200, body: sessionRedirect },
      errors: [],
    }),
    async (c) => c.json(await whereSessionWent(ctx, c.req.valid('param').sessionUuid), 200),
  )

  router.openapi(
    describe(ctx, {
      method: 'get',
      path: '/agent/conversations/{conversationId}/redirect',
      operationId: 'getConversationRedirect',
      action: 'public',
      summary: 'The session that is live in a conversation',
      request: { params: z.object({ conversationId: z.string() }) },
      success: { status: 200, body: conversationRedirect },
      errors: [],
    }),
    async (c) => c.json(await whereConversationLives(ctx, c.req.valid('param').conversationId), 200),
  )

  // Neither answers JSON of its own, so plain routes; the document has them from `http/openapi.ts`.
  router.get('/agent/runs/:runId/transcript', allow(ctx, 'run.read'), async (c) =>
    c.redirect(await transcriptLink(ctx, c.req.param('runId'), c.get('actor')), 302),
  )

  // Without a key: the link itself is the permission.
  router.get('/agent/transcripts/:runId', async (c) => {
    const { expires, signature } = c.req.query()
    const run = await openTranscriptLink(ctx, { runId: c.req.param('runId'), expires, signature })
    return jsonStream(ctx, c, transcriptJson(ctx, run), {
      'cache-control': 'private, no-store',
      'content-disposition': `attachment; filename="run-${run.id}.json"`,
    })
  })

  return router
}

/** Pieces of one JSON document, written as they are made. */
function jsonStream(
  ctx: Ctx,
  c: Context,
  pieces: AsyncGenerator<string>,
  headers: Record<string, string> = {},
): Response {
  const bytes = ReadableStream.from(pieces).pipeThrough(new TextEncoderStream())
  return byteAnswer(ctx, c, bytes, { headers: { 'content-type': 'application/json', ...headers } })
}
