import { ApiError, type TurnInput } from '@openoz/protocol'
import { isRefusal } from './channel.ts'
import { notice } from './event-sink.ts'
import type { Harness, HarnessCheckpoint, HarnessSession } from './harnesses/harness.ts'
import { selectHarness } from './harnesses/select.ts'
import type { LiveExecution } from './live-execution.ts'

/** After that the workspace is waiting to be saved. */
const stoppedStepMs = 2_000

/** Where the conversation stood when the control plane last heard of it, with the turns of this execution that never came to a harness. */
export async function loadCheckpoint(
  { hello, channel, events, remembered }: LiveExecution,
  harness: Harness,
  signal: AbortSignal,
): Promise<HarnessCheckpoint | undefined> {
  if (remembered) return remembered
  const { checkpoint } = hello
  if (!checkpoint) return undefined
  if (checkpoint.harness !== harness.name) {
    notice(
      events,
      'warning',
      `The conversation was kept by the harness ${checkpoint.harness}; ${harness.name} begins anew.`,
    )
    return undefined
  }
  const { format, step, blob_id } = checkpoint
  const data = await channel.downloadBlob(blob_id, signal)
  // What an earlier execution took up is not among the messages of this one's turn.
  return { format, step, data, takenMessageIds: [] }
}

interface CheckpointToSend {
  harness: string
  checkpoint: HarnessCheckpoint
  signal: AbortSignal
  /** There is no later one: it must be said also when the spool is full. */
  isLast?: boolean
  /** See `is_work_saved` of the event. */
  isWorkSaved?: boolean
}

/** Uploads the conversation as it is, behind the events of its last step. Rejects when the execution is over. */
export async function saveCheckpoint(
  execution: LiveExecution,
  { harness, session, signal }: { harness: string; session: HarnessSession; signal: AbortSignal },
): Promise<void> {
  const checkpoint = await session.checkpoint()
  if (checkpoint) await sendCheckpoint(execution, { harness, checkpoint, signal })
}

async function sendCheckpoint(
  { channel, events, log, unsaved, sentMessages }: LiveExecution,
  { harness, checkpoint, signal, isLast = false, isWorkSaved }: CheckpointToSend,
): Promise<void> {
  const { format, step, data, takenMessageIds } = checkpoint
  try {
    const blobId = await channel.uploadBlob(data, { contentType: 'application/json', signal })
    const about = { harness, format, step, blob_id: blobId, taken_message_ids: takenMessageIds }
    const emit = isLast ? events.emitFinal : events.emit
    emit({ type: 'checkpoint', data: { ...about, ...(isWorkSaved ? { is_work_saved: true } : {}) } })
    // A spool that cannot take it has stopped the execution by now.
    if (!isLast) signal.throwIfAborted()
    unsaved.delete('checkpoint')
    for (const id of takenMessageIds) sentMessages.add(id)
  } catch (error) {
    signal.throwIfAborted()
    if (isRefusal(error) || !(error instanceof ApiError)) throw error
    // The run can do without; only a new attempt would begin further back.
    log.warn({ err: error, step }, 'a checkpoint could not be saved')
  }
}

/**
 * The conversation at the end of a turn that did not come to its end, for a follow-up or the next attempt: what was done of a step that was
 * stopped is worth as much as a finished one, and a turn for which nothing could be prepared has at least said what it wanted. Never rejects.
 */
export async function saveUnendedTurn(execution: LiveExecution, turn: TurnInput): Promise<void> {
  const { session: open, stop, log } = execution
  if (stop.ours.aborted) return
  // At work the control plane is waited for, as with the workspace.
  const signal = stop.working.aborted ? AbortSignal.any([stop.ours, AbortSignal.timeout(stoppedStepMs)]) : stop.saving
  try {
    if (!open) {
      // The next attempt is given the same turn.
      if (stop.reason?.kind === 'terminate') return
      return await rememberTurn(execution, turn, signal)
    }
    const checkpoint = await open.session.checkpoint()
    if (checkpoint) await sendCheckpoint(execution, { harness: open.harness, checkpoint, signal, isLast: true })
  } catch (error) {
    log.warn({ err: error }, 'the conversation of an unended turn could not be saved')
  }
}

/** Nothing was done, so the conversation knows no more of the workspace than it did before. */
async function rememberTurn(execution: LiveExecution, turn: TurnInput, signal: AbortSignal): Promise<void> {
  const { hello, events } = execution
  const harness = await selectHarness(hello.config.harness?.type)()
  const known = await loadCheckpoint(execution, harness, signal)
  const checkpoint = harness.remember(turn, { checkpoint: known, model: hello.model, sink: events })
  if (!checkpoint) return
  execution.remembered = checkpoint
  const isWorkSaved = hello.continues?.is_workspace_stale !== true
  await sendCheckpoint(execution, { harness: harness.name, checkpoint, signal, isLast: true, isWorkSaved })
}
