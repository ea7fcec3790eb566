import { z } from '@hono/zod-openapi'
import { conversationResponse } from '@openoz/protocol/schemas'
import type { Ctx } from '../domain/context.ts'
import { readConversation, readRunConversation } from '../domain/conversations.ts'
import { openTranscriptLink, transcriptJson, transcriptLink } from '../domain/transcripts.ts'
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
    async (c) => jsonStream(await readRunConversation(ctx, c.req.valid('param').runId, c.get('actor'))) as never,
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
    async (c) => jsonStream(await readConversation(ctx, c.req.valid('param').conversationId, c.get('actor'))) as never,
  )

  // Neither answers JSON of its own, so plain routes; the document has them from `http/openapi.ts`.
  router.get('/agent/runs/:runId/transcript', allow(ctx, 'run.read'), async (c) =>
    c.redirect(await transcriptLink(ctx, c.req.param('runId'), c.get('actor')), 302),
  )

  // Without a key: the link itself is the permission.
  router.get('/agent/transcripts/:runId', async (c) => {
    const { expires, signature } = c.req.query()
    const run = await openTranscriptLink(ctx, { runId: c.req.param('runId'), expires, signature })
    return jsonStream(transcriptJson(ctx, run), {
      'cache-control': 'private, no-store',
      'content-disposition': `attachment; filename="run-${run.id}.json"`,
    })
  })

  return router
}

/** Pieces of one JSON document, written as they are made; a slow reader slows only itself. */
function jsonStream(pieces: AsyncGenerator<string>, headers: Record<string, string> = {}): Response {
  const body = ReadableStream.from(pieces).pipeThrough(new TextEncoderStream())
  return new Response(body, { headers: { 'content-type': 'application/json', ...headers } })
}
