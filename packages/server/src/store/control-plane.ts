import type { Queryable, Tx } from './database.ts'

export async function findInstallation(db: Queryable): Promise<{ id: string; masterKeyCheck: Buffer } | undefined> {
  const { rows } = await db.query<{ id: string; master_key_check: Buffer }>('select * from installation')
  return rows[0] && { id: rows[0].id, masterKeyCheck: rows[0].master_key_check }
}

export async function insertInstallation(tx: Tx, installation: { id: string; masterKeyCheck: Buffer }): Promise<void> {
  await tx.query('insert into installation (id, master_key_check) values ($1, $2)', [
    installation.id,
    installation.masterKeyCheck,
  ])
}

/** Beats, and answers how long ago the last beat of any server was, in seconds. One server at a time. */
export async function beat(tx: Tx): Promise<number> {
  const { rows } = await tx.query<{ gap: number }>(
    `update control_plane_heartbeat set beat_at = db_now()
       from (select beat_at from control_plane_heartbeat for update) before
     returning extract(epoch from control_plane_heartbeat.beat_at - before.beat_at)::float8 as gap`,
  )
  return rows[0]?.gap ?? 0
}

/** Of SQL: some server has beaten within so many seconds. Without it no deadline is over, because the time is given back to all of them first. */
export function heartbeatIsFresh(outageSeconds: string, now = 'db_now()'): string {
  return `exists (select from control_plane_heartbeat where beat_at > ${now} - make_interval(secs => ${outageSeconds}))`
}

/** Locks for the first start: two servers on one new database must not both create its owner. */
export async function lockBootstrap(tx: Tx): Promise<void> {
  await tx.query('lock table installation in exclusive mode')
}

/** What the control plane's one clock says. */
export async function findDatabaseTime(db: Queryable): Promise<Date> {
  const { rows } = await db.query<{ now: Date }>('select db_now() as now')
  return (rows[0] as { now: Date }).now
}
