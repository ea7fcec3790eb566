import { heartbeatIsFresh } from './control-plane.ts'
import type { Queryable } from './database.ts'

/** Rows that a server keeps alive by a sign of life, `last_seen_at`: what nobody touches any more is stale, and goes. */
export const presenceTables = ['worker_connections', 'worker_channels'] as const
export type PresenceTable = (typeof presenceTables)[number]

export interface StaleLimits {
  staleSeconds: number
  outageSeconds: number
}

/** This server's sign of life. Answers the ids that are there: the others were removed as stale, and what belonged to them. */
export async function touchPresent(db: Queryable, table: PresenceTable, ids: string[]): Promise<string[]> {
  const { rows } = await db.query<{ id: string }>(
    `with touched as (select id from ${table} where id = any($1) order by id for no key update)
     update ${table} set last_seen_at = db_now() from touched where ${table}.id = touched.id
     returning ${table}.id`,
    [ids],
  )
  return rows.map((row) => row.id)
}

/** Of servers that are gone. Not before the time of an outage was given back to those that only could not be touched. */
export async function deleteStale(db: Queryable, { staleSeconds, outageSeconds }: StaleLimits): Promise<void> {
  for (const table of presenceTables)
    await db.query(
      `delete from ${table} where last_seen_at < db_now() - make_interval(secs => $1) and ${heartbeatIsFresh('$2')}`,
      [staleSeconds, outageSeconds],
    )
}
