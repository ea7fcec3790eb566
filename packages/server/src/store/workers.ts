import type { Queryable } from './database.ts'

export type WorkerTransport = 'websocket' | 'http'

export interface WorkerConnectionRecord {
  id: string
  serverId: string
  teamId: string
  workerId: string
  backend: string
  platform: string
  version: string
  host: string
  active: number
  maxConcurrentTasks: number
  /** It takes nothing new: by its own word, or because an operator drains its id. */
  draining: boolean
  drain: WorkerDrain | null
  channel: WorkerTransport
  connectedAt: Date
  lastSeenAt: Date
}

/** An operator's wish. */
export interface WorkerDrain {
  requestedAt: Date
  requestedBy: string
}

interface WorkerConnectionRow {
  id: string
  server_id: string
  team_id: string
  worker_id: string
  backend: string
  platform: string
  version: string
  host: string
  active: number
  max_concurrent_tasks: number
  draining: boolean
  drain_requested_at: Date | null
  drain_requested_by: string | null
  channel: WorkerTransport
  connected_at: Date
  last_seen_at: Date
}

export type NewWorkerConnection = Omit<
  WorkerConnectionRecord,
  'active' | 'draining' | 'drain' | 'connectedAt' | 'lastSeenAt'
>

export async function insertWorkerConnection(db: Queryable, connection: NewWorkerConnection): Promise<void> {
  await db.query(
    `insert into worker_connections (id, server_id, team_id, worker_id, backend, platform, version, host, max_concurrent_tasks,
                                     channel)
     values ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10)`,
    [
      connection.id,
      connection.serverId,
      connection.teamId,
      connection.workerId,
      connection.backend,
      connection.platform,
      connection.version,
      connection.host,
      connection.maxConcurrentTasks,
      connection.channel,
    ],
  )
}

export async function updateWorkerStatus(
  db: Queryable,
  connectionId: string,
  status: { active: number; draining: boolean },
): Promise<void> {
  await db.query('update worker_connections set active = $2, draining = $3 where id = $1', [
    connectionId,
    status.active,
    status.draining,
  ])
}

export async function deleteWorkerConnection(db: Queryable, connectionId: string): Promise<void> {
  await db.query('delete from worker_connections where id = $1', [connectionId])
}

/** Whether any process of this worker id is connected. */
export async function hasWorkerConnection(
  db: Queryable,
  { teamId, workerId }: { teamId: string; workerId: string },
): Promise<boolean> {
  const { rows } = await db.query<{ found: boolean }>(
    'select exists (select from worker_connections where team_id = $1 and worker_id = $2) as found',
    [teamId, workerId],
  )
  return rows[0]?.found ?? false
}

export async function listWorkerConnections(db: Queryable, teamId: string): Promise<WorkerConnectionRecord[]> {
  const { rows } = await db.query<WorkerConnectionRow>(
    `select worker_connections.*, requested_at as drain_requested_at, requested_by as drain_requested_by
       from worker_connections left join worker_drains using (team_id, worker_id)
      where team_id = $1 order by worker_id, connected_at`,
    [teamId],
  )
  return rows.map((row) => ({
    id: row.id,
    serverId: row.server_id,
    teamId: row.team_id,
    workerId: row.worker_id,
    backend: row.backend,
    platform: row.platform,
    version: row.version,
    host: row.host,
    active: row.active,
    maxConcurrentTasks: row.max_concurrent_tasks,
    draining: row.draining || row.drain_requested_at !== null,
    drain:
      row.drain_requested_at === null
        ? null
        : { requestedAt: row.drain_requested_at, requestedBy: row.drain_requested_by ?? '' },
    channel: row.channel,
    connectedAt: row.connected_at,
    lastSeenAt: row.last_seen_at,
  }))
}
