import type { RunEvent, RunEventType } from '@openoz/protocol'
import type { Queryable, Tx } from './database.ts'

/**
 * Events over all runs, in one order. Readers go on behind the last sequence that they saw, and transactions commit in another order than the one
 * in which they write: were an event numbered by the transaction that writes it, one with a lower number could appear after a higher one was read,
 * and be missed. (Waiting until no older transaction runs does not help: a number may be taken long after a transaction began, and one that is left
 * open in any database of the same PostgreSQL would stop all readers.) So events are written without a number, and numbered once they are
 * committed, by one transaction at a time: numbers appear in their order.
 */

/** An arbitrary constant: what two numbering transactions of one database agree upon. */
const numberingLock = 4_747_002

/** Numbered in one transaction. */
const numberingBatch = 5_000

export interface NewRunEvent {
  runId: string
  eventType: RunEventType
  refId: string | null
  executionId: string | null
}

/** Answers its id. Readers get it after it was numbered. */
export async function insertRunEvent(tx: Tx, event: NewRunEvent): Promise<number> {
  const { rows } = await tx.query<{ id: number }>(
    'insert into run_events (run_id, event_type, ref_id, execution_id) values ($1, $2, $3, $4) returning id',
    [event.runId, event.eventType, event.refId, event.executionId],
  )
  return rows[0]?.id ?? 0
}

export async function hasUnnumberedRunEvents(db: Queryable): Promise<boolean> {
  const { rows } = await db.query<{ found: boolean }>(
    'select exists (select from run_events where sequence is null) as found',
  )
  return rows[0]?.found ?? false
}

/**
 * Numbers what is committed, and what this transaction wrote, in the order in which it was written: of one run that is the order of its moves.
 * Answers whether there may be more. Others wait until this transaction has ended, so it must end soon.
 */
export async function numberRunEvents(tx: Tx): Promise<boolean> {
  await tx.query('select pg_advisory_xact_lock($1)', [numberingLock])
  const { rowCount } = await tx.query(
    `with numbered as materialized (
       select id, nextval('run_event_sequence') as sequence
         from (select id from run_events where sequence is null order by id limit $1) waiting
     )
     update run_events set sequence = numbered.sequence from numbered where run_events.id = numbered.id`,
    [numberingBatch],
  )
  return rowCount === numberingBatch
}

export async function findRunEventSequence(db: Queryable, id: number): Promise<number | null> {
  const { rows } = await db.query<{ sequence: number | null }>('select sequence from run_events where id = $1', [id])
  return rows[0]?.sequence ?? null
}

/** Of which runs, as far as the viewer may see them. */
export type RunEventScope = { runIds: string[] } | { ancestorRunId: string; includeSelf: boolean }

export interface RunEventViewer {
  teamId: string
  userId: string | null
  /** An agent: sees its own run only. */
  onlyRunId: string | null
}

interface RunEventRow {
  event_type: RunEventType
  run_id: string
  ref_id: string | null
  execution_id: string | null
  occurred_at: Date
  sequence: number
}

/** A page after `since`. Which runs there are and what happened to them is one look: a run that is born meanwhile is not passed over. */
export async function listRunEvents(
  db: Queryable,
  viewer: RunEventViewer,
  { scope, since, limit }: { scope: RunEventScope; since: number; limit: number },
): Promise<RunEvent[]> {
  const isTree = 'ancestorRunId' in scope
  const { rows } = await db.query<RunEventRow>(
    `with recursive wanted as (
       select id from runs where id = any($1)
       union
       select child.id from runs child join wanted on child.parent_run_id = wanted.id where $2
     )
     select event_type, run_id, ref_id, execution_id, occurred_at, sequence
       from run_events join runs on runs.id = run_id
      where run_id in (select id from wanted) and sequence > $3
        and ($4::uuid is null or run_id <> $4)
        and runs.team_id = $5 and (runs.scope = 'team' or runs.created_by_user = $6 or run_id = $7)
        and ($7::uuid is null or run_id = $7)
      order by sequence limit $8`,
    [
      isTree ? [scope.ancestorRunId] : scope.runIds,
      isTree,
      since,
      isTree && !scope.includeSelf ? scope.ancestorRunId : null,
      viewer.teamId,
      viewer.userId,
      viewer.onlyRunId,
      limit,
    ],
  )
  return rows.map((row) => ({
    event_type: row.event_type,
    run_id: row.run_id,
    ref_id: row.ref_id,
    execution_id: row.execution_id,
    occurred_at: row.occurred_at.toISOString(),
    sequence: row.sequence,
  }))
}

export async function deleteOldRunEvents(db: Queryable, olderThanSeconds: number): Promise<void> {
  await db.query('delete from run_events where occurred_at < db_now() - make_interval(secs => $1)', [olderThanSeconds])
}
