import { z } from 'zod'

/** An operator's wish that a worker id takes nothing new. */
const workerDrain = z.object({ requested_at: z.string(), requested_by: z.string() })

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
    /** It takes nothing new: it is being stopped, or an operator drains its id. */
    draining: z.boolean(),
    /** Who drains its id, and since when; null: nobody does. */
    drain: workerDrain.nullable(),
    /** `http`: something on the way ends its WebSocket. */
    channel: z.enum(['websocket', 'http']),
    connected_at: z.string(),
    last_seen_at: z.string(),
  })
  .meta({ id: 'Worker' })
export type Worker = z.infer<typeof workerItem>

export const listWorkersResponse = z
  .object({
    workers: z.array(workerItem),
    /** Every worker id that is drained, connected or not. */
    drains: z.array(
      workerDrain.extend({
        worker_id: z.string(),
        /** Executions that still run there, agents at rest and those of a worker that is away among them. */
        active: z.int(),
      }),
    ),
  })
  .meta({ id: 'ListWorkersResponse' })
export type ListWorkersResponse = z.infer<typeof listWorkersResponse>

/** How it stands with a worker id after its drain was asked for, or ended. */
export const drainWorkerResponse = z
  .object({
    worker_id: z.string(),
    drain: workerDrain.nullable(),
    /** Connections under this id. 0: nobody has it now; whoever connects under it is drained all the same. */
    connections: z.int(),
    /** Executions that still run there, agents at rest and those of a worker that is away among them. */
    active: z.int(),
  })
  .meta({ id: 'DrainWorkerResponse' })
export type DrainWorkerResponse = z.infer<typeof drainWorkerResponse>

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
