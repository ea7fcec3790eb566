import { failureSpec, isLive } from '@openoz/protocol'
import type { Hint } from '../domain/context.ts'
import { endCancelled, endTurn, moveRun, requeueUnbegunTurn } from '../domain/turns.ts'
import type { Queryable, Tx } from '../store/database.ts'
import { live } from '../store/execution-states.ts'
import { type ExecutionRecord, findCurrentExecutionForUpdate, updateExecutionEnded } from '../store/executions.ts'
import { findRunForUpdate, type RunRecord } from '../store/runs.ts'
import { findOpenTurn } from '../store/turns.ts'

/**
 * What a restored database says of executions was true when the backup was made. Nobody knows what became of them since then, and the old machine may
 * still perform them; but whatever their agents and workers say from now on, they say it to an execution that is over. Each run then is where it can
 * be without an agent:
 *
 *   at work → ERROR, with reason `restored` (or, if asked for, back into the queue)      offered → back into the queue
 *   being cancelled → CANCELLED      at rest, its agent waiting for a follow-up → stays as it is      QUEUED, BLOCKED → stay as they are
 */

export interface RestoredRuns {
  /** Ended as ERROR. */
  ended: number
  /** Go on by themselves: those at work, when that was asked for, and those that nobody had begun. */
  requeued: number
  cancelled: number
  /** Wait in the queue now, the requeued ones among them. */
  queued: number
}

const reason = 'restored'
const spec = failureSpec(reason)

/** Nobody is there to be woken: who starts next looks. */
const hint: Hint = () => {}

export async function endRestoredRuns(tx: Tx, wishes: { madeAt: string; requeue: boolean }): Promise<RestoredRuns> {
  const count = { ended: 0, requeued: 0, cancelled: 0 }
  for (const runId of await listRunsWithExecution(tx)) {
    const run = await findRunForUpdate(tx, runId)
    const execution = await findCurrentExecutionForUpdate(tx, runId)
    if (!run) continue
    const what = await endRestoredRun(tx, run, execution, wishes)
    if (what) count[what]++
  }
  await forgetOldWorkers(tx)
  return { ...count, queued: await countQueued(tx) }
}

/** Nobody on this machine could say that the processes of a lost execution are gone. */
async function forgetOldWorkers(tx: Tx): Promise<void> {
  await tx.query('update runs set awaits_gone = null where awaits_gone is not null')
}

async function endRestoredRun(
  tx: Tx,
  run: RunRecord,
  execution: ExecutionRecord | undefined,
  { madeAt, requeue }: { madeAt: string; requeue: boolean },
): Promise<'ended' | 'requeued' | 'cancelled' | undefined> {
  const wasOffered = execution?.state === 'offered'
  if (execution && isLive(execution.state))
    await updateExecutionEnded(tx, execution.id, {
      state: wasOffered ? 'ended' : 'lost',
      failureReason: reason,
      message: `The control plane was restored from the backup of ${madeAt}.`,
    })
  const about = execution ? { executionId: execution.id } : {}
  if (run.cancelRequestedAt) {
    await endCancelled(tx, hint, run, execution)
    return 'cancelled'
  }
  if (run.state === 'QUEUED') return undefined
  if (execution && (await requeueUnbegunTurn(tx, hint, run, execution))) return 'requeued'
  if (!(await findOpenTurn(tx, run.id))) return undefined
  const isLocal = run.executionLocation === 'LOCAL'
  if (!isLocal && (wasOffered || requeue)) {
    const message = wasOffered
      ? 'Its offer is void, since the control plane was restored from a backup.'
      : `${spec.meaning} It goes on from its last checkpoint.`
    await moveRun(tx, hint, run, { state: 'QUEUED', message: `${message} Waiting for a worker.`, ...about })
    return 'requeued'
  }
  const next = isLocal
    ? `go on with \`oz agent run --conversation ${run.conversationId}\``
    : 'continue with a follow-up'
  await endTurn(tx, hint, run, execution, {
    outcome: 'ERROR',
    message: `${spec.meaning} What became of it after ${madeAt} is not known: ${next}.`,
    errorCode: spec.code,
    failureReason: reason,
  })
  return 'ended'
}

async function listRunsWithExecution(db: Queryable): Promise<string[]> {
  const { rows } = await db.query<{ id: string }>(
    `select id from runs
      where state in ('PENDING', 'CLAIMED', 'INPROGRESS')
         or exists (select from executions where run_id = runs.id and executions.state in ${live})
      order by id`,
  )
  return rows.map(({ id }) => id)
}

async function countQueued(db: Queryable): Promise<number> {
  const { rows } = await db.query<{ count: number }>(`select count(*) as count from runs where state = 'QUEUED'`)
  return rows[0]?.count ?? 0
}
