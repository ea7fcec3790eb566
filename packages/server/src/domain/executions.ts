import { AppError, type Execution, isLive, type WaterfallStep } from '@openoz/protocol'
import { findDatabaseTime } from '../store/control-plane.ts'
import type { Tx } from '../store/database.ts'
import {
  type ExecutionRecord,
  findRunAndExecutionForUpdate,
  type Goodbye,
  listExecutions as listExecutionRecords,
} from '../store/executions.ts'
import type { RunRecord } from '../store/runs.ts'
import { listSetupSteps } from '../store/session-log.ts'
import type { ExecutionActor } from './actors.ts'
import type { Ctx } from './context.ts'

/** Every attempt at a run, with the waterfall of each. */
export async function listExecutions(ctx: Ctx, run: RunRecord): Promise<Execution[]> {
  const [executions, steps, now] = await Promise.all([
    listExecutionRecords(ctx.db, run.id),
    listSetupSteps(ctx.db, run.id),
    findDatabaseTime(ctx.db),
  ])
  return executions.map((execution) => ({
    execution_id: execution.id,
    retry_of: execution.retryOf,
    worker: run.host ?? execution.workerId,
    state: execution.state,
    unreachable:
      isLive(execution.state) && now.getTime() - execution.leaseRenewedAt.getTime() > ctx.config.lease.unreachableMs,
    created_at: execution.createdAt.toISOString(),
    claimed_at: execution.claimedAt?.toISOString() ?? null,
    started_at: execution.startedAt?.toISOString() ?? null,
    ended_at: execution.endedAt?.toISOString() ?? null,
    outcome: execution.outcome,
    failure_reason: execution.failureReason,
    exit_code: execution.exitCode,
    message: execution.message,
    waterfall: [
      ...serverSteps(run, execution),
      ...agentSteps(steps.filter((step) => step.executionId === execution.id)),
    ].sort((a, b) => a.started_at.localeCompare(b.started_at)),
  }))
}

/** What the server itself saw: the offer until it was claimed, and the start of the process until its hello. */
function serverSteps(run: RunRecord, execution: ExecutionRecord): WaterfallStep[] {
  const step = (name: string, from: Date | null, to: Date | null): WaterfallStep[] =>
    from
      ? [
          {
            step: name,
            started_at: from.toISOString(),
            duration_ms: to ? to.getTime() - from.getTime() : null,
            status: to ? 'completed' : 'started',
          },
        ]
      : []
  return [
    // Nobody is offered a local run.
    ...(run.executionLocation === 'LOCAL' ? [] : step('offer', execution.createdAt, execution.claimedAt)),
    ...step('hello', execution.claimedAt, execution.helloAt),
  ]
}

/** Steps that worker and agent reported: a `started` and its end are one row. */
function agentSteps(events: { at: Date; data: Record<string, unknown> }[]): WaterfallStep[] {
  const rows: WaterfallStep[] = []
  for (const { at, data } of events) {
    const name = String(data.title ?? data.step)
    const status = String(data.status)
    const duration = typeof data.duration_ms === 'number' ? data.duration_ms : null
    const open = rows.findLast((row) => row.step === name && row.duration_ms === null)
    // The server writes `hello` from its own clock; the agent's view of it would be a second row. How far a step is changes none.
    if (data.step === 'hello' || status === 'progress') continue
    if (status === 'started') rows.push({ step: name, started_at: at.toISOString(), duration_ms: null, status })
    else if (open) Object.assign(open, { duration_ms: duration, status })
    else
      rows.push({
        step: name,
        started_at: new Date(at.getTime() - (duration ?? 0)).toISOString(),
        duration_ms: duration,
        status,
      })
  }
  return rows
}

/** What the execution of an agent ends with that has nothing more to do. */
export const goodbye = 'The agent had nothing more to do.'

/** It ends within a second; one that hangs counts as settled like any other. */
export function afterGoodbye(ctx: Ctx): Goodbye {
  return { message: goodbye, forSeconds: ctx.config.lease.settledMs / 1000 }
}

/** Run, then execution, locked: the order everywhere. */
export async function lockExecution(
  tx: Tx,
  actor: ExecutionActor,
): Promise<{ run: RunRecord; execution: ExecutionRecord }> {
  const locked = await findRunAndExecutionForUpdate(tx, actor.runId, actor.executionId)
  if (!locked) throw new AppError('run_not_found', { runId: actor.runId })
  return locked
}
