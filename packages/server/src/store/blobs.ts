import { createHash } from 'node:crypto'
import type { Database, Queryable, Tx } from './database.ts'
import { over } from './execution-states.ts'

/** 512 KiB: small enough to keep little in memory, large enough that a 100 MB bundle is only 200 rows. */
const chunkBytes = 512 * 1024

export interface BlobRecord {
  id: string
  runId: string
  contentType: string
  sizeBytes: number
}

export interface NewBlob {
  id: string
  runId: string
  /** null: no execution sent it. */
  executionId: string | null
  contentType: string
  maxBytes: number
}

export interface StoredBlob extends BlobRecord {
  sha256: Buffer
}

export class BlobTooLarge extends Error {}

/** Of a blob that is still being written. */
const noHash = Buffer.alloc(0)

/**
 * Stores a stream in chunks. Rejects with BlobTooLarge past `maxBytes`. No connection is held while the sender takes its time: a blob of more than
 * one chunk is begun without a hash, and nobody finds it before it has one. What an upload that broke off has written is removed.
 */
export async function insertBlob(db: Database, blob: NewBlob, body: AsyncIterable<Uint8Array>): Promise<StoredBlob> {
  const hash = createHash('sha256')
  let sizeBytes = 0
  let count = 0
  let last: Buffer | undefined
  try {
    for await (const chunk of inChunks(body)) {
      sizeBytes += chunk.byteLength
      if (sizeBytes > blob.maxBytes) throw new BlobTooLarge()
      hash.update(chunk)
      if (last && count === 0) await insertBlobRow(db, blob, 0, noHash)
      if (last) await insertChunk(db, blob.id, count++, last)
      last = chunk
    }
    const sha256 = hash.digest()
    await db.transaction(async (tx) => {
      if (last) await insertChunk(tx, blob.id, count, last)
      if (count === 0) await insertBlobRow(tx, blob, sizeBytes, sha256)
      else await tx.query('update blobs set size_bytes = $2, sha256 = $3 where id = $1', [blob.id, sizeBytes, sha256])
    })
    return { id: blob.id, runId: blob.runId, contentType: blob.contentType, sizeBytes, sha256 }
  } catch (error) {
    // Should this fail too, housekeeping does it.
    if (count > 0 || last) await deleteBlob(db, blob.id).catch(() => {})
    throw error
  }
}

/** Bytes that are in memory anyway, as part of a transaction. */
export async function insertBytes(tx: Tx, blob: Omit<NewBlob, 'maxBytes'>, bytes: Buffer): Promise<void> {
  await insertBlobRow(tx, blob, bytes.byteLength, createHash('sha256').update(bytes).digest())
  for (let number = 0; number * chunkBytes < bytes.byteLength; number++)
    await insertChunk(tx, blob.id, number, bytes.subarray(number * chunkBytes, (number + 1) * chunkBytes))
}

async function insertBlobRow(
  db: Queryable,
  blob: Omit<NewBlob, 'maxBytes'>,
  sizeBytes: number,
  sha256: Buffer,
): Promise<void> {
  await db.query(
    'insert into blobs (id, run_id, execution_id, content_type, size_bytes, sha256) values ($1, $2, $3, $4, $5, $6)',
    [blob.id, blob.runId, blob.executionId, blob.contentType, sizeBytes, sha256],
  )
}

async function insertChunk(db: Queryable, blobId: string, number: number, bytes: Buffer): Promise<void> {
  await db.query('insert into blob_chunks (blob_id, number, bytes) values ($1, $2, $3)', [blobId, number, bytes])
}

async function* inChunks(body: AsyncIterable<Uint8Array>): AsyncGenerator<Buffer> {
  let pending: Uint8Array[] = []
  let pendingBytes = 0
  for await (const bytes of body) {
    pending.push(bytes)
    pendingBytes += bytes.byteLength
    if (pendingBytes < chunkBytes) continue
    yield Buffer.concat(pending)
    pending = []
    pendingBytes = 0
  }
  if (pendingBytes > 0) yield Buffer.concat(pending)
}

export async function deleteBlob(db: Queryable, blobId: string): Promise<void> {
  await db.query('delete from blobs where id = $1', [blobId])
}

/** What uploads left behind whose server died with them. */
export async function deleteUnfinishedBlobs(db: Queryable, olderThanSeconds: number): Promise<void> {
  await db.query(`delete from blobs where sha256 = '' and created_at < db_now() - make_interval(secs => $1)`, [
    olderThanSeconds,
  ])
}

/** $1: seconds. Until then an execution may still send the event that names a blob, and an upload may still be on its way. */
const isLookedAt = `not is_kept and (
     execution_id is null and blobs.created_at < db_now() - make_interval(secs => $1)
  or exists (select from executions
              where executions.id = blobs.execution_id and state in ${over} and ended_at < db_now() - make_interval(secs => $1)))`

/**
 * What nobody can name any more: sent by an execution that is over for so long that its token takes no events, or as long ago by somebody else, and
 * neither in a checkpoint nor in a saved workspace nor an attachment nor anywhere in the run's log. What is kept is marked, so that a log is not
 * read for it again. Answers how many were removed.
 */
export async function deleteUnreferencedBlobs(
  db: Queryable,
  { afterSeconds, maxRuns }: { afterSeconds: number; maxRuns: number },
): Promise<number> {
  const { rows } = await db.query<{ run_id: string }>(
    `select distinct run_id from blobs where ${isLookedAt} limit $2`,
    [afterSeconds, maxRuns],
  )
  let count = 0
  for (const { run_id: runId } of rows) count += await deleteUnreferencedBlobsOf(db, runId, afterSeconds)
  return count
}

async function deleteUnreferencedBlobsOf(db: Queryable, runId: string, afterSeconds: number): Promise<number> {
  // Of what no execution sent, only artifacts are named in the log, and those have an index.
  const { rowCount } = await db.query(
    `with candidate as (
       select id, execution_id from blobs where run_id = $2 and ${isLookedAt}
     ), mentioned as (
       select found[1]::uuid as id
         from session_events,
              regexp_matches(data::text, '[0-9a-f]{8}(?:-[0-9a-f]{4}){3}-[0-9a-f]{12}', 'gi') found
        where run_id = $2 and exists (select from candidate where execution_id is not null)
       union all
       select found[1]::uuid
         from session_events,
              regexp_matches(data->>'blob_id', '^[0-9a-f]{8}(?:-[0-9a-f]{4}){3}-[0-9a-f]{12}$', 'i') found
        where run_id = $2 and type = 'artifact'
     ), saved as (
       select unnest(array[repository->>'bundle_blob_id', repository->>'diff_blob_id'])::uuid as id
         from saved_workspaces, jsonb_array_elements(repositories) repository
        where run_id = $2
     ), kept as (
       select id from candidate
        where exists (select from checkpoints where blob_id = candidate.id)
           or exists (select from attachments where blob_id = candidate.id)
           or exists (select from saved where saved.id = candidate.id)
           or exists (select from mentioned where mentioned.id = candidate.id)
     ), marked as (
       update blobs set is_kept = true where id in (select id from kept)
     )
     delete from blobs where id in (select id from candidate) and not exists (select from kept where kept.id = blobs.id)`,
    [afterSeconds, runId],
  )
  return rowCount ?? 0
}

export async function findBlob(db: Queryable, blobId: string): Promise<BlobRecord | undefined> {
  const { rows } = await db.query<{ id: string; run_id: string; content_type: string; size_bytes: number }>(
    'select id, run_id, content_type, size_bytes from blobs where id = $1 and sha256 <> $2',
    [blobId, noHash],
  )
  const row = rows[0]
  return row && { id: row.id, runId: row.run_id, contentType: row.content_type, sizeBytes: row.size_bytes }
}

export async function haveSameBytes(db: Queryable, blobId: string, otherId: string): Promise<boolean> {
  const { rows } = await db.query<{ same: boolean }>(
    'select one.sha256 = other.sha256 as same from blobs one, blobs other where one.id = $1 and other.id = $2',
    [blobId, otherId],
  )
  return rows[0]?.same ?? false
}

/** Whether the blob was made by a run of this run's conversation, or is what that conversation, as a copy, began with. */
export async function isOfConversation(db: Queryable, blobId: string, runId: string): Promise<boolean> {
  const { rows } = await db.query<{ found: boolean }>(
    `select exists (
       select from blobs join runs maker on maker.id = blobs.run_id join runs reader on reader.conversation_id = maker.conversation_id
        where blobs.id = $1 and reader.id = $2
       union all
       select from runs reader join checkpoints using (conversation_id) where reader.id = $2 and blob_id = $1
       union all
       select from runs reader join saved_workspaces using (conversation_id), jsonb_array_elements(repositories) repository
        where reader.id = $2 and $1::text in (repository->>'bundle_blob_id', repository->>'diff_blob_id')) as found`,
    [blobId, runId],
  )
  return rows[0]?.found ?? false
}

/** A copy under a run of its own, so that each run can be deleted alone. */
export async function copyBlob(tx: Tx, blobId: string, copy: { id: string; runId: string }): Promise<void> {
  await tx.query(
    `with copied as (
       insert into blobs (id, run_id, content_type, size_bytes, sha256)
       select $2, $3, content_type, size_bytes, sha256 from blobs where id = $1
     )
     insert into blob_chunks (blob_id, number, bytes) select $2, number, bytes from blob_chunks where blob_id = $1`,
    [blobId, copy.id, copy.runId],
  )
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
