import { isTerminal, type Why } from '@openoz/protocol'
import { countRunsBefore, type RunRecord } from '../store/runs.ts'
import { listWorkerConnections, type WorkerConnectionRecord } from '../store/workers.ts'
import type { Ctx } from './context.ts'

/** What a queued run waits for, in one sentence, with the ids that are connected: a misspelt id shows itself. */
export function waitingSentence(workerHost: string | null, connectedIds: string[]): string {
  const connected = connectedIds.length === 0 ? 'No worker is connected.' : `Connected: ${connectedIds.join(', ')}.`
  if (workerHost !== null && !connectedIds.includes(workerHost))
    return `Waiting for worker ${workerHost}, which is not connected. ${connected}`
  if (connectedIds.length === 0) return 'Waiting for a worker: none is connected.'
  return workerHost === null
    ? 'Waiting for a worker with a free slot.'
    : `Waiting for a free slot of worker ${workerHost}.`
}

/** Why a run waits, with each candidate; or why it ended, with what to do. */
export async function explainRun(ctx: Ctx, run: RunRecord): Promise<Why> {
  const workers = await listWorkerConnections(ctx.db, run.teamId)
  const isWaiting = run.state === 'QUEUED'
  return {
    run_id: run.id,
    state: run.state,
    summary: isWaiting
      ? waitingSentence(run.workerHost, [...new Set(workers.map((worker) => worker.workerId))])
      : (run.statusMessage ?? `The run is ${run.state}.`),
    next_step: nextStep(run, workers),
    place_in_queue: isWaiting ? (await countRunsBefore(ctx.db, run)) + 1 : null,
    workers: isWaiting
      ? workers.map((worker) => ({
          worker_id: worker.workerId,
          connection_id: worker.id,
          reason: reasonAgainst(run, worker),
        }))
      : [],
    error_code: run.errorCode,
    failure_reason: run.failureReason,
  }
}

/** Why this worker does not take the run right now; null: it may. */
function reasonAgainst(run: RunRecord, worker: WorkerConnectionRecord): string | null {
  if (run.workerHost !== null && run.workerHost !== worker.workerId) {
    const onlyCaseDiffers = run.workerHost.toLowerCase() === worker.workerId.toLowerCase()
    return onlyCaseDiffers
      ? `the run names ${run.workerHost}: ids are case-sensitive`
      : `the run names worker ${run.workerHost}`
  }
  if (worker.draining) return 'it is draining and takes nothing new'
  if (worker.maxConcurrentTasks > 0 && worker.active >= worker.maxConcurrentTasks)
    return `all its ${worker.maxConcurrentTasks} slots are taken`
  if (run.notBefore !== null && run.notBefore.getTime() > Date.now()) return 'the run waits before it is tried again'
  return null
}

function nextStep(run: RunRecord, workers: WorkerConnectionRecord[]): string {
  if (isTerminal(run.state)) return 'Nothing waits. Look at the log with `oz run watch`.'
  if (run.state === 'BLOCKED') return 'Answer the agent’s question.'
  if (run.cancelRequestedAt) return 'The agent is stopping; after 10 seconds its worker ends it.'
  if (run.state !== 'QUEUED') return 'Nothing: the run is at work.'
  if (workers.length === 0) return 'Start a worker: `oz-agent-worker --worker-id NAME --backend direct`.'
  if (run.workerHost !== null && !workers.some((worker) => worker.workerId === run.workerHost))
    return `Start a worker with --worker-id ${run.workerHost}, or start the run again with one that is connected.`
  return 'Wait for a slot, raise --max-concurrent-tasks, or start another worker.'
}
