import { type ErrorCode, isLive, isTerminal, type Why } from '@openoz/protocol'
import { findDatabaseTime } from '../store/control-plane.ts'
import { type ExecutionRecord, listExecutions } from '../store/executions.ts'
import { countRunsBefore, type RunRecord } from '../store/runs.ts'
import { listWorkerConnections, type WorkerConnectionRecord } from '../store/workers.ts'
import type { Ctx } from './context.ts'
import { localCancelSeconds, localHelloSeconds, settledSeconds } from './leases.ts'
import { spanText } from './span-text.ts'

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

/** A live execution of which nobody has heard for longer than a renewal may take. */
interface Silence {
  execution: ExecutionRecord
  forMs: number
}

async function findAgent(ctx: Ctx, run: RunRecord): Promise<{ hasAgent: boolean; silence: Silence | undefined }> {
  const [executions, now] = await Promise.all([listExecutions(ctx.db, run.id), findDatabaseTime(ctx.db)])
  const execution = executions.at(-1)
  if (!execution || !isLive(execution.state) || execution.state === 'offered')
    return { hasAgent: false, silence: undefined }
  const forMs = now.getTime() - execution.leaseRenewedAt.getTime()
  return { hasAgent: true, silence: forMs > ctx.config.lease.unreachableMs ? { execution, forMs } : undefined }
}

/** Why a run waits, with each candidate; or why it ended, with what to do. */
export async function explainRun(ctx: Ctx, run: RunRecord): Promise<Why> {
  const workers = await listWorkerConnections(ctx.db, run.teamId)
  const isWaiting = run.state === 'QUEUED'
  const { hasAgent, silence } = await findAgent(ctx, run)
  return {
    run_id: run.id,
    state: run.state,
    summary: isWaiting
      ? waitingSentence(run.workerHost, [...new Set(workers.map((worker) => worker.workerId))])
      : summary(run, silence),
    next_step: nextStep(ctx, { run, hasAgent, workers, silence }),
    waiting_code: isWaiting ? waitingCode(run, workers) : null,
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

/** null where it only waits for its turn. A worker of another team is no worker here, and is not hinted at. */
function waitingCode(run: RunRecord, workers: WorkerConnectionRecord[]): ErrorCode | null {
  if (similarWorker(run, workers) !== undefined) return 'worker_id_differs'
  const isThere = workers.some(({ workerId }) => run.workerHost === null || run.workerHost === workerId)
  return isThere ? null : 'worker_not_connected'
}

/** The id that was probably meant, where the one that was named is not connected. */
function similarWorker({ workerHost }: RunRecord, workers: WorkerConnectionRecord[]): string | undefined {
  const ids = workers.map(({ workerId }) => workerId)
  if (workerHost === null || ids.includes(workerHost)) return undefined
  return ids.find((id) => id.toLowerCase() === workerHost.toLowerCase())
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

function summary(run: RunRecord, silence: Silence | undefined): string {
  const said = run.statusMessage ?? `The run is ${run.state}.`
  const isQuestion = run.state === 'BLOCKED' && !run.cancelRequestedAt
  const sentences = [isQuestion ? `The agent asks: ${said}` : said]
  if (silence) sentences.push(silentSentence(run, silence))
  return sentences.join(' ')
}

function silentSentence(run: RunRecord, { execution, forMs }: Silence): string {
  const isHeardOf = execution.helloAt !== null
  const who = isHeardOf ? 'Its agent on worker' : 'Worker'
  if (run.executionLocation === 'REMOTE')
    return `${who} ${execution.workerId} was last heard of ${spanText(forMs)} ago.`
  return isHeardOf
    ? `Its agent on ${run.host} was last heard of ${spanText(forMs)} ago.`
    : `Its agent on ${run.host} was not heard of yet.`
}

interface Situation {
  run: RunRecord
  /** One execution lives, whether it is heard of or not. */
  hasAgent: boolean
  workers: WorkerConnectionRecord[]
  silence: Silence | undefined
}

function nextStep(ctx: Ctx, { run, workers, silence, hasAgent }: Situation): string {
  if (isTerminal(run.state)) return 'Nothing waits. Look at the log with `oz run watch`.'
  if (run.executionLocation === 'LOCAL') return nextLocalStep(ctx, { run, silence, hasAgent })
  if (run.cancelRequestedAt) return 'The agent is stopping; after 10 seconds its worker ends it.'
  if (run.state === 'BLOCKED') return `Answer with \`oz run follow-up ${run.id} "answer"\`.`
  if (silence && run.state !== 'QUEUED') return unlessItComesBack(ctx, silence)
  if (run.state !== 'QUEUED') return 'Nothing: the run is at work.'
  const similar = similarWorker(run, workers)
  if (similar !== undefined) return `Upper and lower case count: start the run again with \`--host ${similar}\`.`
  if (workers.length === 0 && run.workerHost === null)
    return 'Start a worker: `oz-agent-worker --worker-id NAME --backend direct`.'
  if (run.workerHost !== null && !workers.some((worker) => worker.workerId === run.workerHost))
    return `Start a worker with --worker-id ${run.workerHost}, or start the run again with one that is connected. ${otherTeam}`
  return 'Wait for a slot, raise --max-concurrent-tasks, or start another worker.'
}

const otherTeam = 'A worker takes the runs of its key’s team only; its log names that team.'

/** No worker ends it, and none goes on with it. */
function nextLocalStep(ctx: Ctx, { run, silence, hasAgent }: Omit<Situation, 'workers'>): string {
  if (run.cancelRequestedAt)
    return `The agent is stopping; once nothing is heard of it for ${spanText(localCancelSeconds * 1000)}, the run ends without it.`
  if (run.state === 'BLOCKED')
    return hasAgent
      ? `Answer with \`oz run follow-up ${run.id} "answer"\`.`
      : `Its agent has left. Answer with a new run: \`oz agent run --conversation ${run.conversationId} --prompt "answer"\`.`
  if (!silence) return 'Nothing: the run is at work.'
  const { execution, forMs } = silence
  const lostMs =
    execution.helloAt === null
      ? localHelloSeconds * 1000
      : execution.state === 'idle'
        ? settledSeconds * 1000
        : ctx.config.lease.lostMs
  return `See whether the agent still runs on ${run.host} and reaches this server. Unless it is heard of within ${spanText(lostMs - forMs)}, the run ends as ERROR.`
}

/** What the sweeper of leases will do, and when. */
function unlessItComesBack(ctx: Ctx, { execution, forMs }: Silence): string {
  // At rest it had begun nothing: its message only waits for another agent.
  if (execution.state === 'idle')
    return `Nothing: unless it is heard of within ${spanText(settledSeconds * 1000 - forMs)}, another agent takes the message.`
  return (
    `See whether worker ${execution.workerId} is running and reaches this server. Unless it is heard of within ` +
    `${spanText(ctx.config.lease.lostMs - forMs)}, this attempt is given up and the run is tried again from its last checkpoint.`
  )
}
