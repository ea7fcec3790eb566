import { type ErrorCode, isLive, isTerminal, type Why } from '@openoz/protocol'
import { findDatabaseTime } from '../store/control-plane.ts'
import { type ExecutionRecord, listExecutions } from '../store/executions.ts'
import { countRunsBefore, type RunRecord } from '../store/runs.ts'
import { listWorkerConnections, type WorkerConnectionRecord } from '../store/workers.ts'
import type { Ctx } from './context.ts'
import { retryDecision } from './retry-policy.ts'
import { spanText } from './span-text.ts'

/** What a queued run waits for, in one sentence, with the ids that are connected: a misspelt id shows itself. */
export function waitingSentence(workerHost: string | null, connectedIds: string[], drainingIds: string[] = []): string {
  const connected = connectedIds.length === 0 ? 'No worker is connected.' : `Connected: ${connectedIds.join(', ')}.`
  if (workerHost !== null && !connectedIds.includes(workerHost))
    return `Waiting for worker ${workerHost}, which is not connected. ${connected}`
  if (connectedIds.length === 0) return 'Waiting for a worker: none is connected.'
  if (workerHost !== null && drainingIds.includes(workerHost))
    return `Waiting for worker ${workerHost}, which is draining: nothing new is offered to it.`
  if (workerHost === null && connectedIds.every((id) => drainingIds.includes(id)))
    return 'Waiting for a worker: all that are connected are draining.'
  return workerHost === null
    ? 'Waiting for a worker with a free slot.'
    : `Waiting for a free slot of worker ${workerHost}.`
}

/** The ids that are connected; `draining`: those of them under which nobody takes anything new. */
export function workerIds(workers: WorkerConnectionRecord[]): { connected: string[]; draining: string[] } {
  const connected = [...new Set(workers.map(({ workerId }) => workerId))]
  const taking = new Set(workers.filter(({ draining }) => !draining).map(({ workerId }) => workerId))
  return { connected, draining: connected.filter((id) => !taking.has(id)) }
}

/** Longer than the pause after a rejection. */
const rejectionCountsMs = 15_000

/** A live execution of which nobody has heard for longer than a renewal may take. */
interface Silence {
  execution: ExecutionRecord
  forMs: number
}

/** Nothing of the run's lost execution may run any more before the next one begins. */
interface Awaited {
  execution: ExecutionRecord
  forMs: number
}

interface Agent {
  hasAgent: boolean
  /** Whose worker has had the run last. */
  last: ExecutionRecord | undefined
  silence: Silence | undefined
  awaited: Awaited | undefined
  /** Of the database. */
  now: Date
}

async function findAgent(ctx: Ctx, run: RunRecord): Promise<Agent> {
  const [executions, now] = await Promise.all([listExecutions(ctx.db, run.id), findDatabaseTime(ctx.db)])
  const execution = executions.at(-1)
  if (!execution || !isLive(execution.state) || execution.state === 'offered')
    return { hasAgent: false, last: execution, silence: undefined, awaited: findAwaited(run, executions, now), now }
  const forMs = now.getTime() - execution.leaseRenewedAt.getTime()
  const isSilent = forMs > ctx.config.lease.unreachableMs
  const silence = isSilent ? { execution, forMs } : undefined
  return { hasAgent: true, last: execution, silence, awaited: undefined, now }
}

function findAwaited(run: RunRecord, executions: ExecutionRecord[], now: Date): Awaited | undefined {
  const execution = executions.find(({ id }) => id === run.awaitsGone)
  const forMs = (run.awaitsGoneUntil?.getTime() ?? 0) - now.getTime()
  return execution && forMs > 0 ? { execution, forMs } : undefined
}

/** Why a run waits, with each candidate; or why it ended, with what to do. */
export async function explainRun(ctx: Ctx, run: RunRecord): Promise<Why> {
  const workers = await listWorkerConnections(ctx.db, run.teamId)
  const isWaiting = run.state === 'QUEUED'
  const { hasAgent, last, silence, awaited, now } = await findAgent(ctx, run)
  const { connected, draining } = workerIds(workers)
  return {
    run_id: run.id,
    state: run.state,
    summary: isWaiting ? waitingSentence(run.workerHost, connected, draining) : summary(run, silence),
    next_step: nextStep(ctx, { run, hasAgent, last, workers, silence, awaited }),
    waiting_code: isWaiting ? waitingCode(run, workers) : null,
    place_in_queue: isWaiting ? (await countRunsBefore(ctx.db, run)) + 1 : null,
    workers: isWaiting
      ? workers.map((worker) => ({
          worker_id: worker.workerId,
          connection_id: worker.id,
          reason: reasonAgainst({ run, worker, now, awaited, last }),
        }))
      : [],
    error_code: run.errorCode,
    failure_reason: run.failureReason,
  }
}

/** null where it only waits for its turn. A worker of another team is no worker here, and is not hinted at. */
function waitingCode(run: RunRecord, workers: WorkerConnectionRecord[]): ErrorCode | null {
  if (similarWorker(run, workers) !== undefined) return 'worker_id_differs'
  const candidates = candidatesFor(run, workers)
  if (candidates.length === 0) return 'worker_not_connected'
  return candidates.every(({ draining }) => draining) ? 'worker_draining' : null
}

function candidatesFor({ workerHost }: RunRecord, workers: WorkerConnectionRecord[]): WorkerConnectionRecord[] {
  return workers.filter(({ workerId }) => workerHost === null || workerHost === workerId)
}

/** The id that was probably meant, where the one that was named is not connected. */
function similarWorker({ workerHost }: RunRecord, workers: WorkerConnectionRecord[]): string | undefined {
  const ids = workers.map(({ workerId }) => workerId)
  if (workerHost === null || ids.includes(workerHost)) return undefined
  return ids.find((id) => id.toLowerCase() === workerHost.toLowerCase())
}

interface Candidate {
  run: RunRecord
  worker: WorkerConnectionRecord
  now: Date
  awaited: Awaited | undefined
  last: ExecutionRecord | undefined
}

/** Why this worker does not take the run right now; null: it may. */
function reasonAgainst({ run, worker, now, awaited, last }: Candidate): string | null {
  if (run.workerHost !== null && run.workerHost !== worker.workerId) {
    const onlyCaseDiffers = run.workerHost.toLowerCase() === worker.workerId.toLowerCase()
    return onlyCaseDiffers
      ? `the run names ${run.workerHost}: ids are case-sensitive`
      : `the run names worker ${run.workerHost}`
  }
  if (worker.drain)
    return `worker draining: ${worker.drain.requestedBy} asked for it at ${worker.drain.requestedAt.toISOString()}`
  if (worker.draining) return 'worker draining: it is being stopped, and takes nothing new'
  if (worker.maxConcurrentTasks > 0 && worker.active >= worker.maxConcurrentTasks)
    return `all its ${worker.maxConcurrentTasks} slots are taken`
  if (run.notBefore !== null && run.notBefore > now) return 'the run waits before it is tried again'
  if (awaited) return `the run waits until nothing of attempt ${awaited.execution.number} runs any more`
  return lastRejection(worker, last, now)
}

/** What it said when it was offered the run a moment ago: it is offered again every few seconds. */
function lastRejection(worker: WorkerConnectionRecord, last: ExecutionRecord | undefined, now: Date): string | null {
  if (last?.outcome !== 'rejected' || last.workerId !== worker.workerId || !last.endedAt) return null
  return now.getTime() - last.endedAt.getTime() < rejectionCountsMs ? last.message : null
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
  last: ExecutionRecord | undefined
  workers: WorkerConnectionRecord[]
  silence: Silence | undefined
  awaited: Awaited | undefined
}

function nextStep(ctx: Ctx, { run, last, workers, silence, hasAgent, awaited }: Situation): string {
  if (isTerminal(run.state)) return nextStepAfter(run, last)
  if (run.executionLocation === 'LOCAL') return nextLocalStep(ctx, { run, silence, hasAgent })
  if (run.cancelRequestedAt)
    return `The agent is stopping; after ${spanText(ctx.config.lease.cancelGraceMs)} its worker ends it.`
  if (run.state === 'BLOCKED') return `Answer with \`oz run follow-up ${run.id} "answer"\`.`
  if (silence && run.state !== 'QUEUED') return unlessItComesBack(ctx, run, silence)
  if (run.state !== 'QUEUED') return 'Nothing: the run is at work.'
  if (awaited)
    return (
      `Nothing: worker ${awaited.execution.workerId} is told to end what is left of attempt ${awaited.execution.number}. ` +
      `The next one begins once it has, or in ${spanText(awaited.forMs)}.`
    )
  const similar = similarWorker(run, workers)
  if (similar !== undefined) return `Upper and lower case count: start the run again with \`--host ${similar}\`.`
  if (workers.length === 0 && run.workerHost === null)
    return 'Start a worker: `oz-agent-worker --worker-id NAME --backend direct`.'
  if (run.workerHost !== null && !workers.some((worker) => worker.workerId === run.workerHost))
    return `Start a worker with --worker-id ${run.workerHost}, or start the run again with one that is connected. ${otherTeam}`
  if (candidatesFor(run, workers).every(({ draining }) => draining))
    return 'Every worker that could take it is draining. End that where an operator asked for it (`oz worker drain NAME --off`), or start another worker.'
  return 'Wait for a slot, raise --max-concurrent-tasks, or start another worker.'
}

/** What became of an attempt that failed outside of its agent only its worker has seen. */
function nextStepAfter(run: RunRecord, last: ExecutionRecord | undefined): string {
  const nothing = 'Nothing waits. Look at the log with `oz run watch`'
  if (run.state !== 'ERROR' || run.executionLocation === 'LOCAL' || !last) return `${nothing}.`
  return `${nothing}; the log of worker ${last.workerId}, which had the last attempt, says more.`
}

const otherTeam = 'A worker takes the runs of its key’s team only; its log names that team.'

/** No worker ends it, and none goes on with it. */
function nextLocalStep(ctx: Ctx, { run, silence, hasAgent }: Omit<Situation, 'workers' | 'awaited' | 'last'>): string {
  const { lease } = ctx.config
  if (run.cancelRequestedAt)
    return `The agent is stopping; once nothing is heard of it for ${spanText(lease.localCancelMs)}, the run ends without it.`
  if (run.state === 'BLOCKED')
    return hasAgent
      ? `Answer with \`oz run follow-up ${run.id} "answer"\`.`
      : `Its agent has left. Answer with a new run: \`oz agent run --conversation ${run.conversationId} --prompt "answer"\`.`
  if (!silence) return 'Nothing: the run is at work.'
  const { execution, forMs } = silence
  const lostMs =
    execution.helloAt === null ? lease.localHelloMs : execution.state === 'idle' ? lease.settledMs : lease.lostMs
  return `See whether the agent still runs on ${run.host} and reaches this server. Unless it is heard of within ${spanText(lostMs - forMs)}, the run ends as ERROR.`
}

/** What the sweeper of leases will do, and when. */
function unlessItComesBack(ctx: Ctx, run: RunRecord, { execution, forMs }: Silence): string {
  // At rest it had begun nothing: its message only waits for another agent.
  if (execution.state === 'idle')
    return `Nothing: unless it is heard of within ${spanText(ctx.config.lease.settledMs - forMs)}, another agent takes the message.`
  const soFar = { ...run, isLocal: false, deadWorkers: [], poisonDeaths: 1 }
  const lost = { reason: 'lost', detail: '', exitCode: null, diedWithWorker: false } as const
  const then =
    retryDecision(soFar, lost).kind === 'retry'
      ? 'this attempt is given up and the run is tried again from its last checkpoint.'
      : 'the run ends as ERROR: it has no attempt left.'
  return (
    `See whether worker ${execution.workerId} is running and reaches this server. Unless it is heard of within ` +
    `${spanText(ctx.config.lease.lostMs - forMs)}, ${then}`
  )
}
