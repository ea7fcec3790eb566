import { AppError } from '@openoz/protocol'
import { v7 as uuidv7 } from 'uuid'
import { BlobTooLarge, deleteBlob, insertBlob, type StoredBlob } from '../store/blobs.ts'
import type { Ctx } from './context.ts'

/** Bytes that somebody sends, as a stream. */
export interface Upload {
  contentType: string | undefined
  /** What the sender announced. */
  contentLength: number | undefined
  body: AsyncIterable<Uint8Array>
}

interface UploadLimits {
  runId: string
  maxBytes: number
  /** What is thrown when there are more. Where that was announced they are not read. */
  tooLarge: () => Error
}

/** Stores them for a run while `use` decides whether they are kept: when it throws a refusal they are gone again. */
export async function withStoredUpload<T>(
  ctx: Ctx,
  upload: Upload,
  { limits, use }: { limits: UploadLimits; use: (blob: StoredBlob) => Promise<T> },
): Promise<T> {
  const blob = await storeUpload(ctx, upload, limits)
  try {
    return await use(blob)
  } catch (error) {
    // What a broken connection to the database kept of the transaction, nobody knows; housekeeping finds what is left over.
    if (error instanceof AppError) await deleteBlob(ctx.db, blob.id)
    throw error
  }
}

async function storeUpload(ctx: Ctx, upload: Upload, { runId, maxBytes, tooLarge }: UploadLimits): Promise<StoredBlob> {
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
