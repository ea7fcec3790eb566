import {
  type AnyFailureReason,
  type ExecutionRef,
  failureReasonOf,
  isLive,
  type SessionEventData,
  type TaskAssignment,
  type WorkerMessage,
} from '@openoz/protocol'
import { v7 as uuidv7 } from 'uuid'
import { insertCommand } from '../store/commands.ts'
import {
  findExecutionOfConnection,
  findRunAndExecutionForUpdate,
  listLeavingExecutions,
  updateExecutionClaimed,
  updateExecutionEnded,
  updateExecutionFinishing,
  updateExecutionStarted,
  updateExecutionStartUntil,
} from '../store/executions.ts'
import { listExecutionsOfInstances, updateExecutionsHolder } from '../store/leases.ts'
import { claimNextRun, listIdleExecutionsInTheWay } from '../store/queue.ts'
import { hashSecret, newExecutionToken } from './actors.ts'
import { type Ctx, change } from './context.ts'
import { afterGoodbye } from './executions.ts'
import { endLost, type Locked, noteGone } from './lost-executions.ts'
import { appendServerEvents, storableText } from './session-log.ts'
import { endCancelled, endTurn, endWithoutOutcome, moveRun, requeueUnbegunTurn } from './turns.ts'

/**
 * An execution from the offer to the worker's last word. The worker reports facts (claimed, rejected, started, ended); what they mean for the run
 * is decided here. An execution that is over takes no more facts: whoever reports one is told to end it (`superseded`).
 */

/** A worker's socket, as far as rules need it. */
export interface WorkerConnection {
  id: string
  teamId: string
  workerId: string
  /** It speaks our additions, not only the reference messages. */
  speaksOurs: boolean
  /** Its process; null where it does not say. */
  instance: string | null
}

export interface Offer {
  runId: string
  executionId: string
  assignment: TaskAssignment
}

/** Gives this connection the next run it may take; the token exists in the assignment only, the database has its hash. */
export async function offerNextRun(ctx: Ctx, connection: WorkerConnection): Promise<Offer | undefined> {
  const executionId = uuidv7()
  const token = newExecutionToken()
  const run = await claimNextRun(ctx.db, {
    teamId: connection.teamId,
    workerId: connection.workerId,
    connectionId: connection.id,
    instance: connection.instance,
    executionId,
    tokenHash: hashSecret(token),
    outageSeconds: ctx.config.lease.outageMs / 1000,
    earlierForSeconds: connection.speaksOurs ? null : ctx.config.lease.lateMs / 1000,
  })
  if (!run) return undefined
  ctx.hints.publish(`run ${run.runId}`)
  return {
    runId: run.runId,
    executionId,
    assignment: {
      task_id: run.runId,
      execution_id: executionId,
      task: {
        id: run.runId,
        title: run.title,
        // Our agent fetches its prompt with its token; the wire's field stays short for large prompts.
        task_definition: { prompt: connection.speaksOurs ? '' : run.prompt },
        created_at: run.createdAt.toISOString(),
        updated_at: run.updatedAt.toISOString(),
        owner:
          run.scope === 'team' || run.userWireId === null
            ? { Type: 'TEAM', Id: run.teamWireId }
            : { Type: 'USER', Id: run.userWireId },
        agent_config_snapshot: run.config,
        agent_conversation_id: run.conversationId,
      },
      ...(run.config.environment?.docker_image === undefined
        ? {}
        : { docker_image: run.config.environment.docker_image }),
      ...(run.config.instance_shape && { instance_shape: run.config.instance_shape }),
      ...(run.config.additional_sidecars && { additional_sidecars: run.config.additional_sidecars }),
      // A worker that knows only the reference messages can hand a token over in no other way than by environment.
      ...(connection.speaksOurs ? { execution_token: token } : { env_vars: { WARP_API_KEY: token } }),
    },
  }
}

/** A follow-up that may come holds no slot against work that waits: agents at rest are asked to leave. Their workspaces are saved already. */
export async function endIdleInTheWay(ctx: Ctx, connectionIds: string[]): Promise<void> {
  for (const { executionId, runId } of await listIdleExecutionsInTheWay(ctx.db, connectionIds)) {
    const payload = { reason: 'Its slot is needed for a run that waits.' }
    await insertCommand(ctx.db, { id: uuidv7(), runId, executionId, type: 'end_idle', payload })
    ctx.hints.publish(`commands ${executionId}`)
  }
}

type Ref = { task_id: string; execution_id?: string | undefined }

/** Whether the execution that a message names still counts: `superseded` asks the worker to end it and say nothing. */
export type Verdict = { verdict: 'taken' | 'superseded' | 'ignored'; executionId?: string }

/** The execution that a message means. Messages of the reference name the run only. */
async function executionIdOf(ctx: Ctx, connection: WorkerConnection, ref: Ref): Promise<string | undefined> {
  return ref.execution_id ?? (await findExecutionOfConnection(ctx.db, ref.task_id, connection))?.id
}

/**
 * Runs `work` with run and execution locked, in this order, if the execution is live; says `superseded` if it is over. `ifOver`: what the message means
 * then all the same.
 */
async function withLiveExecution(
  ctx: Ctx,
  connection: WorkerConnection,
  ref: Ref,
  work: (locked: Locked) => Promise<void>,
  ifOver?: (locked: Locked) => Promise<void>,
): Promise<Verdict> {
  const executionId = await executionIdOf(ctx, connection, ref)
  const ignored = () => {
    ctx.log.warn(
      { runId: ref.task_id, workerId: connection.workerId, connectionId: connection.id },
      'worker message ignored: no execution of this run is this connection’s',
    )
    return { verdict: 'ignored' } as const
  }
  if (executionId === undefined) return ignored()
  return change(ctx, async (tx, hint) => {
    const locked = await findRunAndExecutionForUpdate(tx, ref.task_id, executionId)
    if (!locked) return ignored()
    const { run, execution } = locked
    // A worker id is only unique within its team.
    if (execution.workerId !== connection.workerId || run.teamId !== connection.teamId) return ignored()
    if (!isLive(execution.state) || execution.number !== run.fence) {
      await ifOver?.({ tx, hint, run, execution })
      return { verdict: 'superseded', executionId }
    }
    await work({ tx, hint, run, execution })
    return { verdict: 'taken', executionId }
  })
}

export async function claimAssignment(ctx: Ctx, connection: WorkerConnection, ref: Ref): Promise<Verdict> {
  return withLiveExecution(ctx, connection, ref, async ({ tx, hint, run, execution }) => {
    if (execution.state !== 'offered') return
    await updateExecutionClaimed(tx, execution.id)
    await moveRun(tx, hint, run, {
      state: 'CLAIMED',
      message: `Worker ${execution.workerId} is starting the agent.`,
      executionId: execution.id,
    })
    if (run.cancelRequestedAt) hint('cancellations')
  })
}

/** Back to the queue, at its old place. */
export async function rejectAssignment(
  ctx: Ctx,
  connection: WorkerConnection,
  ref: Ref,
  reason: string,
): Promise<Verdict> {
  const withdraw = async (locked: Locked) => {
    if (locked.execution.state !== 'offered') return
    await withdrawOffer(locked, `Worker ${locked.execution.workerId} did not take it: ${reason.replace(/\.$/, '')}.`)
    await noteGone(locked)
  }
  return withLiveExecution(ctx, connection, ref, withdraw, noteGone)
}

/** An offer that nobody took ends its execution; the run waits again. */
export async function withdrawOffer({ tx, hint, run, execution }: Locked, message: string): Promise<void> {
  await updateExecutionEnded(tx, execution.id, { state: 'ended', outcome: 'rejected', message: storableText(message) })
  if (run.cancelRequestedAt) await endCancelled(tx, hint, run, execution)
  else await moveRun(tx, hint, run, { state: 'QUEUED', message: `${message} Waiting for a worker.` })
}

/** Work on the way to the agent is a sign of life: a large image may take longer to pull than an agent may take to begin. */
export async function reportStep(
  ctx: Ctx,
  connection: WorkerConnection,
  step: Extract<WorkerMessage, { type: 'task_step' }>['data'],
): Promise<Verdict> {
  return withLiveExecution(ctx, connection, step, async ({ tx, hint, run, execution }) => {
    if (step.step === 'start' && step.status === 'completed') await updateExecutionStarted(tx, execution.id)
    if (execution.helloAt === null) await updateExecutionStartUntil(tx, execution.id, ctx.config.lease.startMs / 1000)
    await appendServerEvents(tx, run.id, [
      {
        type: 'setup_step',
        executionId: execution.id,
        data: {
          // One that this server does not know is a newer worker's, and stored as it is.
          step: step.step as SessionEventData['setup_step']['step'],
          status: step.status,
          ...(step.duration_ms === undefined ? {} : { duration_ms: step.duration_ms }),
          ...(step.detail === undefined ? {} : { detail: step.detail }),
          ...(step.progress === undefined ? {} : { progress: step.progress }),
        },
      },
    ])
    hint(`run ${run.id}`)
  })
}

/** Reasons that say no more than that the agent's process ended as it did: after its outcome that is no failure. */
const exitReasons: readonly AnyFailureReason[] = [
  ...(['agent_invocation', 'container_exit', 'job_failed'] as const),
  ...(['disk_full', 'lease_lost', 'worker_died'] as const),
]

type End = Extract<WorkerMessage, { type: 'task_completed' | 'task_failed' }>

/** The process is gone. If the agent gave no outcome, the worker's report decides. Of an execution that was given up it says no more than that. */
export async function reportEnd(ctx: Ctx, connection: WorkerConnection, end: End): Promise<Verdict> {
  const { data } = end
  const work = async (locked: Locked) => {
    const { tx, hint, run, execution } = locked
    const failure = end.type === 'task_failed' ? end.data : undefined
    const reason = failure ? failureReasonOf(failure.failure_reason) : undefined
    const isOnlyExit = execution.outcome !== null && reason !== undefined && exitReasons.includes(reason)
    await updateExecutionEnded(tx, execution.id, {
      state: 'ended',
      failureReason: isOnlyExit ? null : (reason ?? null),
      exitCode: failure?.exit_code ?? null,
      message: storableText(data.message),
    })
    await noteGone(locked)
    hint(`run ${run.id}`)
    if (await requeueUnbegunTurn(tx, hint, run, execution)) return
    if (data.task_state === 'CANCELLED' || reason === 'task_cancelled' || run.cancelRequestedAt) {
      await endCancelled(tx, hint, run, execution)
    } else if (!failure || !reason) {
      await endTurn(tx, hint, run, execution, {
        outcome: 'SUCCEEDED',
        message: data.message || 'The agent ended without a word.',
      })
    } else {
      const died = {
        reason,
        detail: data.message,
        exitCode: failure.exit_code ?? null,
        diedWithWorker: reason === 'worker_died' && execution.helloAt !== null,
      }
      await endWithoutOutcome(ctx, tx, hint, { run, execution, failure: died })
    }
  }
  return withLiveExecution(ctx, connection, data, work, noteGone)
}

/** The agent's process has ended, and its worker still saves and delivers what it left. */
export async function reportFinishing(ctx: Ctx, connection: WorkerConnection, ref: ExecutionRef): Promise<Verdict> {
  return withLiveExecution(ctx, connection, ref, ({ tx, execution }) => updateExecutionFinishing(tx, execution.id))
}

/** Nothing of it runs any more. Said of what was superseded; of an execution that is live it is the news that it is lost. */
export async function confirmGone(ctx: Ctx, connection: WorkerConnection, ref: ExecutionRef): Promise<Verdict> {
  const lose = async (locked: Locked) => {
    const detail = `Worker ${connection.workerId} says that nothing of it runs any more.`
    const loss = { reason: 'lost', meaning: 'Nobody said how the execution ended.', detail } as const
    await endLost(ctx, locked, { ...loss, diedWithWorker: false, isWorkerConnected: false })
    await noteGone(locked)
  }
  return withLiveExecution(ctx, connection, ref, lose, noteGone)
}

/** A worker came back with what it still has. Answers what it should end because it is over. */
export async function resumeExecutions(
  ctx: Ctx,
  connection: WorkerConnection,
  { running, finishing }: { running: ExecutionRef[]; finishing: ExecutionRef[] },
): Promise<ExecutionRef[]> {
  const named = [...running, ...finishing]
  if (named.length === 0) return []
  const ids = named.map(({ execution_id }) => execution_id)
  const live = await updateExecutionsHolder(ctx.db, connection, ids)
  for (const ref of finishing) if (live.includes(ref.execution_id)) await reportFinishing(ctx, connection, ref)
  const leaving = await listLeavingExecutions(ctx.db, ids, afterGoodbye(ctx))
  return named.filter(({ execution_id }) => !live.includes(execution_id) && !leaving.includes(execution_id))
}

/**
 * Ends what a worker's process, or one before it that is gone, held and the worker does not name: offers that it never got go back to the queue, the
 * rest died with the process. Answers the latter: where something of it does run, it is to be ended.
 */
export async function endMissing(
  ctx: Ctx,
  connection: WorkerConnection,
  { instances, named }: { instances: string[]; named: ExecutionRef[] },
): Promise<ExecutionRef[]> {
  if (instances.length === 0) return []
  const except = named.map(({ execution_id }) => execution_id)
  const dead: ExecutionRef[] = []
  for (const { runId, executionId } of await listExecutionsOfInstances(ctx.db, connection, { instances, except })) {
    const ref = { task_id: runId, execution_id: executionId }
    let wasTaken = false
    await withLiveExecution(ctx, connection, ref, async (locked) => {
      const { workerId, state, helloAt } = locked.execution
      wasTaken = state !== 'offered'
      if (!wasTaken) return withdrawOffer(locked, `Worker ${workerId} did not take it: it never got the offer.`)
      const detail = `Worker ${workerId} is back and does not have it.`
      const diedWithWorker = helloAt !== null
      await endLost(ctx, locked, { reason: 'worker_died', detail, diedWithWorker, isWorkerConnected: true })
    })
    if (wasTaken) dead.push(ref)
  }
  return dead
}
