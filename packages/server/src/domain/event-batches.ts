import {
  type AgentControlData,
  AppError,
  type EventBatchResponse,
  isLive,
  maxBatchBytes,
  type NumberedEvent,
} from '@openoz/protocol'
import { agentControlData, agentSessionEventTypes } from '@openoz/protocol/schemas'
import { v7 as uuidv7 } from 'uuid'
import { findBlob } from '../store/blobs.ts'
import {
  deleteOlderCheckpoints,
  deleteOlderWorkspaces,
  findWorkspaceOfConversation,
  insertCheckpoint,
  insertLateWorkspace,
  insertSavedWorkspace,
} from '../store/checkpoints.ts'
import { isDataRefused, type Tx, withSavepoint } from '../store/database.ts'
import { updateSetupFailed } from '../store/environments.ts'
import {
  type ExecutionRecord,
  findCurrentExecutionForUpdate,
  hasNewerAgent,
  updateExecutionEnded,
} from '../store/executions.ts'
import { updateMessagesTaken } from '../store/messages.ts'
import { lockConversation, type RunRecord, updateStatusMessage } from '../store/runs.ts'
import { appendEvents, appendFreshEvents, type NewEvent, updateAcknowledged } from '../store/session-log.ts'
import { findOpenTurn } from '../store/turns.ts'
import type { ExecutionActor } from './actors.ts'
import { type Ctx, change, type Hint } from './context.ts'
import { lockExecution } from './executions.ts'
import { keepSkills } from './repository-skills.ts'
import { appendServerEvents, isTooDeep, storableJson, storableText, storableTime } from './session-log.ts'
import { spanText } from './span-text.ts'
import { endTurn, finerReason, platformCode } from './turns.ts'

/**
 * What an agent says. Everything comes as one numbered stream; a batch is one transaction that takes the contiguous prefix after what is
 * acknowledged already, so a batch that is sent twice changes nothing. Events that change state (outcome, checkpoint, saved workspace) are acted
 * on in that same transaction; one that the database refuses is kept as `event_invalid`, since the agent would send it again for ever. An execution
 * that is over changes nothing any more; what it says is kept, marked late.
 *
 * With one exception, so that a finished turn is never performed a second time: what an execution had reached before it was given up, and what its worker
 * could not deliver until now, counts as long as no agent has begun after it. Its outcome then ends the turn, and the retry that waits is taken back; its
 * checkpoint and its workspace are what the next one goes on from. Once another agent has begun, its workspace is kept beside (`late_workspaces`).
 */

const controlTypes = Object.keys(agentControlData)
const knownTypes: readonly string[] = [...agentSessionEventTypes, ...controlTypes]

/** Takes a batch and answers up to where the stream is stored. Never refuses a batch for what is in it. */
export async function appendBatch(
  ctx: Ctx,
  actor: ExecutionActor,
  events: NumberedEvent[],
): Promise<EventBatchResponse> {
  const newest = events.reduce((n, event) => Math.max(n, event.n), 0)
  const answer = (ackedN: number, isOver: boolean): EventBatchResponse => ({
    acked_n: ackedN,
    ...(newest > ackedN ? { resend_from: ackedN + 1 } : {}),
    ...(isOver ? { superseded: true } : {}),
  })

  // Most batches move no state: they need neither the run's lock nor a transaction of several statements.
  if (!events.some((event) => controlTypes.includes(event.type) || isSetupDone(event))) {
    const stored = events.map((event) => ({ ...toStored(event, actor.executionId, false), n: event.n }))
    const result = await appendFreshEvents(ctx.db, actor.executionId, stored)
    if (!result) throw new AppError('run_not_found', { runId: actor.runId })
    if (result.appended > 0) ctx.hints.publish(`run ${result.runId}`)
    return answer(result.ackedN, result.isOver)
  }

  const take = (attempt: Attempt) =>
    change(ctx, async (tx, hint) => {
      const { run, execution } = await lockExecution(tx, actor)
      const isOver = !isLive(execution.state)
      const heir = isOver ? await findHeir(tx, run, execution) : 'none'

      const fresh = contiguousAfter(execution.ackedN, events)
      const stored: NewEvent[] = []
      const flush = async () => {
        if (stored.length > 0) await appendEvents(tx, execution.runId, stored.splice(0))
      }
      for (const event of fresh) {
        const effect = effectIn(event, isOver ? heir : 'live')
        if (effect) {
          // What came before it in the stream comes before it in the log.
          await flush()
          stored.push(...(await tryEffect(ctx, attempt, { tx, hint, run, execution, event, effect, heir, isOver })))
        } else {
          stored.push(toStored(event, execution.id, isOver))
          if (!isOver && run.environmentId !== null && isSetupDone(event))
            await updateSetupFailed(tx, run.environmentId, false)
        }
      }
      await flush()
      const ackedN = fresh.at(-1)?.n ?? execution.ackedN
      await updateAcknowledged(tx, execution.id, ackedN, !isOver)
      if (fresh.length > 0) hint(`run ${execution.runId}`)

      return answer(ackedN, isOver)
    })
  try {
    return await take((_, work) => work())
  } catch (error) {
    if (!isDataRefused(error)) throw error
    // Once more, and what the database refuses is kept as invalid. Not at once: hardly any batch is, and each effect would cost two statements more.
    return take(withSavepoint)
  }
}

type Attempt = typeof withSavepoint

/** The harness is opened in what the environment has been made into: the preparation is over, and nothing of it failed. */
function isSetupDone({ type, data }: NumberedEvent): boolean {
  return type === 'setup_step' && data.step === 'harness' && data.status === 'completed'
}

/** What follows the acknowledged events without a hole; duplicates are skipped. */
function contiguousAfter(ackedN: number, events: NumberedEvent[]): NumberedEvent[] {
  const fresh: NumberedEvent[] = []
  let next = ackedN + 1
  for (const event of [...events].sort((a, b) => a.n - b.n)) {
    if (event.n < next) continue
    if (event.n > next) break
    fresh.push(event)
    next++
  }
  return fresh
}

type Effect = { [T in keyof AgentControlData]: { type: T; data: AgentControlData[T] } }[keyof AgentControlData]

/** The event as a change of state, if it is one and fits its schema. */
function effectOf(event: NumberedEvent): Effect | undefined {
  if (!controlTypes.includes(event.type)) return undefined
  const parsed = agentControlData[event.type as keyof AgentControlData].safeParse(event.data)
  return parsed.success ? ({ type: event.type, data: parsed.data } as Effect) : undefined
}

/** Who came after an execution that is over: an agent that has begun; an execution whose agent has not; or nobody, a retry at most waits. */
type Heir = 'begun' | 'none' | ExecutionRecord

async function findHeir(tx: Tx, run: RunRecord, execution: ExecutionRecord): Promise<Heir> {
  // Against a hello of another of its runs.
  await lockConversation(tx, run.conversationId)
  if (await hasNewerAgent(tx, execution, run.conversationId)) return 'begun'
  const newest = await findCurrentExecutionForUpdate(tx, run.id)
  return newest && newest.id !== execution.id && isLive(newest.state) ? newest : 'none'
}

/** What is told late counts where it says how far the agent had come; nobody waits any more for what else it says. */
function effectIn(event: NumberedEvent, heir: Heir | 'live'): Effect | undefined {
  const effect = effectOf(event)
  if (heir === 'live' || effect?.type === 'workspace_saved') return effect
  return heir !== 'begun' && (effect?.type === 'turn_outcome' || effect?.type === 'checkpoint') ? effect : undefined
}

interface Application {
  tx: Tx
  hint: Hint
  run: RunRecord
  execution: ExecutionRecord
  event: NumberedEvent
  effect: Effect
  isOver: boolean
  heir: Heir
}

async function tryEffect(ctx: Ctx, attempt: Attempt, application: Application): Promise<NewEvent[]> {
  const { tx, event, execution } = application
  try {
    return await attempt(tx, () => applyEffect(application))
  } catch (error) {
    if (attempt !== withSavepoint || !isDataRefused(error)) throw error
    ctx.log.warn({ error, executionId: execution.id, type: event.type, n: event.n }, 'an event could not be stored')
    return [invalid(event, execution.id, 'the database does not take its data')]
  }
}

/** Acts on a control event and answers what the log keeps of it. */
async function applyEffect(application: Application): Promise<NewEvent[]> {
  const { tx, hint, run, execution, event, effect, isOver, heir } = application
  // Only a hello makes a process the one that speaks for its execution; before it there is no turn to end and nothing to save.
  if (!execution.helloAt) return [invalid(event, execution.id, 'its agent has not said hello')]
  switch (effect.type) {
    case 'turn_outcome': {
      const { outcome, message, error_code, taken_message_ids = [] } = effect.data
      await updateMessagesTaken(tx, run.id, taken_message_ids)
      const open = await findOpenTurn(tx, run.id)
      const isOpen = open?.id === effect.data.turn_id
      if (isOpen && isOver) await takeRetryBack(application)
      const ended =
        isOpen &&
        (await endTurn(
          tx,
          hint,
          run,
          execution,
          {
            outcome,
            message,
            errorCode: platformCode(error_code),
            failureReason: finerReason(error_code),
          },
          open,
        ))
      // The outcome's own event is the run_state that endTurn wrote; a second word on the same turn is kept as what it is.
      return ended ? [] : [toStored(event, execution.id, true)]
    }
    case 'checkpoint': {
      const { harness, format, step, blob_id, taken_message_ids = [], is_work_saved } = effect.data
      if (!(await isOwnBlob(tx, run.id, blob_id))) return [invalid(event, execution.id, 'its blob is not of this run')]
      const id = uuidv7()
      const workspace = is_work_saved && (await findWorkspaceOfConversation(tx, run.conversationId))
      await insertCheckpoint(tx, {
        id,
        conversationId: run.conversationId,
        runId: run.id,
        executionId: execution.id,
        harness: storableText(harness),
        format: storableText(format),
        step,
        blobId: blob_id,
        // A conversation is newer than the workspace where it knows of work that is not in it.
        ...(is_work_saved ? { createdAt: workspace ? workspace.createdAt : new Date(0) } : {}),
      })
      await deleteOlderCheckpoints(tx, run.id, id)
      if (run.statusMessage?.startsWith(waitsForModel)) await updateStatusMessage(tx, run.id, 'The agent is at work.')
      await updateMessagesTaken(tx, run.id, taken_message_ids)
      return [{ ...toStored(event, execution.id, false), data: storableJson({ step, ...(isOver && { late: true }) }) }]
    }
    case 'workspace_saved': {
      const { repositories, left_out } = effect.data
      for (const repository of repositories)
        for (const blobId of [repository.bundle_blob_id, repository.diff_blob_id])
          if (blobId !== null && !(await isOwnBlob(tx, run.id, blobId)))
            return [invalid(event, execution.id, 'one of its blobs is not of this run')]
      const id = uuidv7()
      if (isOver && heir === 'begun') {
        const left = { id, runId: run.id, executionId: execution.id, repositories: storableJson(repositories) }
        await insertLateWorkspace(tx, left)
        return [toStored(event, execution.id, true)]
      }
      await insertSavedWorkspace(tx, {
        id,
        runId: run.id,
        conversationId: run.conversationId,
        executionId: execution.id,
        repositories: storableJson(repositories),
        leftOut: storableJson(left_out),
      })
      await deleteOlderWorkspaces(tx, run.id, id)
      return [toStored(event, execution.id, isOver)]
    }
    case 'skills_found':
      await keepSkills(tx, { run, execution }, effect.data)
      // Most repositories have none, and nobody has to read that.
      return effect.data.skills.length === 0 ? [] : [toStored(event, execution.id, false)]
    case 'model_wait': {
      const { reason, until } = effect.data
      // Both times are the agent's: its clock may be wrong, the span between them is not.
      const wait = spanText(Date.parse(until) - (Date.parse(event.at) || Date.now()))
      if (run.state === 'INPROGRESS' && run.cancelRequestedAt === null)
        await updateStatusMessage(tx, run.id, storableText(`${waitsForModel}: ${reason}. Next try in ${wait}.`))
      return [toStored(event, execution.id, false)]
    }
    default:
      return effect satisfies never
  }
}

/** The turn is done: who was to begin with it again need not. */
async function takeRetryBack({ tx, hint, run, execution, heir }: Application): Promise<void> {
  const text = `Attempt ${execution.number} had ended its turn before it was given up: it is not tried again.`
  await appendServerEvents(tx, run.id, [{ type: 'notice', data: { level: 'info', text }, executionId: execution.id }])
  if (typeof heir === 'string') return
  const message = `The turn had its outcome from attempt ${execution.number}.`
  await updateExecutionEnded(tx, heir.id, { state: 'ended', message })
  hint('cancellations')
}

const waitsForModel = 'Waiting for the model'

async function isOwnBlob(tx: Tx, runId: string, blobId: string): Promise<boolean> {
  return (await findBlob(tx, blobId))?.runId === runId
}

/** Characters that are kept of an event that is too large. */
const keptHead = 1024

function toStored(event: NumberedEvent, executionId: string, isLate: boolean): NewEvent {
  if (isTooDeep(event.data)) return invalid(event, executionId, 'its data is nested too deeply', {})
  const isObject = typeof event.data === 'object' && event.data !== null && !Array.isArray(event.data)
  const data = storableJson(isObject && isLate ? { ...event.data, late: true } : event.data)
  // Readers hold whole events: what no batch of an agent could carry is not kept whole.
  if (Buffer.byteLength(data) > maxBatchBytes)
    return invalid(event, executionId, `it is larger than ${maxBatchBytes} bytes`, data.slice(0, keptHead))
  if (!isObject) return invalid(event, executionId, 'its data is no object')
  if (!knownTypes.includes(event.type) && !isSpoolsOwn(event))
    return invalid(event, executionId, 'its type is not in the protocol')
  const isUnfit = controlTypes.includes(event.type) && effectOf(event) === undefined
  if (isUnfit) return invalid(event, executionId, 'its data does not fit its type')
  if (event.type === 'skills_found')
    return { type: 'notice', data: skillsNotice(event.data), at: storableTime(event.at), n: event.n, executionId }
  return {
    type: event.type,
    data,
    at: storableTime(event.at),
    n: event.n,
    executionId,
  }
}

/** The texts of skills are kept in their own place; the log has a sentence. */
function skillsNotice(data: Record<string, unknown>): string {
  const { skills, repository_url } = data as unknown as AgentControlData['skills_found']
  const count = skills.length === 1 ? '1 skill' : `${skills.length} skills`
  return storableJson({ level: 'info', text: `Found ${count} in ${repository_url}.` })
}

/** An event that the agent's spool could not keep, and says so itself. */
function isSpoolsOwn({ type, data }: NumberedEvent): boolean {
  return type === 'event_invalid' && typeof data.original_type === 'string' && typeof data.reason === 'string'
}

function invalid(event: NumberedEvent, executionId: string, reason: string, data: unknown = event.data): NewEvent {
  return {
    type: 'event_invalid',
    data: storableJson({ original_type: event.type, reason, data }),
    at: storableTime(event.at),
    n: event.n,
    executionId,
  }
}
