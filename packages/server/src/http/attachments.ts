import { z } from '@hono/zod-openapi'
import {
  downloadAttachmentsRequest,
  downloadAttachmentsResponse,
  handoffAttachmentsResponse,
  prepareAttachmentsRequest,
  prepareAttachmentsResponse,
} from '@openoz/protocol/schemas'
import {
  attachmentLinks,
  handoffAttachments,
  prepareAttachments,
  uploadAttachment,
} from '../domain/attachment-links.ts'
import type { Ctx } from '../domain/context.ts'
import { uploadOf } from './downloads.ts'
import { requestIdentity } from './request-identity.ts'
import { createRouter, describe } from './router.ts'

const params = z.object({ runId: z.string() })

export function attachmentRoutes(ctx: Ctx) {
  const router = createRouter(ctx)

  router.openapi(
    describe(ctx, {
      method: 'post',
      path: '/agent/runs/{runId}/attachments/prepare',
      operationId: 'prepareAttachments',
      action: 'run.follow-up',
      summary: 'Name files for a run, and get a link for the bytes of each; its agent gets them with its next turn',
      request: {
        params,
        body: { required: true, content: { 'application/json': { schema: prepareAttachmentsRequest } } },
      },
      success: { status: 200, body: prepareAttachmentsResponse },
      errors: [400, 404, 409],
    }),
    async (c) => {
      const { runId } = c.req.valid('param')
      const preparation = { runId, request: c.req.valid('json'), identity: await requestIdentity(c) }
      return c.json(await prepareAttachments(ctx, preparation, c.get('actor')), 200)
    },
  )

  router.openapi(
    describe(ctx, {
      method: 'post',
      path: '/agent/runs/{runId}/attachments/download',
      operationId: 'downloadAttachments',
      action: 'run.read',
      summary: 'Links to files that a run was given',
      request: {
        params,
        body: { required: true, content: { 'application/json': { schema: downloadAttachmentsRequest } } },
      },
      success: { status: 200, body: downloadAttachmentsResponse },
      errors: [400, 404],
    }),
    async (c) => {
      const { attachment_ids } = c.req.valid('json')
      const attachments = await attachmentLinks(ctx, c.req.valid('param').runId, attachment_ids, c.get('actor'))
      return c.json({ attachments }, 200)
    },
  )

  router.openapi(
    describe(ctx, {
      method: 'get',
      path: '/agent/runs/{runId}/handoff/attachments',
      operationId: 'listHandoffAttachments',
      action: 'run.read',
      summary: 'What a run left behind, as bundles and diffs of its repositories, to go on with elsewhere',
      request: { params },
      success: { status: 200, body: handoffAttachmentsResponse },
      errors: [404],
    }),
    async (c) => {
      const attachments = await handoffAttachments(ctx, c.req.valid('param').runId, c.get('actor'))
      return c.json({ attachments }, 200)
    },
  )

  // Without a key: the link itself is the permission. The body is a file; the document has the route from `http/openapi.ts`.
  router.put('/agent/attachments/:attachmentId', async (c) => {
    const { expires, signature } = c.req.query()
    const link = { id: c.req.param('attachmentId'), expires, signature }
    return c.json(await uploadAttachment(ctx, link, uploadOf(c)), 200)
  })

  return router
}
