import {
  AppError,
  agentProtocolVersion,
  type HelloRequest,
  type HelloResponse,
  isLive,
  type ModelAccess,
  type NextTurnRequest,
  type NextTurnResponse,
  type TurnInput,
} from '@openoz/protocol'
import { v7 as uuidv7 } from 'uuid'
import { renewEveryMs } from '../lease-times.ts'
import { listUploadedAttachments } from '../store/attachments.ts'
import { findLastCheckpoint, findWorkspaceOfConversation, type SavedWorkspaceRecord } from '../store/checkpoints.ts'
import { insertCommand } from '../store/commands.ts'
import type { Tx } from '../store/database.ts'
import {
  type ExecutionRecord,
  updateExecutionAtWork,
  updateExecutionEnded,
  updateExecutionHello,
  updateExecutionIdle,
} from '../store/executions.ts'
import { listOpenMessages } from '../store/messages.ts'
import { findRun, lockConversation, updateStatusMessage } from '../store/runs.ts'
import { findOpenTurn, type TurnRecord, updateTurnStarted } from '../store/turns.ts'
import type { ExecutionActor } from './actors.ts'
import { type Ctx, change } from './context.ts'
import { goodbye, lockExecution } from './executions.ts'
import { endCancelled, moveRun } from './turns.ts'

/**
 * What an agent asks: at its hello for everything that its execution needs, and whenever it rests for what comes next. What it says is in
 * `event-batches.ts`.
 */

/** Agents outlive the server that they began with: a version is left out one release after the next one came. */
const spokenProtocols: readonly number[] = [agentProtocolVersion]

export async function hello(ctx: Ctx, actor: ExecutionActor, request: HelloRequest): Promise<HelloResponse> {
  if (!spokenProtocols.includes(request.protocol))
    throw new AppError('agent_protocol_unsupported', { theirs: request.protocol, ours: agentProtocolVersion })

  // Outside of the transaction: the catalogue may have to ask a provider.
  const planned = await findRun(ctx.db, actor.runId)
  const model = await modelAccess(ctx, planned?.config.model_id)

  return change(ctx, async (tx, hint) => {
    const { run, execution } = await lockExecution(tx, actor)
    // What comes late of another run's agent counts only as long as none has begun after it.
    await lockConversation(tx, run.conversationId)
    const isOther = execution.processNonce !== null && execution.processNonce !== request.process_nonce
    const turn = await findOpenTurn(tx, run.id)
    if (run.state === 'CANCELLED' && !execution.helloAt)
      throw new AppError('run_cancelled_before_start', { runId: run.id })
    if (!isLive(execution.state) || execution.number !== run.fence || isOther || !turn)
      throw new AppError('execution_superseded', {
        executionId: execution.id,
        runId: run.id,
        state: isOther ? 'another process said hello first' : execution.state,
      })

    await updateExecutionHello(tx, execution.id, request.process_nonce, ctx.config.lease)
    await updateTurnStarted(tx, turn.id, execution.id)
    if (run.state === 'PENDING')
      await moveRun(tx, hint, run, {
        state: 'CLAIMED',
        message: `Worker ${execution.workerId} is starting the agent.`,
        executionId: execution.id,
      })
    if (run.state !== 'INPROGRESS')
      await moveRun(
        tx,
        hint,
        { ...run, state: run.state === 'PENDING' ? 'CLAIMED' : run.state },
        { state: 'INPROGRESS', message: `The agent is at work on ${request.host}.`, executionId: execution.id },
      )
    if (run.cancelRequestedAt)
      await insertCommand(tx, {
        id: uuidv7(),
        runId: run.id,
        executionId: execution.id,
        type: 'cancel',
        payload: { reason: 'Cancelled by user.' },
        once: true,
      })

    const checkpoint = await findLastCheckpoint(tx, run.conversationId)
    const workspace = await findWorkspaceOfConversation(tx, run.conversationId)
    return {
      protocol: agentProtocolVersion,
      run_id: run.id,
      execution_id: execution.id,
      conversation_id: run.conversationId,
      attempt: execution.number,
      turn: await turnInput(tx, turn),
      continues: continuation({ execution, turn, checkpoint, workspace }),
      title: run.title,
      mode: run.mode,
      execution_location: run.executionLocation,
      attachments: await listUploadedAttachments(tx, run.id),
      config: run.config,
      ...model,
      checkpoint: checkpoint
        ? {
            harness: checkpoint.harness,
            format: checkpoint.format,
            step: checkpoint.step,
            blob_id: checkpoint.blobId,
          }
        : null,
      workspace: workspace ? { repositories: workspace.repositories } : null,
      idle_timeout_ms: (run.config.idle_timeout_minutes ?? 0) * 60_000,
      limits: limits(ctx),
      acked_n: execution.ackedN,
      run_url: `${ctx.publicUrl}/api/v1/agent/runs/${run.id}`,
    }
  })
}

/**
 * What an agent at rest does next: the turn that waits, or none. With `is_last` it says goodbye: where no turn waits its execution is over with
 * this answer, so a message that comes a moment later finds nobody and begins a new one. Asked again it answers the same.
 */
export async function nextTurn(
  ctx: Ctx,
  actor: ExecutionActor,
  { is_last: isLast }: NextTurnRequest,
): Promise<NextTurnResponse> {
  return change(ctx, async (tx, hint) => {
    const { run, execution } = await lockExecution(tx, actor)
    // The answer to an earlier goodbye was lost on its way.
    if (isLast && execution.state === 'ended' && execution.message === goodbye) return { turn: null }
    if (!isLive(execution.state) || execution.number !== run.fence || !execution.helloAt)
      throw new AppError('execution_superseded', { executionId: execution.id, runId: run.id, state: execution.state })
    const turn = run.cancelRequestedAt ? undefined : await findOpenTurn(tx, run.id)
    if (turn) {
      await updateTurnStarted(tx, turn.id, execution.id)
      await updateExecutionAtWork(tx, execution.id)
      const input = await turnInput(tx, turn)
      const message = 'The agent goes on with the next message.'
      if (run.state === 'INPROGRESS') await updateStatusMessage(tx, run.id, message)
      else await moveRun(tx, hint, run, { state: 'INPROGRESS', message, executionId: execution.id })
      return { turn: input, attachments: await listUploadedAttachments(tx, run.id) }
    }
    if (isLast) {
      await updateExecutionEnded(tx, execution.id, { state: 'ended', message: goodbye })
      if (run.cancelRequestedAt) await endCancelled(tx, hint, run, execution)
    } else await updateExecutionIdle(tx, execution.id)
    hint(`run ${run.id}`)
    return { turn: null }
  })
}

async function turnInput(tx: Tx, turn: TurnRecord): Promise<TurnInput> {
  const messages = await listOpenMessages(tx, turn.id)
  return {
    turn_id: turn.id,
    number: turn.number,
    message: turn.message,
    messages: messages.map(({ message_id, mode, text }) => ({ message_id, mode, text })),
  }
}

interface Past {
  /** Both as they were before this hello. */
  execution: ExecutionRecord
  turn: TurnRecord
  checkpoint: Awaited<ReturnType<typeof findLastCheckpoint>>
  workspace: SavedWorkspaceRecord | undefined
}

function continuation({ execution, turn, checkpoint, workspace }: Past): HelloResponse['continues'] {
  // Begun before this execution was first heard of. Not by whom: a hello whose answer was lost has written itself down already.
  const isRetry = turn.startedAt !== null && (execution.helloAt === null || turn.startedAt < execution.helloAt)
  if (!checkpoint && !workspace && !isRetry) return null
  const reason = isRetry ? 'retry' : turn.number > 1 ? 'follow_up' : 'conversation'
  const savedAt = workspace?.createdAt.getTime() ?? 0
  return { reason, is_workspace_stale: checkpoint !== undefined && checkpoint.createdAt.getTime() > savedAt }
}

async function modelAccess(
  ctx: Ctx,
  modelId: string | undefined,
): Promise<{ model: ModelAccess | null; model_problem?: string }> {
  try {
    return { model: await ctx.models.resolve(modelId) }
  } catch (error) {
    if (error instanceof AppError) return { model: null, model_problem: error.message }
    throw error
  }
}

function limits(ctx: Ctx): HelloResponse['limits'] {
  const { agent, lease } = ctx.config
  return {
    renew_every_ms: renewEveryMs(lease),
    stop_after_ms: lease.stopMs,
    lost_after_ms: lease.lostMs,
    // Three quarters: the rest is for ending.
    settled_stop_after_ms: Math.floor(lease.settledMs * 0.75),
    max_steps: agent.maxSteps,
    max_output_tokens: agent.maxOutputTokens,
    max_turn_output_tokens: agent.maxTurnOutputTokens,
    max_turn_ms: agent.maxTurnMs,
    llm_idle_timeout_ms: agent.llmIdleTimeoutMs,
    llm_retry_for_ms: agent.llmRetryForMs,
    setup_command_timeout_ms: agent.setupCommandTimeoutMs,
    command_timeout_ms: agent.commandTimeoutMs,
    workspace_max_bytes: agent.workspaceMaxBytes,
    spool_max_bytes: agent.spoolMaxBytes,
    output_max_bytes: agent.outputMaxBytes,
    web_fetch: agent.webFetch,
  }
}
