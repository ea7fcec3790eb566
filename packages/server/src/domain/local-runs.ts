import { AppError, type RunSource, type StartLocalRunRequest, type StartLocalRunResponse } from '@openoz/protocol'
import { v7 as uuidv7 } from 'uuid'
import type { Tx } from '../store/database.ts'
import { findExecution, insertLocalExecution, updateExecutionToken } from '../store/executions.ts'
import { findRunForUpdate } from '../store/runs.ts'
import { type Actor, hashSecret, newExecutionToken } from './actors.ts'
import type { Ctx, Hint } from './context.ts'
import { createRun, inheritedConfig, type PlannedRun, planRun } from './runs.ts'
import { appendServerEvents, storableText } from './session-log.ts'
import { moveRun } from './turns.ts'

/**
 * Runs that are performed where they were started, by an agent of the caller's own process. Such a run is claimed from the beginning, by nobody's
 * worker, and never queues: it has one execution, and what that one leaves undone stays undone. From the agent's hello on it is a run like every
 * other: listed, watched, steered and cancelled through the same doors.
 */

export interface PlannedLocalRun extends PlannedRun {
  host: string
  savesWorkspace: boolean
}

export async function planLocalRun(ctx: Ctx, request: StartLocalRunRequest, actor: Actor): Promise<PlannedLocalRun> {
  const { host: name, saves_workspace: savesWorkspace = true, ...asked } = request
  const { worker_host: _, ...config } = asked.config ?? {}
  // The folder is the caller's own: what an earlier run of the conversation worked in is not prepared there unasked.
  const { environment: __, environment_id: ___, ...base } = await inheritedConfig(ctx, asked.conversation_id, actor)
  // Whoever started it by hand waits for its end.
  const plan = await planRun(ctx, { ...asked, config: { idle_timeout_minutes: 0, ...config } }, actor, base)
  const host = storableText(name)
  const statusMessage = `The agent is starting on ${host}.`
  return { ...plan, host, savesWorkspace, workerHost: null, atCapacity: false, statusMessage }
}

/** One transaction: nobody sees the run in a state in which a worker could take it. */
export async function startLocalRun(
  tx: Tx,
  hint: Hint,
  { ctx, plan, actor, source }: { ctx: Ctx; plan: PlannedLocalRun; actor: Actor; source: RunSource },
): Promise<StartLocalRunResponse> {
  const { run_id: runId } = await createRun(tx, hint, plan, actor, source)
  const run = await findRunForUpdate(tx, runId)
  if (!run) throw new Error(`run ${runId} is gone within the transaction that made it`)
  const executionId = uuidv7()
  const token = newExecutionToken()
  const pending = await moveRun(tx, hint, run, { state: 'PENDING', message: plan.statusMessage })
  await insertLocalExecution(tx, { id: executionId, runId, tokenHash: hashSecret(token) })
  const claimed = await moveRun(tx, hint, pending, { state: 'CLAIMED', message: plan.statusMessage, executionId })
  if (!plan.savesWorkspace)
    await appendServerEvents(tx, runId, [
      {
        type: 'notice',
        data: { level: 'info', text: `What the agent changes on ${plan.host} is not saved: its starter wished so.` },
      },
    ])
  return {
    run_id: runId,
    task_id: runId,
    state: claimed.state,
    at_capacity: plan.atCapacity,
    conversation_id: run.conversationId,
    execution_id: executionId,
    execution_token: token,
    run_url: `${ctx.publicUrl}/api/v1/agent/runs/${runId}`,
  }
}

/** What a repeated start is answered with: everything but the token, which is nowhere in the database. */
export type StartedLocalRun = Omit<StartLocalRunResponse, 'execution_token'>

/** The answer again, with a token of its own: the first one's is worth nothing from now on. Not once an agent has begun with that. */
export async function repeatLocalStart(ctx: Ctx, started: StartedLocalRun): Promise<StartLocalRunResponse> {
  const token = newExecutionToken()
  const { execution_id: executionId, run_id: runId } = started
  if (await updateExecutionToken(ctx.db, executionId, hashSecret(token))) return { ...started, execution_token: token }
  const execution = await findExecution(ctx.db, executionId)
  throw new AppError('execution_superseded', {
    executionId,
    runId,
    state: execution?.endedAt ? execution.state : 'its agent has begun with the first answer',
  })
}
