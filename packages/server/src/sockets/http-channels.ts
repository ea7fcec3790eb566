import type { Ctx } from '../domain/context.ts'
import { type Loop, startLoop } from '../loops/loop.ts'
import { touchPresent } from '../store/presence.ts'
import {
  deleteWorkerChannel,
  deleteWorkerFrames,
  insertWorkerChannel,
  listNewWorkerFrames,
} from '../store/worker-channels.ts'
import type { HttpWorkerSocket } from './http-worker-socket.ts'

/**
 * The plain HTTP channels whose streams this server holds. A POST may reach any server of the database, so even one that comes here goes through the
 * table: there is one way, and one order. A hint brings the frames at once, looking every second those whose hint was lost.
 *
 * A frame stays in the table until it was handled. When this server dies its channels end as stale, and the frames with them: the worker keeps what it
 * was not told to be handled, and says it again where it arrives next.
 */

const pollMs = 1_000
/** What one look takes over all channels: the rest comes with the next, at once. */
const maxFrames = 500

export interface HttpChannels {
  /** From here on frames are taken for this channel. */
  open(channelId: string, keyId: string, socket: HttpWorkerSocket): Promise<void>
  /** Its socket has closed: what came before is still taken, and what is sent to it from now on is refused. */
  remove(channelId: string): Promise<void>
  loop: Loop
}

export function createHttpChannels(ctx: Ctx, signal: AbortSignal): HttpChannels {
  const channels = new Map<string, HttpWorkerSocket>()
  /** Up to where frames were deleted. */
  const cleared = new WeakMap<HttpWorkerSocket, number>()
  const touchMs = Math.min(5_000, ctx.config.lease.workerSilentMs / 4)
  let touchedAt = performance.now()

  async function touch(): Promise<void> {
    touchedAt = performance.now()
    const ids = [...channels.keys()]
    const known = await touchPresent(ctx.db, 'worker_channels', ids)
    // Removed as stale while this server or the database was away, with what the worker had said meanwhile: it says it again.
    for (const id of ids)
      if (!known.includes(id)) channels.get(id)?.close(1012, 'the control plane lost this channel; open another')
  }

  async function clear(): Promise<void> {
    const handled = [...channels].filter(([, socket]) => socket.handled > (cleared.get(socket) ?? 0))
    if (handled.length === 0) return
    const cursors = handled.map(([channelId, socket]) => ({ channelId, number: socket.handled }))
    await deleteWorkerFrames(ctx.db, cursors)
    for (const { channelId, number } of cursors) {
      const socket = channels.get(channelId)
      if (socket) cleared.set(socket, number)
    }
  }

  const loop = startLoop({
    name: 'worker frames',
    everyMs: pollMs,
    log: ctx.log,
    signal,
    async work() {
      if (channels.size === 0) return
      const taken = [...channels].map(([channelId, socket]) => ({ channelId, number: socket.taken }))
      const frames = await listNewWorkerFrames(ctx.db, taken, maxFrames)
      for (const [channelId, ofChannel] of Map.groupBy(frames, (frame) => frame.channelId))
        channels.get(channelId)?.take(ofChannel)
      if (frames.length === maxFrames) loop.wake()
      await clear()
      if (performance.now() - touchedAt >= touchMs) await touch()
    },
  })
  const unsubscribe = ctx.hints.subscribe('worker-frames ', (topic) => {
    if (channels.has(topic.slice('worker-frames '.length))) loop.wake()
  })
  signal.addEventListener('abort', unsubscribe, { once: true })

  return {
    async open(channelId, keyId, socket) {
      await insertWorkerChannel(ctx.db, { id: channelId, keyId })
      if (socket.readyState === socket.OPEN) channels.set(channelId, socket)
      else await deleteWorkerChannel(ctx.db, channelId)
    },
    async remove(channelId) {
      const socket = channels.get(channelId)
      if (!socket) return
      // First, so that the loop takes nothing for it any more.
      channels.delete(channelId)
      socket.take(await listNewWorkerFrames(ctx.db, [{ channelId, number: socket.taken }], maxFrames))
      await deleteWorkerChannel(ctx.db, channelId)
    },
    loop,
  }
}
