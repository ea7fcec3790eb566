import { z } from '@hono/zod-openapi'
import {
  openWorkerChannelQuery,
  workerFramesRequest,
  workerFramesResponse,
  workerProtocolHeader,
  workerProtocolVersion,
} from '@openoz/protocol/schemas'
import type { Ctx } from '../domain/context.ts'
import { receiveWorkerFrames } from '../domain/worker-channels.ts'
import type { WorkerSockets } from '../sockets/worker-socket.ts'
import { eventStreamHeaders } from './event-stream.ts'
import { allow, createRouter, describe } from './router.ts'

/** For workers whose network ends WebSockets. Their socket itself is upgraded before the app (`front-door.ts`). */
export function workerChannelRoutes(ctx: Ctx, sockets: Pick<WorkerSockets, 'openChannel'>) {
  const router = createRouter(ctx)

  router.get('/selfhosted/worker/channel', allow(ctx, 'worker.connect'), async (c) => {
    const { worker_id: workerId } = openWorkerChannelQuery.parse(c.req.query())
    const speaksOurs = c.req.header(workerProtocolHeader) === String(workerProtocolVersion)
    const stream = await sockets.openChannel(c.get('actor'), { workerId, speaksOurs }, c.req.raw.signal)
    return new Response(stream, { headers: eventStreamHeaders })
  })

  router.openapi(
    describe(ctx, {
      method: 'post',
      path: '/selfhosted/worker/channel/{channelId}',
      operationId: 'sendWorkerFrames',
      action: 'worker.connect',
      summary: 'What a worker says on its plain HTTP channel; the same frames again change nothing',
      request: {
        params: z.object({ channelId: z.string() }),
        body: { required: true, content: { 'application/json': { schema: workerFramesRequest } } },
      },
      success: { status: 200, body: workerFramesResponse },
      errors: [400, 410],
    }),
    async (c) => {
      const { channelId: id } = c.req.valid('param')
      const received = await receiveWorkerFrames(ctx, c.get('actor'), id, c.req.valid('json'))
      return c.json({ received }, 200)
    },
  )

  return router
}
