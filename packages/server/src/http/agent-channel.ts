import { AppError, isUuid } from '@openoz/protocol'
import { ackCommandsRequest, eventBatch, helloRequest, nextTurnRequest } from '@openoz/protocol/schemas'
import type { Context } from 'hono'
import { bodyLimit } from 'hono/body-limit'
import { v7 as uuidv7 } from 'uuid'
import type { ExecutionActor } from '../domain/actors.ts'
import { hello, nextTurn } from '../domain/agent-channel.ts'
import type { Ctx } from '../domain/context.ts'
import { appendBatch } from '../domain/event-batches.ts'
import { CommandStreams } from '../sockets/agent-commands.ts'
import { BlobTooLarge, findBlob, insertBlob, isOfConversation, readBlob } from '../store/blobs.ts'
import { updateCommandsAcked } from '../store/commands.ts'
import { byteAnswer } from './byte-answer.ts'
import { eventStream } from './event-stream.ts'
import { type AppEnv, allow, createRouter } from './router.ts'

/** Four times what an agent puts into a batch: escapes make JSON longer, and a batch must never be refused for its size. */
const maxBatchBytes = 16 * 1024 * 1024

/** Bundles and output are limited by their own limits, where those are larger; conversations and artifacts by this. */
const minBlobBytes = 256 * 1024 * 1024

async function readJson(c: Context): Promise<unknown> {
  const text = await c.req.text()
  try {
    return JSON.parse(text)
  } catch (error) {
    throw new AppError('json_malformed', { problem: (error as Error).message }, { cause: error })
  }
}

type AgentContext = { get(key: 'actor'): AppEnv['Variables']['actor'] }

/** For agents, not for people: described in the protocol package instead of the OpenAPI document. */
export function agentChannelRoutes(ctx: Ctx, stopping: AbortSignal) {
  const router = createRouter(ctx)
  const commands = new CommandStreams(ctx)
  const agentOnly = allow(ctx, 'agent.channel')
  const limit = bodyLimit({
    maxSize: maxBatchBytes,
    onError: () => {
      throw new AppError('body_too_large', { maxBytes: maxBatchBytes })
    },
  })

  router.post('/agent-channel/hello', limit, agentOnly, async (c) =>
    c.json(await hello(ctx, executionOf(c), helloRequest.parse(await readJson(c)))),
  )

  router.post('/agent-channel/next-turn', limit, agentOnly, async (c) =>
    c.json(await nextTurn(ctx, executionOf(c), nextTurnRequest.parse(await readJson(c)))),
  )

  router.post('/agent-channel/events', limit, agentOnly, async (c) => {
    const { events } = eventBatch.parse(await readJson(c))
    const numbered = events.map((event) => ({ ...event, data: event.data as Record<string, unknown> }))
    return c.json(await appendBatch(ctx, executionOf(c), numbered))
  })

  router.get('/agent-channel/commands', agentOnly, (c) => {
    const { executionId } = executionOf(c)
    return eventStream(ctx, c, stopping, (signal) => commands.view(executionId, signal))
  })

  router.post('/agent-channel/commands/ack', limit, agentOnly, async (c) => {
    const { ids } = ackCommandsRequest.parse(await readJson(c))
    await updateCommandsAcked(ctx.db, executionOf(c).executionId, ids)
    return c.json({ acked: ids.length })
  })

  router.post('/agent-channel/blobs', agentOnly, async (c) => {
    const { runId, executionId } = executionOf(c)
    const { workspaceMaxBytes, outputMaxBytes } = ctx.config.agent
    const maxBytes = Math.max(minBlobBytes, workspaceMaxBytes, outputMaxBytes)
    try {
      if (Number(c.req.header('content-length') ?? 0) > maxBytes) throw new BlobTooLarge()
      const blob = await insertBlob(
        ctx.db,
        {
          id: uuidv7(),
          runId,
          executionId,
          contentType: c.req.header('content-type') ?? 'application/octet-stream',
          maxBytes,
        },
        c.req.raw.body ?? ReadableStream.from([]),
      )
      return c.json({ blob_id: blob.id, size_bytes: blob.sizeBytes }, 201)
    } catch (error) {
      if (error instanceof BlobTooLarge) throw new AppError('body_too_large', { maxBytes }, { cause: error })
      throw error
    }
  })

  router.get('/agent-channel/blobs/:blobId', agentOnly, async (c) => {
    const blobId = c.req.param('blobId')
    const blob = isUuid(blobId) ? await findBlob(ctx.db, blobId) : undefined
    if (!blob || !(await isOfConversation(ctx.db, blob.id, executionOf(c).runId)))
      throw new AppError('blob_not_found', { blobId })
    const { sizeBytes, contentType } = blob
    return byteAnswer(ctx, c, readBlob(ctx.db, blob.id), { sizeBytes, headers: { 'content-type': contentType } })
  })

  return router
}

function executionOf(c: AgentContext): ExecutionActor {
  const actor = c.get('actor')
  if (actor.kind !== 'execution') throw new AppError('not_authorized', { actor: 'This key', action: 'act as an agent' })
  return actor
}
