import { v7 as uuidv7 } from 'uuid'
import { BlobTooLarge, insertBlob } from '../store/blobs.ts'
import type { Ctx } from './context.ts'

/** Bytes that somebody sends, as a stream. */
export interface Upload {
  contentType: string | undefined
  /** What the sender announced. */
  contentLength: number | undefined
  body: AsyncIterable<Uint8Array>
}

/** Stores them for a run. Throws what `tooLarge` makes when there are more than `maxBytes`, without reading them where that was announced. */
export async function storeUpload(
  ctx: Ctx,
  upload: Upload,
  { runId, maxBytes, tooLarge }: { runId: string; maxBytes: number; tooLarge: () => Error },
) {
  if ((upload.contentLength ?? 0) > maxBytes) throw tooLarge()
  try {
    const contentType = usableContentType(upload.contentType)
    return await insertBlob(ctx.db, { id: uuidv7(), runId, executionId: null, contentType, maxBytes }, upload.body)
  } catch (error) {
    throw error instanceof BlobTooLarge ? tooLarge() : error
  }
}

const unknownContentType = 'application/octet-stream'

/** It goes out again as a header. */
export function usableContentType(text: string | undefined): string {
  const isUsable = /^[\w!#$&^.+-]+\/[\w!#$&^.+-]+(;[\x20-\x7e]*)?$/.test(text ?? '') && (text ?? '').length <= 255
  return text !== undefined && isUsable ? text : unknownContentType
}
