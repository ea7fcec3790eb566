import type { SavedRepository } from '@openoz/protocol'
import type { Queryable, Tx } from './database.ts'

/** A run also keeps what copies of its conversation began with, until those have saved something of their own. That is theirs. */
const ofItsConversation = '(conversation_id = (select conversation_id from runs where id = $1))'

/** Its own, and what its conversation began with as a copy: no execution made that, and it may be kept with another run. */
const ownOrCopied = `((run_id = $1 or execution_id is null) and ${ofItsConversation})`

export interface CheckpointRecord {
  harness: string
  format: string
  step: number
  blobId: string
}

export async function insertCheckpoint(
  tx: Tx,
  checkpoint: CheckpointRecord & {
    id: string
    conversationId: string
    runId: string
    /** null: a copy. */
    executionId: string | null
    /** Of what a copy was made from; default now. */
    createdAt?: Date
  },
): Promise<void> {
  await tx.query(
    `insert into checkpoints (id, conversation_id, run_id, execution_id, harness, format, step, blob_id, created_at)
     values ($1, $2, $3, $4, $5, $6, $7, $8, coalesce($9, db_now()))`,
    [
      checkpoint.id,
      checkpoint.conversationId,
      checkpoint.runId,
      checkpoint.executionId,
      checkpoint.harness,
      checkpoint.format,
      checkpoint.step,
      checkpoint.blobId,
      checkpoint.createdAt ?? null,
    ],
  )
}

/** The conversation as it was last kept, by whichever of its runs. */
export async function findLastCheckpoint(
  db: Queryable,
  conversationId: string,
): Promise<(CheckpointRecord & { runId: string; createdAt: Date }) | undefined> {
  const { rows } = await db.query<CheckpointRow>(
    'select * from checkpoints where conversation_id = $1 order by position desc limit 1',
    [conversationId],
  )
  return rows[0] && toCheckpoint(rows[0])
}

/** The same for a copy: nobody prunes it before the transaction's end. The caller has locked the runs: a row that is pruned while it waits is none. */
export async function findLastCheckpointForShare(tx: Tx, conversationId: string) {
  const { rows } = await tx.query<CheckpointRow>(
    'select * from checkpoints where conversation_id = $1 order by position desc limit 1 for share',
    [conversationId],
  )
  return rows[0] && toCheckpoint(rows[0])
}

interface CheckpointRow {
  run_id: string
  harness: string
  format: string
  step: number
  blob_id: string
  created_at: Date
}

const toCheckpoint = (row: CheckpointRow) => ({
  runId: row.run_id,
  harness: row.harness,
  format: row.format,
  step: row.step,
  blobId: row.blob_id,
  createdAt: row.created_at,
})

/** Each checkpoint holds the whole conversation: of a run's, only the newest is ever read. The caller has locked the run. */
export async function deleteOlderCheckpoints(tx: Tx, runId: string, newestId: string): Promise<void> {
  await tx.query(
    `with older as (
       delete from checkpoints where id <> $2 and ${ownOrCopied} returning blob_id
     )
     delete from blobs using older
      where blobs.id = older.blob_id and not exists (select from checkpoints where blob_id = blobs.id and id = $2)`,
    [runId, newestId],
  )
}

export interface SavedWorkspaceRecord {
  repositories: SavedRepository[]
  leftOut: string[]
  createdAt: Date
}

export async function insertSavedWorkspace(
  tx: Tx,
  /** Lists as JSON text, already cleaned of what PostgreSQL cannot store. */
  workspace: {
    id: string
    runId: string
    conversationId: string
    /** null: a copy. */
    executionId: string | null
    repositories: string
    leftOut: string
    /** Of what a copy was made from; default now. */
    createdAt?: Date
  },
): Promise<void> {
  await tx.query(
    `insert into saved_workspaces (id, run_id, conversation_id, execution_id, repositories, left_out, created_at)
     values ($1, $2, $3, $4, $5, $6, coalesce($7, db_now()))`,
    [
      workspace.id,
      workspace.runId,
      workspace.conversationId,
      workspace.executionId,
      workspace.repositories,
      workspace.leftOut,
      workspace.createdAt ?? null,
    ],
  )
}

/** Each save holds everything since the run's base: of a run's, only the newest is ever read. The caller has locked the run. */
export async function deleteOlderWorkspaces(tx: Tx, runId: string, newestId: string): Promise<void> {
  // `= any (array)`, not a join: however many blobs the planner expects, each is looked up by its id.
  await tx.query(
    `with older as (
       delete from saved_workspaces where id <> $2 and ${ownOrCopied} returning repositories
     )
     delete from blobs
      where id = any (array(
        select unnest(array[repository->>'bundle_blob_id', repository->>'diff_blob_id'])::uuid
          from older, jsonb_array_elements(repositories) repository))`,
    [runId, newestId],
  )
}

/** What an execution had changed that another one had followed by then. The newest of each is kept, beside what the run goes on from. */
export async function insertLateWorkspace(
  tx: Tx,
  /** The list as JSON text, already cleaned of what PostgreSQL cannot store. */
  workspace: { id: string; runId: string; executionId: string; repositories: string },
): Promise<void> {
  await tx.query(
    `insert into late_workspaces (id, run_id, execution_id, repositories) values ($1, $2, $3, $4)
     on conflict (execution_id) do update set repositories = excluded.repositories, created_at = excluded.created_at`,
    [workspace.id, workspace.runId, workspace.executionId, workspace.repositories],
  )
}

interface SavedWorkspaceRow {
  repositories: SavedRepository[]
  left_out: string[]
  created_at: Date
}

const toSavedWorkspace = (row: SavedWorkspaceRow): SavedWorkspaceRecord => ({
  repositories: row.repositories,
  leftOut: row.left_out,
  createdAt: row.created_at,
})

/** What this run changed, as last saved. */
export async function findLastWorkspace(db: Queryable, runId: string): Promise<SavedWorkspaceRecord | undefined> {
  const { rows } = await db.query<SavedWorkspaceRow>(
    `select repositories, left_out, created_at from saved_workspaces
      where run_id = $1 and ${ofItsConversation} order by position desc limit 1`,
    [runId],
  )
  return rows[0] && toSavedWorkspace(rows[0])
}

/** What one attempt at the run changed, as last saved: what the run goes on from, or what came when another attempt was at work. */
export async function findWorkspaceOfAttempt(
  db: Queryable,
  runId: string,
  attempt: number,
): Promise<SavedWorkspaceRecord | undefined> {
  const { rows } = await db.query<SavedWorkspaceRow>(
    `with attempt as (select id from executions where run_id = $1 and number = $2)
     select repositories, left_out, created_at from saved_workspaces
      where run_id = $1 and execution_id = (select id from attempt)
     union all
     select repositories, '[]', created_at from late_workspaces where execution_id = (select id from attempt)
      order by created_at desc limit 1`,
    [runId, attempt],
  )
  return rows[0] && toSavedWorkspace(rows[0])
}

/** The workspace of a conversation, by whichever of its runs. */
export async function findWorkspaceOfConversation(
  db: Queryable,
  conversationId: string,
): Promise<SavedWorkspaceRecord | undefined> {
  const { rows } = await db.query<SavedWorkspaceRow>(
    `select repositories, left_out, created_at from saved_workspaces
      where conversation_id = $1 order by position desc limit 1`,
    [conversationId],
  )
  return rows[0] && toSavedWorkspace(rows[0])
}

/** The same for a copy: nobody prunes it before the transaction's end. */
export async function findWorkspaceOfConversationForShare(tx: Tx, conversationId: string) {
  const { rows } = await tx.query<SavedWorkspaceRow>(
    `select repositories, left_out, created_at from saved_workspaces
      where conversation_id = $1 order by position desc limit 1 for share`,
    [conversationId],
  )
  return rows[0] && toSavedWorkspace(rows[0])
}
