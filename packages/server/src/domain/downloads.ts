import { AppError } from '@openoz/protocol'
import { type BlobRecord, findBlob } from '../store/blobs.ts'
import type { Ctx } from './context.ts'
import { type LinkTarget, requireSignedLink } from './signed-links.ts'

/** A link to stored bytes under a name: artifacts, attachments and what a run left behind. Who signs it has looked whether the caller may have them. */
export function blobLink(blobId: string, filename: string): LinkTarget {
  return { method: 'GET', path: `/agent/downloads/${blobId}`, query: { filename: filename.toWellFormed() } }
}

/** Rejects with `link_invalid`, and with `blob_not_found` for what was removed since the link was made. */
export async function openDownload(
  ctx: Ctx,
  link: { blobId: string; filename: string; expires: string | undefined; signature: string | undefined },
): Promise<BlobRecord> {
  await requireSignedLink(ctx, blobLink(link.blobId, link.filename), link)
  const blob = await findBlob(ctx.db, link.blobId)
  if (!blob) throw new AppError('blob_not_found', { blobId: link.blobId })
  return blob
}
