import { ApiError } from '@openoz/protocol'
import { isRefusal } from './channel.ts'
import { notice } from './event-sink.ts'
import type { Harness, HarnessCheckpoint, HarnessSession } from './harnesses/harness.ts'
import type { LiveExecution } from './live-execution.ts'

/** After that the workspace is waiting to be saved. */
const stoppedStepMs = 2_000

/** Where the conversation stood when the control plane last heard of it. */
export async function loadCheckpoint(
  { hello, channel, stop, events }: LiveExecution,
  harness: Harness,
): Promise<HarnessCheckpoint | undefined> {
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
  const data = await channel.downloadBlob(blob_id, stop.working)
  // What an earlier execution took up is not among the messages of this one's turn.
  return { format, step, data, takenMessageIds: [] }
}

/** Uploads the conversation as it is, behind the events of its last step. Rejects when the execution is over. */
export async function saveCheckpoint(
  { channel, events, log, unsaved }: LiveExecution,
  { harness, session, signal }: { harness: string; session: HarnessSession; signal: AbortSignal },
): Promise<void> {
  const checkpoint = await session.checkpoint()
  if (!checkpoint) return
  const { format, step, data, takenMessageIds } = checkpoint
  try {
    const blobId = await channel.uploadBlob(data, { contentType: 'application/json', signal })
    events.emit({
      type: 'checkpoint',
      data: { harness, format, step, blob_id: blobId, taken_message_ids: takenMessageIds },
    })
    unsaved.delete('checkpoint')
  } catch (error) {
    signal.throwIfAborted()
    if (isRefusal(error) || !(error instanceof ApiError)) throw error
    // The run can do without; only a new attempt would begin further back.
    log.warn({ err: error, step }, 'a checkpoint could not be saved')
  }
}

/**
 * What was done of a step that was stopped is worth as much as a finished one, to a follow-up or to the next attempt. Answers which messages
 * are in it. Never rejects.
 */
export async function saveStoppedStep(execution: LiveExecution): Promise<string[] | undefined> {
  const { session: open, stop, log } = execution
  if (!open || stop.ours.aborted) return undefined
  const { session, harness } = open
  const signal = AbortSignal.any([stop.ours, AbortSignal.timeout(stoppedStepMs)])
  await saveCheckpoint(execution, { harness, session, signal }).catch((error: unknown) => {
    log.warn({ err: error }, 'a stopped step could not be saved')
  })
  return (await session.checkpoint())?.takenMessageIds
}
