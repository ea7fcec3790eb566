import type { CloudEnvironmentConfig, RunState } from '@openoz/protocol'
import type { Queryable, Tx } from './database.ts'

/** Who made or changed something: a person or a team's key. Both null: nobody that is known any more. */
export interface EditorRecord {
  userId: string | null
  keyId: string | null
  name: string | null
  email: string | null
}

export interface EnvironmentRecord {
  id: string
  teamId: string
  scope: 'team' | 'user'
  config: CloudEnvironmentConfig
  setupFailed: boolean
  creator: EditorRecord
  editor: EditorRecord
  updatedAt: Date
  /** Of the runs that the reader may see: the one that was created last, and when the last one that was started was. */
  lastRun: {
    id: string
    title: string
    state: RunState
    createdAt: Date
    updatedAt: Date
    startedAt: Date | null
  } | null
  lastStartedAt: Date | null
}

interface EnvironmentRow {
  id: string
  team_id: string
  scope: 'team' | 'user'
  config: CloudEnvironmentConfig
  setup_failed: boolean
  created_by_user: string | null
  created_by_key: string | null
  edited_by_user: string | null
  edited_by_key: string | null
  creator_name: string | null
  creator_email: string | null
  editor_name: string | null
  editor_email: string | null
  updated_at: Date
  run_id: string | null
  run_title: string
  run_state: RunState
  run_created_at: Date
  run_updated_at: Date
  run_started_at: Date | null
  last_started_at: Date | null
}

/** Whose view of the environments it is. */
export interface EnvironmentViewer {
  teamId: string
  userId: string | null
}

/** A team's environments are for everyone in it, a personal one is for its creator alone. */
const isVisible = `environments.team_id = $1 and (environments.scope = 'team' or environments.created_by_user = $2)`

const environmentsWithFacts = `
  select environments.*,
         coalesce(creators.name, creator_keys.name) as creator_name, creators.email as creator_email,
         coalesce(editors.name, editor_keys.name) as editor_name, editors.email as editor_email,
         run.id as run_id, run.title as run_title, run.state as run_state, run.created_at as run_created_at,
         run.updated_at as run_updated_at, run.started_at as run_started_at,
         (select started_at from runs
           where environment_id = environments.id and team_id = $1 and (scope = 'team' or created_by_user = $2)
             and started_at is not null
           order by created_at desc, id desc limit 1) as last_started_at
    from environments
    left join users creators on creators.id = environments.created_by_user
    left join api_keys creator_keys on creator_keys.id = environments.created_by_key
    left join users editors on editors.id = environments.edited_by_user
    left join api_keys editor_keys on editor_keys.id = environments.edited_by_key
    left join lateral (
      select * from runs
       where environment_id = environments.id and team_id = $1 and (scope = 'team' or created_by_user = $2)
       order by created_at desc, id desc limit 1) as run on true
   where ${isVisible}`

function toEnvironment(row: EnvironmentRow): EnvironmentRecord {
  return {
    id: row.id,
    teamId: row.team_id,
    scope: row.scope,
    config: row.config,
    setupFailed: row.setup_failed,
    creator: {
      userId: row.created_by_user,
      keyId: row.created_by_key,
      name: row.creator_name,
      email: row.creator_email,
    },
    editor: { userId: row.edited_by_user, keyId: row.edited_by_key, name: row.editor_name, email: row.editor_email },
    updatedAt: row.updated_at,
    lastRun:
      row.run_id === null
        ? null
        : {
            id: row.run_id,
            title: row.run_title,
            state: row.run_state,
            createdAt: row.run_created_at,
            updatedAt: row.run_updated_at,
            startedAt: row.run_started_at,
          },
    lastStartedAt: row.last_started_at,
  }
}

const orders = {
  // Those without a name last.
  name: `coalesce(environments.config->>'name', '') = '', lower(environments.config->>'name'), environments.id`,
  last_updated: 'environments.updated_at desc, environments.id desc',
} as const

export async function listEnvironments(
  db: Queryable,
  viewer: EnvironmentViewer,
  sortBy: keyof typeof orders,
): Promise<EnvironmentRecord[]> {
  const { rows } = await db.query<EnvironmentRow>(`${environmentsWithFacts} order by ${orders[sortBy]}`, [
    viewer.teamId,
    viewer.userId,
  ])
  return rows.map(toEnvironment)
}

/** What they are made of, without anything that is known of them. */
export async function listEnvironmentConfigs(
  db: Queryable,
  viewer: EnvironmentViewer,
): Promise<{ id: string; config: CloudEnvironmentConfig }[]> {
  const { rows } = await db.query<{ id: string; config: CloudEnvironmentConfig }>(
    `select id, config from environments where ${isVisible} order by lower(config->>'name'), id`,
    [viewer.teamId, viewer.userId],
  )
  return rows
}

export async function findEnvironment(
  db: Queryable,
  viewer: EnvironmentViewer,
  id: string,
): Promise<EnvironmentRecord | undefined> {
  const { rows } = await db.query<EnvironmentRow>(`${environmentsWithFacts} and environments.id = $3`, [
    viewer.teamId,
    viewer.userId,
    id,
  ])
  return rows[0] && toEnvironment(rows[0])
}

export interface NewEnvironment {
  id: string
  teamId: string
  scope: 'team' | 'user'
  byUser: string | null
  byKey: string | null
  /** JSON. */
  config: string
}

export async function insertEnvironment(tx: Tx, environment: NewEnvironment): Promise<void> {
  const { id, teamId, scope, byUser, byKey, config } = environment
  await tx.query(
    `insert into environments (id, team_id, scope, created_by_user, created_by_key, edited_by_user, edited_by_key, config)
     values ($1, $2, $3, $4, $5, $4, $5, $6)`,
    [id, teamId, scope, byUser, byKey, config],
  )
}

/** Answers false when there is none that the viewer may see. */
export async function updateEnvironmentConfig(
  tx: Tx,
  viewer: EnvironmentViewer,
  change: Pick<NewEnvironment, 'id' | 'byUser' | 'byKey' | 'config'>,
): Promise<boolean> {
  const { rowCount } = await tx.query(
    `update environments set config = $4, edited_by_user = $5, edited_by_key = $6, updated_at = db_now()
      where ${isVisible} and id = $3`,
    [viewer.teamId, viewer.userId, change.id, change.config, change.byUser, change.byKey],
  )
  return rowCount === 1
}

/** Answers false when there is none that the viewer may see. */
export async function deleteEnvironment(tx: Tx, viewer: EnvironmentViewer, id: string): Promise<boolean> {
  const { rowCount } = await tx.query(`delete from environments where ${isVisible} and id = $3`, [
    viewer.teamId,
    viewer.userId,
    id,
  ])
  return rowCount === 1
}

/** How the last preparation of it went. No change of the environment itself, so neither its editor nor its time moves. */
export async function updateSetupFailed(tx: Tx, id: string, setupFailed: boolean): Promise<void> {
  await tx.query('update environments set setup_failed = $2 where id = $1 and setup_failed <> $2', [id, setupFailed])
}
