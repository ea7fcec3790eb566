import { AppError, type ReportEventRequest, type RunEventType, type RunState } from '@openoz/protocol'
import { insertAuditEvent } from '../store/audit-events.ts'
import type { Database, Tx } from '../store/database.ts'
import { findExecution } from '../store/executions.ts'
import {
  findRunEventSequence,
  hasUnnumberedRunEvents,
  insertRunEvent,
  numberRunEvents,
  type RunEventViewer,
} from '../store/run-events.ts'
import type { RunRecord } from '../store/runs.ts'
import { type Actor, actorLabel } from './actors.ts'
import type { Hint } from './context.ts'
import { storableText } from './session-log.ts'

/**
 * The events over all runs, for whoever coordinates several: how runs move, what their starters report of them, and that a message came. Each is
 * written in the transaction of what it tells; readers see it once it is numbered.
 */

/** Before its agent is at work there is nothing to tell of a run. */
export const runEventOfState: Partial<Record<RunState, RunEventType>> = {
  INPROGRESS: 'run_in_progress',
  SUCCEEDED: 'run_succeeded',
  FAILED: 'run_failed',
  ERROR: 'run_errored',
  BLOCKED: 'run_blocked',
  CANCELLED: 'run_cancelled',
}

export async function recordMessage(tx: Tx, hint: Hint, runId: string, messageId: string): Promise<void> {
  await insertRunEvent(tx, { runId, eventType: 'new_message', refId: messageId, executionId: null })
  hint('run-events')
}

/** What somebody else knows of a run. It is told on, and moves nothing: a run's state is decided by its turns alone. */
export async function reportRunEvent(
  tx: Tx,
  hint: Hint,
  { run, request, actor }: { run: RunRecord; request: ReportEventRequest; actor: Actor },
): Promise<{ sequence: number }> {
  requireLive(actor)
  const executionId = request.execution_id ?? (actor.kind === 'execution' ? actor.executionId : undefined)
  if (executionId !== undefined && (await findExecution(tx, executionId))?.runId !== run.id)
    throw new AppError('invalid_request', {
      problem: `execution_id: run ${run.id} has no execution ${executionId}.`,
    })
  const refId = request.ref_id === undefined ? null : storableText(request.ref_id)
  const eventType = request.event_type
  const id = await insertRunEvent(tx, { runId: run.id, eventType, refId, executionId: executionId ?? null })
  await insertAuditEvent(tx, {
    teamId: run.teamId,
    actor: actorLabel(actor),
    action: 'event.report',
    target: `run:${run.id}`,
    data: { event_type: eventType },
  })
  while (await numberRunEvents(tx));
  hint('run-events')
  return { sequence: (await findRunEventSequence(tx, id)) ?? 0 }
}

/** An agent whose execution is over may add evidence to its log, and say nothing to others. */
export function requireLive(actor: Actor): void {
  if (actor.kind === 'execution' && actor.overForSeconds !== null)
    throw new AppError('execution_token_ended', { executionId: actor.executionId })
}

export function viewerOf(actor: Actor): RunEventViewer {
  return {
    teamId: actor.teamId,
    userId: actor.userId,
    onlyRunId: actor.kind === 'execution' ? actor.runId : null,
  }
}

/** Numbers what is committed by now. */
export async function numberAllRunEvents(db: Database): Promise<void> {
  while (await hasUnnumberedRunEvents(db)) {
    const mayBeMore = await db.transaction((tx) => numberRunEvents(tx))
    if (!mayBeMore) return
  }
}
