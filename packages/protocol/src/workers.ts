import { z } from 'zod'

/** One connection of a worker process. Several may share one worker id. */
export const workerItem = z
  .object({
    worker_id: z.string(),
    connection_id: z.uuid(),
    backend: z.string(),
    platform: z.string(),
    version: z.string(),
    host: z.string(),
    active: z.int(),
    /** 0: no limit. */
    max_concurrent_tasks: z.int(),
    draining: z.boolean(),
    /** `http`: something on the way ends its WebSocket. */
    channel: z.enum(['websocket', 'http']),
    connected_at: z.string(),
    last_seen_at: z.string(),
  })
  .meta({ id: 'Worker' })
export type Worker = z.infer<typeof workerItem>

export const listWorkersResponse = z.object({ workers: z.array(workerItem) }).meta({ id: 'ListWorkersResponse' })

/** The reference's own list: one row per worker id. */
export const connectedWorkersResponse = z
  .object({
    workers: z.array(
      z.object({
        worker_host: z.string(),
        connection_count: z.int(),
        connected_at: z.string(),
        last_seen_at: z.string(),
      }),
    ),
  })
  .meta({ id: 'ConnectedWorkersResponse' })
