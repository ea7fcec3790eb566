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
  draining: boolean
  channel: WorkerTransport
  connectedAt: Date
  lastSeenAt: Date
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
  channel: WorkerTransport
  connected_at: Date
  last_seen_at: Date
}

export type NewWorkerConnection = Omit<WorkerConnectionRecord, 'active' | 'draining' | 'connectedAt' | 'lastSeenAt'>

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

/** This server's sign of life for its connections; those that are missing here were removed as stale and must be written again. */
export async function touchWorkerConnections(db: Queryable, connectionIds: string[]): Promise<string[]> {
  const { rows } = await db.query<{ id: string }>(
    'update worker_connections set last_seen_at = db_now() where id = any($1) returning id',
    [connectionIds],
  )
  return rows.map((row) => row.id)
}

/** Connections of servers that are gone. */
export async function deleteStaleWorkerConnections(db: Queryable, staleSeconds: number): Promise<number> {
  const { rowCount } = await db.query(
    'delete from worker_connections where last_seen_at < db_now() - make_interval(secs => $1)',
    [staleSeconds],
  )
  return rowCount ?? 0
}

export async function listWorkerConnections(db: Queryable, teamId: string): Promise<WorkerConnectionRecord[]> {
  const { rows } = await db.query<WorkerConnectionRow>(
    'select * from worker_connections where team_id = $1 order by worker_id, connected_at',
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
    draining: row.draining,
    channel: row.channel,
    connectedAt: row.connected_at,
    lastSeenAt: row.last_seen_at,
  }))
}
