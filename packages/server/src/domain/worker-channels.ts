import { AppError, isUuid, type WorkerFramesRequest } from '@openoz/protocol'
import { findReceivedForUpdate, insertWorkerFrames } from '../store/worker-channels.ts'
import type { Actor } from './actors.ts'
import { type Ctx, change } from './context.ts'

/**
 * Puts what a worker said by POST before the server that holds its stream, each frame once, and answers the number of the last one. Any server may be
 * asked, and the same request again: an answer may have been lost.
 */
export async function receiveWorkerFrames(
  ctx: Ctx,
  actor: Actor,
  id: string,
  { first, frames }: WorkerFramesRequest,
): Promise<number> {
  if (!isUuid(id)) throw new AppError('worker_channel_gone', { channelId: id.slice(0, 100) })
  const channelId = id.toLowerCase()
  if (actor.kind === 'execution') throw new AppError('not_authorized', { actor: 'An agent', action: 'be a worker' })
  const { keyId } = actor
  return change(ctx, async (tx, hint) => {
    const received = await findReceivedForUpdate(tx, { channelId, keyId })
    if (received === undefined) throw new AppError('worker_channel_gone', { channelId })
    if (first > received + 1) {
      const problem = `Frames from number ${first} on came; the last one before was ${received}.`
      throw new AppError('invalid_request', { problem })
    }
    const fresh = frames.slice(received + 1 - first)
    if (fresh.length === 0) return received
    await insertWorkerFrames(
      tx,
      { channelId, number: received },
      fresh.map((frame) => JSON.stringify(frame)),
    )
    hint(`worker-frames ${channelId}`)
    return received + fresh.length
  })
}
