import type { Context } from 'hono'
import type { Ctx } from '../domain/context.ts'
import { openDownload } from '../domain/downloads.ts'
import { type Upload, usableContentType } from '../domain/uploads.ts'
import { readBlob } from '../store/blobs.ts'
import { byteAnswer } from './byte-answer.ts'
import { createRouter } from './router.ts'

/** Raw bytes by signed links; the document has the route from `http/openapi.ts`. */
export function downloadRoutes(ctx: Ctx) {
  const router = createRouter(ctx)

  // Without a key: the link itself is the permission.
  router.get('/agent/downloads/:blobId', async (c) => {
    const { expires, signature, filename = '' } = c.req.query()
    const blob = await openDownload(ctx, { blobId: c.req.param('blobId'), filename, expires, signature })
    return byteAnswer(ctx, c, readBlob(ctx.db, blob.id), {
      sizeBytes: blob.sizeBytes,
      headers: {
        'content-type': usableContentType(blob.contentType),
        'cache-control': 'private, no-store',
        // An agent, or who steers it, chose these bytes: no browser shall run them as a page of ours.
        'content-disposition': attachmentNamed(filename),
        'x-content-type-options': 'nosniff',
        'content-security-policy': "default-src 'none'; sandbox",
      },
    })
  })

  return router
}

/** RFC 6266: the name in ASCII for old programs, and as it is. */
function attachmentNamed(filename: string): string {
  const plain = filename.replaceAll(/[^\x20-\x7e]|["\\%]/g, '_')
  const encoded = encodeURIComponent(filename.toWellFormed()).replaceAll(
    /['()*]/g,
    (char) => `%${char.charCodeAt(0).toString(16).toUpperCase()}`,
  )
  return `attachment; filename="${plain}"; filename*=UTF-8''${encoded}`
}

/** The request's body as a stream. */
export function uploadOf(c: Context): Upload {
  const announced = c.req.header('content-length')
  return {
    contentType: c.req.header('content-type'),
    contentLength: announced === undefined ? undefined : Number(announced),
    body: c.req.raw.body ?? ReadableStream.from([]),
  }
}
