import { createHash } from 'node:crypto'
import type { Database, Queryable } from './database.ts'

/** 512 KiB: small enough to keep little in memory, large enough that a 100 MB bundle is only 200 rows. */
const chunkBytes = 512 * 1024

export interface BlobRecord {
  id: string
  runId: string
  contentType: string
  sizeBytes: number
}

export class BlobTooLarge extends Error {}

/** Stores a stream in chunks, all or nothing. Rejects with BlobTooLarge past `maxBytes`. */
export async function insertBlob(
  db: Database,
  blob: { id: string; runId: string; executionId: string; contentType: string; maxBytes: number },
  body: AsyncIterable<Uint8Array>,
): Promise<BlobRecord> {
  return db.transaction(async (tx) => {
    const hash = createHash('sha256')
    let sizeBytes = 0
    let number = 0
    let pending: Uint8Array[] = []
    let pendingBytes = 0
    const flush = async () => {
      if (pendingBytes === 0) return
      await tx.query('insert into blob_chunks (blob_id, number, bytes) values ($1, $2, $3)', [
        blob.id,
        number++,
        Buffer.concat(pending),
      ])
      pending = []
      pendingBytes = 0
    }
    for await (const bytes of body) {
      sizeBytes += bytes.byteLength
      if (sizeBytes > blob.maxBytes) throw new BlobTooLarge()
      hash.update(bytes)
      pending.push(bytes)
      pendingBytes += bytes.byteLength
      if (pendingBytes >= chunkBytes) await flush()
    }
    await flush()
    await tx.query(
      `insert into blobs (id, run_id, execution_id, content_type, size_bytes, sha256) values ($1, $2, $3, $4, $5, $6)`,
      [blob.id, blob.runId, blob.executionId, blob.contentType, sizeBytes, hash.digest()],
    )
    return { id: blob.id, runId: blob.runId, contentType: blob.contentType, sizeBytes }
  })
}

export async function findBlob(db: Queryable, blobId: string): Promise<BlobRecord | undefined> {
  const { rows } = await db.query<{ id: string; run_id: string; content_type: string; size_bytes: number }>(
    'select id, run_id, content_type, size_bytes from blobs where id = $1',
    [blobId],
  )
  const row = rows[0]
  return row && { id: row.id, runId: row.run_id, contentType: row.content_type, sizeBytes: row.size_bytes }
}

/** The bytes, chunk by chunk. */
export async function* readBlob(db: Queryable, blobId: string): AsyncGenerator<Buffer> {
  for (let number = 0; ; number++) {
    const { rows } = await db.query<{ bytes: Buffer }>(
      'select bytes from blob_chunks where blob_id = $1 and number = $2',
      [blobId, number],
    )
    if (!rows[0]) return
    yield rows[0].bytes
  }
}
