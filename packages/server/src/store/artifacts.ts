import type { Queryable } from './database.ts'

/** An artifact as its run's log has it. */
export interface ArtifactRecord {
  runId: string
  at: Date
  data: { artifact_type: string } & Record<string, unknown>
}

/** No honest agent gives two artifacts one uid. */
const maxNamesakes = 20

/** What runs of the team have reported under this uid, the newest first: agents make the uids, so nothing says that one is there only once. */
export async function listArtifacts(db: Queryable, teamId: string, uid: string): Promise<ArtifactRecord[]> {
  const { rows } = await db.query<{ run_id: string; at: Date; data: ArtifactRecord['data'] }>(
    `select run_id, at, data from session_events
      where type = 'artifact' and length(data ->> 'artifact_uid') <= 128 and data ->> 'artifact_uid' = $1
        and exists (select from runs where runs.id = run_id and runs.team_id = $2)
      order by at desc, seq desc limit ${maxNamesakes}`,
    [uid, teamId],
  )
  return rows.map((row) => ({ runId: row.run_id, at: row.at, data: row.data }))
}
