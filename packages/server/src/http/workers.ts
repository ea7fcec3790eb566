import { z } from '@hono/zod-openapi'
import { connectedWorkersResponse, drainWorkerResponse, listWorkersResponse } from '@openoz/protocol/schemas'
import type { Ctx } from '../domain/context.ts'
import { drainWorker, endWorkerDrain, toDrainItem } from '../domain/worker-drains.ts'
import { countLiveExecutionsOf, listWorkerDrains } from '../store/worker-drains.ts'
import { listWorkerConnections } from '../store/workers.ts'
import { createRouter, describe } from './router.ts'

const workerId = z.object({ workerId: z.string() })

export function workerRoutes(ctx: Ctx) {
  const router = createRouter(ctx)

  router.openapi(
    describe(ctx, {
      method: 'get',
      path: '/workers',
      operationId: 'listWorkers',
      action: 'worker.read',
      summary: 'Connected workers, one row per connection',
      success: { status: 200, body: listWorkersResponse },
      errors: [],
    }),
    async (c) => {
      const { teamId } = c.get('actor')
      const workers = await listWorkerConnections(ctx.db, teamId)
      const drains = await listWorkerDrains(ctx.db, [teamId])
      const active = await Promise.all(drains.map((drain) => countLiveExecutionsOf(ctx.db, drain)))
      return c.json(
        {
          workers: workers.map((worker) => ({
            worker_id: worker.workerId,
            connection_id: worker.id,
            backend: worker.backend,
            platform: worker.platform,
            version: worker.version,
            host: worker.host,
            active: worker.active,
            max_concurrent_tasks: worker.maxConcurrentTasks,
            draining: worker.draining,
            drain: worker.drain && toDrainItem(worker.drain),
            channel: worker.channel,
            connected_at: worker.connectedAt.toISOString(),
            last_seen_at: worker.lastSeenAt.toISOString(),
          })),
          drains: drains.map((drain, index) => ({
            worker_id: drain.workerId,
            ...toDrainItem(drain),
            active: active[index] ?? 0,
          })),
        },
        200,
      )
    },
  )

  router.openapi(
    describe(ctx, {
      method: 'post',
      path: '/workers/{workerId}/drain',
      operationId: 'drainWorker',
      action: 'worker.drain',
      summary: 'Offer nothing new to a worker id; what runs goes on',
      request: { params: workerId },
      success: { status: 200, body: drainWorkerResponse },
      errors: [400],
    }),
    async (c) => c.json(await drainWorker(ctx, c.req.valid('param').workerId, c.get('actor')), 200),
  )

  router.openapi(
    describe(ctx, {
      method: 'delete',
      path: '/workers/{workerId}/drain',
      operationId: 'endWorkerDrain',
      action: 'worker.drain',
      summary: 'Offer work to a worker id again',
      request: { params: workerId },
      success: { status: 200, body: drainWorkerResponse },
      errors: [400],
    }),
    async (c) => c.json(await endWorkerDrain(ctx, c.req.valid('param').workerId, c.get('actor')), 200),
  )

  router.openapi(
    describe(ctx, {
      method: 'get',
      path: '/agent/connected-self-hosted-workers',
      operationId: 'listConnectedWorkers',
      action: 'worker.read',
      summary: 'Connected worker ids, as the reference lists them',
      success: { status: 200, body: connectedWorkersResponse },
      errors: [],
    }),
    async (c) => {
      const connections = await listWorkerConnections(ctx.db, c.get('actor').teamId)
      const byId = Map.groupBy(connections, (connection) => connection.workerId)
      const workers = [...byId].map(([workerHost, group]) => ({
        worker_host: workerHost,
        connection_count: group.length,
        connected_at: new Date(Math.min(...group.map((one) => one.connectedAt.getTime()))).toISOString(),
        last_seen_at: new Date(Math.max(...group.map((one) => one.lastSeenAt.getTime()))).toISOString(),
      }))
      return c.json({ workers }, 200)
    },
  )

  return router
}
