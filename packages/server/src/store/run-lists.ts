import type { ListRunsQuery, ModelUsage, Share } from '@openoz/protocol'
import type { Queryable } from './database.ts'
import { live } from './execution-states.ts'
import { type RunRecord, type RunRow, toRun } from './runs.ts'

/** What a list shows beside the run itself. */
export interface RunFacts {
  creatorName: string | null
  creatorEmail: string | null
  keyName: string | null
  /** A conversation. */
  forkedFrom: string | null
  hasLiveExecution: boolean
  newestExecutionId: string | null
  /** Seconds from the start to the end, or to now. */
  seconds: number | null
  shares: Share[]
  /** Data of its newest `artifact` events, oldest first; their contents and blobs are left out. */
  artifacts: { at: string; data: Record<string, unknown> }[]
  lastSeq: number
  usage: ModelUsage & { requests: number }
}

type RunWithFactsRow = RunRow & {
  creator_name: string | null
  creator_email: string | null
  key_name: string | null
  forked_from: string | null
  has_live_execution: boolean
  newest_execution_id: string | null
  seconds: number | null
  shares: Share[] | null
  artifacts: RunFacts['artifacts'] | null
  last_seq: number
  input_tokens: number
  output_tokens: number
  cache_read_tokens: number
  cache_write_tokens: number
  reasoning_tokens: number
  cost_usd: number | null
  requests: number
}

/** Of one run: a page may have 500 runs. Each of the others is found by its uid, and all are in the session log. */
const maxArtifacts = 100

const runWithFacts = `
  select runs.*, users.name as creator_name, users.email as creator_email, api_keys.name as key_name,
         conversations.forked_from,
         exists (select from executions where run_id = runs.id and state in ${live})
           as has_live_execution,
         (select id from executions where run_id = runs.id order by number desc limit 1) as newest_execution_id,
         extract(epoch from coalesce(runs.ended_at, db_now()) - runs.started_at)::float8 as seconds,
         (select json_agg(json_strip_nulls(json_build_object('subject', subject, 'email', nullif(email, ''), 'access', access))
                          order by subject, email)
            from run_shares where run_id = runs.id) as shares,
         (select json_agg(json_build_object('at', at, 'data', artifact) order by seq)
            from (select at, seq, artifact from session_events
                   where run_id = runs.id and type = 'artifact' order by seq desc limit ${maxArtifacts}) newest) as artifacts,
         session_logs.last_seq, usage.*
    from runs
    join session_logs on session_logs.run_id = runs.id
    join conversations on conversations.id = runs.conversation_id
    left join users on users.id = runs.created_by_user
    left join api_keys on api_keys.id = runs.created_by_key
    cross join lateral (
      select coalesce(sum(input_tokens), 0)::bigint as input_tokens, coalesce(sum(output_tokens), 0)::bigint as output_tokens,
             coalesce(sum(cache_read_tokens), 0)::bigint as cache_read_tokens,
             coalesce(sum(cache_write_tokens), 0)::bigint as cache_write_tokens,
             coalesce(sum(reasoning_tokens), 0)::bigint as reasoning_tokens,
             sum(cost_usd) as cost_usd, count(*) as requests
        from model_usage where run_id = runs.id) as usage`

function toRunWithFacts(row: RunWithFactsRow): RunRecord & { facts: RunFacts } {
  return {
    ...toRun(row),
    facts: {
      creatorName: row.creator_name,
      creatorEmail: row.creator_email,
      keyName: row.key_name,
      forkedFrom: row.forked_from,
      hasLiveExecution: row.has_live_execution,
      newestExecutionId: row.newest_execution_id,
      seconds: row.seconds,
      shares: row.shares ?? [],
      artifacts: row.artifacts ?? [],
      lastSeq: row.last_seq,
      usage: {
        requests: row.requests,
        input_tokens: row.input_tokens,
        output_tokens: row.output_tokens,
        cache_read_tokens: row.cache_read_tokens,
        cache_write_tokens: row.cache_write_tokens,
        reasoning_tokens: row.reasoning_tokens,
        // Sums of fractions of a cent: what lies below a millionth of a dollar is noise.
        ...(row.cost_usd === null ? {} : { cost_usd: Math.round(row.cost_usd * 1e6) / 1e6 }),
      },
    },
  }
}

export async function findRunWithFacts(db: Queryable, runId: string) {
  const { rows } = await db.query<RunWithFactsRow>(`${runWithFacts} where runs.id = $1`, [runId])
  return rows[0] && toRunWithFacts(rows[0])
}

/** Sort keys as SQL, from the closed list of the query's schema: nothing of a request reaches the text. */
const sortColumns = {
  updated_at: 'runs.updated_at',
  created_at: 'runs.created_at',
  title: 'runs.title',
  // Runs without a skill last; there are none with one yet, so the id decides.
  agent: `''::text`,
} as const

/** Stands for no environment where one is asked for by its id. */
export const noEnvironment = 'empty-environment'

export interface RunCursor {
  value: string
  id: string
}

/** One page, newest first by default, of what the viewer may see: the team's runs and their own personal ones. Ids in the query are UUIDs. */
export async function listRuns(
  db: Queryable,
  viewer: { teamId: string; userId: string | null },
  query: ListRunsQuery,
  after: RunCursor | null,
) {
  const values: unknown[] = [viewer.teamId, viewer.userId]
  const value = (item: unknown) => `$${values.push(item)}`
  const conditions = [`runs.team_id = $1 and (runs.scope = 'team' or runs.created_by_user = $2)`]
  const only = (item: unknown, condition: (placeholder: string) => string) => {
    if (item !== undefined) conditions.push(condition(value(item)))
  }
  only(query.state, (p) => `runs.state = any(${p})`)
  only(query.name, (p) => `runs.config->>'name' = ${p}`)
  only(query.model_id, (p) => `runs.model_id = ${p}`)
  only(query.creator, (p) => `coalesce(runs.created_by_user, runs.created_by_key)::text = ${p}`)
  only(query.source, (p) => `runs.source = ${p}`)
  only(query.execution_location, (p) => `runs.execution_location = ${p}`)
  only(query.created_after, (p) => `runs.created_at > ${p}::timestamptz`)
  only(query.created_before, (p) => `runs.created_at < ${p}::timestamptz`)
  only(query.updated_after, (p) => `runs.updated_at > ${p}::timestamptz`)
  if (query.environment_id === noEnvironment) conditions.push('runs.environment_id is null')
  else only(query.environment_id, (p) => `runs.environment_id = ${p}`)
  only(query.executor, (p) => `coalesce(runs.created_by_user, runs.created_by_key)::text = ${p}`)
  // The index leaves out the runs without labels, which are most.
  if (query.metadata && Object.keys(query.metadata).length > 0)
    only(JSON.stringify(query.metadata), (p) => `runs.metadata <> '{}' and runs.metadata @> ${p}::jsonb`)
  only(
    query.artifact_type,
    (p) => `exists (select from session_events
                     where run_id = runs.id and type = 'artifact' and artifact ->> 'artifact_type' = ${p})`,
  )
  const hasNone = query.skill ?? query.skill_spec ?? query.schedule_id ?? query.automation_id ?? query.factory_uid
  if (hasNone !== undefined) conditions.push('false')
  only(
    query.ancestor_run_id,
    (p) => `runs.id in (with recursive descendants as (
        select id from runs where parent_run_id = ${p}
        union select child.id from runs child join descendants on child.parent_run_id = descendants.id)
      select id from descendants)`,
  )
  for (const word of query.q?.split(/\s+/).filter(Boolean) ?? [])
    only(`%${word.replace(/[\\%_]/g, '\\$&')}%`, (p) => `(runs.title ilike ${p} or runs.prompt ilike ${p})`)

  const column = sortColumns[query.sort_by]
  const [comparison, direction] = query.sort_order === 'asc' ? ['>', 'asc'] : ['<', 'desc']
  if (after) {
    const type = query.sort_by.endsWith('_at') ? 'timestamptz' : 'text'
    conditions.push(`(${column}, runs.id) ${comparison} (${value(after.value)}::${type}, ${value(after.id)}::uuid)`)
  }
  const { rows } = await db.query<RunWithFactsRow & { sort_value: string }>(
    `${runWithFacts.replace('select runs.*', `select (${column})::text as sort_value, runs.*`)}
      where ${conditions.join(' and ')}
      order by ${column} ${direction}, runs.id ${direction}
      limit ${value(query.limit + 1)}`,
    values,
    // As many texts as there are combinations of filters; and whether one is narrow depends on what is asked for.
    'planned each time',
  )
  return rows.map((row) => ({ run: toRunWithFacts(row), sortValue: row.sort_value }))
}
