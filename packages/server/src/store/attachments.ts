import type { RunAttachment } from '@openoz/protocol'
import type { Queryable, Tx } from './database.ts'

export interface AttachmentRecord {
  id: string
  runId: string
  fileName: string
  mimeType: string
  /** null: not uploaded yet. */
  blobId: string | null
}

/** `blob` is absent for one whose bytes are still to come. */
export async function insertAttachment(
  tx: Tx,
  attachment: Omit<AttachmentRecord, 'blobId'>,
  blob?: { id: string; sizeBytes: number },
): Promise<void> {
  await tx.query(
    'insert into attachments (id, run_id, file_name, mime_type, blob_id, size_bytes) values ($1, $2, $3, $4, $5, $6)',
    [
      attachment.id,
      attachment.runId,
      attachment.fileName,
      attachment.mimeType,
      blob?.id ?? null,
      blob?.sizeBytes ?? null,
    ],
  )
}

/** The bytes of one that was prepared. Answers false when it has some already, or is gone. */
export async function updateAttachmentBlob(
  tx: Tx,
  id: string,
  blob: { id: string; sizeBytes: number },
): Promise<boolean> {
  const { rowCount } = await tx.query(
    'update attachments set blob_id = $2, size_bytes = $3 where id = $1 and blob_id is null',
    [id, blob.id, blob.sizeBytes],
  )
  return rowCount === 1
}

interface AttachmentRow {
  id: string
  run_id: string
  file_name: string
  mime_type: string
  size_bytes: number | null
  blob_id: string | null
}

const toAttachment = (row: AttachmentRow): AttachmentRecord => ({
  id: row.id,
  runId: row.run_id,
  fileName: row.file_name,
  mimeType: row.mime_type,
  blobId: row.blob_id,
})

export async function findAttachment(db: Queryable, id: string): Promise<AttachmentRecord | undefined> {
  const { rows } = await db.query<AttachmentRow>('select * from attachments where id = $1', [id])
  return rows[0] && toAttachment(rows[0])
}

/** All of a run, uploaded or not, in the order in which they were named. */
export async function listAttachments(db: Queryable, runId: string): Promise<AttachmentRecord[]> {
  const { rows } = await db.query<AttachmentRow>('select * from attachments where run_id = $1 order by position', [
    runId,
  ])
  return rows.map(toAttachment)
}

/** Those that an agent can fetch. */
export async function listUploadedAttachments(db: Queryable, runId: string): Promise<RunAttachment[]> {
  const { rows } = await db.query<AttachmentRow & { blob_id: string; size_bytes: number }>(
    'select * from attachments where run_id = $1 and blob_id is not null order by position',
    [runId],
  )
  return rows.map(({ id, file_name, mime_type, size_bytes, blob_id }) => ({
    attachment_id: id,
    file_name,
    mime_type,
    size_bytes,
    blob_id,
  }))
}
