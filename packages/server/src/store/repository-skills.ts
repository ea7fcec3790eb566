import type { Queryable, Tx } from './database.ts'

export interface RepositoryName {
  /** In lower case; '' for folders of a worker's machine. */
  host: string
  owner: string
  repo: string
}

/** A skill of a repository, as a run last saw it. */
export interface RepositorySkill extends RepositoryName {
  path: string
  name: string
  description: string
  basePrompt: string
  /** null: a host that everybody reaches; else the worker that could. */
  workerHost: string | null
  error: string | null
  seenAt: Date
}

/** Replaces what is known of the repository. */
export async function replaceRepositorySkills(
  tx: Tx,
  { teamId, repository, runId }: { teamId: string; repository: RepositoryName; runId: string },
  skills: Omit<RepositorySkill, keyof RepositoryName | 'seenAt'>[],
): Promise<void> {
  const { host, owner, repo } = repository
  // Of two reports at once the second waits here, instead of failing at the rows of the first.
  await tx.query('select pg_advisory_xact_lock(hashtextextended($1, 0))', [`skills ${teamId} ${host}/${owner}/${repo}`])
  await tx.query('delete from repository_skills where team_id = $1 and host = $2 and owner = $3 and repo = $4', [
    teamId,
    host,
    owner,
    repo,
  ])
  await tx.query(
    `insert into repository_skills (team_id, host, owner, repo, seen_by_run, skill_path, name, description, base_prompt,
                                    worker_host, error)
     select $1, $2, $3, $4, $5, skill.*
       from unnest($6::text[], $7::text[], $8::text[], $9::text[], $10::text[], $11::text[]) as skill
         (path, name, description, base_prompt, worker_host, error)
     on conflict do nothing`,
    [
      teamId,
      host,
      owner,
      repo,
      runId,
      skills.map(({ path }) => path),
      skills.map(({ name }) => name),
      skills.map(({ description }) => description),
      skills.map(({ basePrompt }) => basePrompt),
      skills.map(({ workerHost }) => workerHost),
      skills.map(({ error }) => error),
    ],
  )
}

interface SkillRow {
  host: string
  owner: string
  repo: string
  skill_path: string
  name: string
  description: string
  base_prompt: string
  worker_host: string | null
  error: string | null
  seen_at: Date
}

/** `repository` is `owner/name`, in any case: forges do not tell them apart. */
export async function listRepositorySkills(
  db: Queryable,
  teamId: string,
  { repository, withMalformed }: { repository: string | undefined; withMalformed: boolean },
): Promise<RepositorySkill[]> {
  const { rows } = await db.query<SkillRow>(
    `select * from repository_skills
      where team_id = $1 and ($2::text is null or lower(owner || '/' || repo) = lower($2)) and ($3 or error is null)
      order by name, owner, repo, host, skill_path`,
    [teamId, repository ?? null, withMalformed],
  )
  return rows.map((row) => ({
    host: row.host,
    owner: row.owner,
    repo: row.repo,
    path: row.skill_path,
    name: row.name,
    description: row.description,
    basePrompt: row.base_prompt,
    workerHost: row.worker_host,
    error: row.error,
    seenAt: row.seen_at,
  }))
}
