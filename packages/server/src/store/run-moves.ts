import type { PlatformErrorCode, RunEventType, RunState } from '@openoz/protocol'
import type { Tx } from './database.ts'
import { type RunRecord, type RunRow, toRun } from './runs.ts'

export interface RunMove {
  state: RunState
  statusMessage: string
  errorCode: PlatformErrorCode | null
  failureReason: string | null
  /** Set when the run goes back to the queue because of a retry. */
  retries?: Record<string, number>
  notBeforeSeconds?: number
  /** Of whose doing it is; null: nobody's. */
  executionId: string | null
  /** Data of the `run_state` event, as JSON text that PostgreSQL can store. */
  eventData: string
  /** The event over all runs; null: nothing to tell. */
  runEventType: RunEventType | null
}

/**
 * Moves the run, and writes what its own log and the log over all runs have of it: one statement, since every run moves five times at least.
 * `started_at` is set by its first INPROGRESS, `ended_at` by a terminal state and cleared when it leaves one. The caller has locked the run, and the
 * execution where it changed one.
 */
export async function updateRunMoved(tx: Tx, runId: string, move: RunMove): Promise<RunRecord> {
  const { rows } = await tx.query<RunRow>(
    `with run as (
       update runs set
         state = $2, status_message = $3, error_code = $4, failure_reason = $5,
         retries = coalesce($6::jsonb, retries),
         not_before = case when $7::float8 is null then not_before else db_now() + make_interval(secs => $7) end,
         started_at = case when $2 = 'INPROGRESS' then coalesce(started_at, db_now()) else started_at end,
         ended_at = case when $2 in ('SUCCEEDED', 'FAILED', 'ERROR', 'CANCELLED') then db_now() end,
         updated_at = db_now()
       where id = $1 returning *
     ), log as (
       update session_logs set last_seq = last_seq + 1 from run where session_logs.run_id = run.id returning session_logs.*
     ), event as (
       insert into session_events (run_id, seq, execution_id, type, at, data)
       select run_id, last_seq, $8, 'run_state', db_now(), $9 from log
     ), run_event as (
       insert into run_events (run_id, event_type, execution_id) select id, $10, $8 from run where $10::text is not null
     )
     select * from run`,
    [
      runId,
      move.state,
      move.statusMessage,
      move.errorCode,
      move.failureReason,
      move.retries === undefined ? null : JSON.stringify(move.retries),
      move.notBeforeSeconds ?? null,
      move.executionId,
      move.eventData,
      move.runEventType,
    ],
  )
  return toRun(rows[0] as RunRow)
}
