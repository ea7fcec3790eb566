import type { SavedRepository } from '@openoz/protocol'
import type { Queryable, Tx } from './database.ts'

export interface CheckpointRecord {
  harness: string
  format: string
  step: number
  blobId: string
}

export async function insertCheckpoint(
  tx: Tx,
  checkpoint: CheckpointRecord & { id: string; conversationId: string; runId: string; executionId: string },
): Promise<void> {
  await tx.query(
    `insert into checkpoints (id, conversation_id, run_id, execution_id, harness, format, step, blob_id)
     values ($1, $2, $3, $4, $5, $6, $7, $8)`,
    [
      checkpoint.id,
      checkpoint.conversationId,
      checkpoint.runId,
      checkpoint.executionId,
      checkpoint.harness,
      checkpoint.format,
      checkpoint.step,
      checkpoint.blobId,
    ],
  )
}

export async function findLastCheckpoint(db: Queryable, runId: string): Promise<CheckpointRecord | undefined> {
  const { rows } = await db.query<{ harness: string; format: string; step: number; blob_id: string }>(
    'select harness, format, step, blob_id from checkpoints where run_id = $1 order by id desc limit 1',
    [runId],
  )
  const row = rows[0]
  return row && { harness: row.harness, format: row.format, step: row.step, blobId: row.blob_id }
}

export interface SavedWorkspaceRecord {
  repositories: SavedRepository[]
  leftOut: string[]
  createdAt: Date
}

export async function insertSavedWorkspace(
  tx: Tx,
  /** Lists as JSON text, already cleaned of what PostgreSQL cannot store. */
  workspace: { id: string; runId: string; executionId: string; repositories: string; leftOut: string },
): Promise<void> {
  await tx.query(
    'insert into saved_workspaces (id, run_id, execution_id, repositories, left_out) values ($1, $2, $3, $4, $5)',
    [workspace.id, workspace.runId, workspace.executionId, workspace.repositories, workspace.leftOut],
  )
}

export async function findLastWorkspace(db: Queryable, runId: string): Promise<SavedWorkspaceRecord | undefined> {
  const { rows } = await db.query<{ repositories: SavedRepository[]; left_out: string[]; created_at: Date }>(
    'select repositories, left_out, created_at from saved_workspaces where run_id = $1 order by id desc limit 1',
    [runId],
  )
  const row = rows[0]
  return row && { repositories: row.repositories, leftOut: row.left_out, createdAt: row.created_at }
}
