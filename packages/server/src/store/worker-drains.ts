import type { Queryable, Tx } from './database.ts'
import { live } from './execution-states.ts'
import type { WorkerDrain } from './workers.ts'

/** Worker ids that operators took out of service. The entry outlives every connection of the id. */
export interface DrainedWorker extends WorkerDrain {
  teamId: string
  workerId: string
}

/** The first wish stays: who asked again is told since when. */
export async function insertWorkerDrain(
  tx: Tx,
  drain: { teamId: string; workerId: string; requestedBy: string },
): Promise<WorkerDrain & { isNew: boolean }> {
  const { rows } = await tx.query<{ requested_at: Date; requested_by: string; is_new: boolean }>(
    `insert into worker_drains (team_id, worker_id, requested_by) values ($1, $2, $3)
     on conflict (team_id, worker_id) do update set requested_by = worker_drains.requested_by
     returning requested_at, requested_by, xmax = 0 as is_new`,
    [drain.teamId, drain.workerId, drain.requestedBy],
  )
  const row = rows[0] as (typeof rows)[number]
  return { requestedAt: row.requested_at, requestedBy: row.requested_by, isNew: row.is_new }
}

/** Answers whether there was one. */
export async function deleteWorkerDrain(tx: Tx, drain: { teamId: string; workerId: string }): Promise<boolean> {
  const { rowCount } = await tx.query('delete from worker_drains where team_id = $1 and worker_id = $2', [
    drain.teamId,
    drain.workerId,
  ])
  return rowCount === 1
}

export async function listWorkerDrains(db: Queryable, teamIds: string[]): Promise<DrainedWorker[]> {
  const { rows } = await db.query<{ team_id: string; worker_id: string; requested_at: Date; requested_by: string }>(
    'select * from worker_drains where team_id = any($1) order by team_id, worker_id',
    [teamIds],
  )
  return rows.map((row) => ({
    teamId: row.team_id,
    workerId: row.worker_id,
    requestedAt: row.requested_at,
    requestedBy: row.requested_by,
  }))
}

/** Also those of a worker that is away: its agents may be at work all the same. */
export async function countLiveExecutionsOf(
  db: Queryable,
  { teamId, workerId }: { teamId: string; workerId: string },
): Promise<number> {
  const { rows } = await db.query<{ count: number }>(
    `select count(*)::integer as count from executions join runs on runs.id = executions.run_id
      where executions.state in ${live} and executions.worker_id = $2 and runs.team_id = $1 and runs.execution_location = 'REMOTE'`,
    [teamId, workerId],
  )
  return rows[0]?.count ?? 0
}
