import {
  AppError,
  addressForm,
  addressForms,
  type CloudEnvironment,
  type CloudEnvironmentConfig,
  type CreateEnvironmentRequest,
  isReservedVariable,
  isUuid,
  type ListEnvironmentsQuery,
} from '@openoz/protocol'
import { v7 as uuidv7 } from 'uuid'
import { insertAuditEvent } from '../store/audit-events.ts'
import type { Tx } from '../store/database.ts'
import {
  deleteEnvironment as deleteEnvironmentRecord,
  type EnvironmentRecord,
  findEnvironment,
  insertEnvironment,
  listEnvironments as listEnvironmentRecords,
  updateEnvironmentConfig,
} from '../store/environments.ts'
import { type Actor, actorLabel } from './actors.ts'
import { type Ctx, change } from './context.ts'
import { scopeFor } from './permissions.ts'
import { toPersonItem, toScopeItem } from './person-item.ts'
import { storableJson } from './session-log.ts'

/**
 * Environments under an id of their own. A run copies the config at its creation, so neither a change nor the end of an environment reaches a run
 * that exists. A personal one is its creator's alone: for everyone else it is not there.
 */

export async function listEnvironments(
  ctx: Ctx,
  { sort_by }: ListEnvironmentsQuery,
  actor: Actor,
): Promise<CloudEnvironment[]> {
  return (await listEnvironmentRecords(ctx.db, actor, sort_by)).map(toEnvironmentItem)
}

export async function getEnvironment(ctx: Ctx, id: string, actor: Actor): Promise<CloudEnvironment> {
  return toEnvironmentItem(await requireEnvironment(ctx.db, id, actor))
}

/** The environment, if the actor may see it; else `environment_not_found`, whether it exists or not. */
export async function requireEnvironment(db: Ctx['db'] | Tx, id: string, actor: Actor): Promise<EnvironmentRecord> {
  const environment = isUuid(id) ? await findEnvironment(db, actor, id) : undefined
  if (!environment) throw notFound(id)
  return environment
}

export async function createEnvironment(
  tx: Tx,
  { team, ...config }: CreateEnvironmentRequest,
  actor: Actor,
): Promise<CloudEnvironment> {
  checkEnvironmentConfig(config)
  const id = uuidv7()
  const scope = scopeFor(actor, team)
  await insertEnvironment(tx, { id, teamId: actor.teamId, scope, ...editorOf(actor), config: storableJson(config) })
  await audit(tx, actor, 'create', id)
  return toEnvironmentItem(await requireEnvironment(tx, id, actor))
}

/** Replaces the whole config; scope and creator stay. */
export async function replaceEnvironment(
  ctx: Ctx,
  id: string,
  config: CloudEnvironmentConfig,
  actor: Actor,
): Promise<CloudEnvironment> {
  checkEnvironmentConfig(config)
  return change(ctx, async (tx) => {
    const isChanged =
      isUuid(id) && (await updateEnvironmentConfig(tx, actor, { id, ...editorOf(actor), config: storableJson(config) }))
    if (!isChanged) throw notFound(id)
    await audit(tx, actor, 'update', id)
    return toEnvironmentItem(await requireEnvironment(tx, id, actor))
  })
}

export async function deleteEnvironment(ctx: Ctx, id: string, actor: Actor): Promise<void> {
  await change(ctx, async (tx) => {
    if (!isUuid(id) || !(await deleteEnvironmentRecord(tx, actor, id))) throw notFound(id)
    await audit(tx, actor, 'delete', id)
  })
}

/** Throws `environment_invalid` for what runs could only fail at, or leave out with a notice that nobody looks for. */
export function checkEnvironmentConfig({
  name,
  github_repos = [],
  source_repos = [],
  variables = {},
}: CloudEnvironmentConfig): void {
  if (name?.trim() === '') throw invalid('its name is empty')
  for (const url of [
    ...github_repos.map(({ owner, repo }) => `${owner}/${repo}`),
    ...source_repos.map(({ url }) => url),
  ])
    if (!addressForm(url)) throw invalid(`"${url.slice(0, 200)}" is no address of a repository (${addressForms})`)
  const reserved = Object.keys(variables).find(isReservedVariable)
  if (reserved !== undefined)
    throw invalid(`it cannot set ${reserved}; names that begin with OZ_, WARP_ or GIT_CONFIG are taken`)
}

function invalid(problem: string): AppError {
  return new AppError('environment_invalid', { problem })
}

function notFound(environmentId: string): AppError {
  return new AppError('environment_not_found', { environmentId: environmentId.slice(0, 100) })
}

function editorOf(actor: Actor): { byUser: string | null; byKey: string | null } {
  return { byUser: actor.userId, byKey: actor.kind === 'execution' ? null : actor.keyId }
}

async function audit(tx: Tx, actor: Actor, verb: 'create' | 'update' | 'delete', id: string): Promise<void> {
  await insertAuditEvent(tx, {
    teamId: actor.teamId,
    actor: actorLabel(actor),
    action: `environment.${verb}`,
    target: `environment:${id}`,
  })
}

function toEnvironmentItem(environment: EnvironmentRecord): CloudEnvironment {
  const { id, teamId, scope, config, setupFailed, creator, editor, updatedAt, lastRun, lastStartedAt } = environment
  return {
    uid: id,
    config,
    last_updated: updatedAt.toISOString(),
    setup_failed: setupFailed,
    creator: toPersonItem({ ...creator, teamId }),
    last_editor: toPersonItem({ ...editor, teamId }),
    ...(lastRun === null
      ? {}
      : {
          last_task_created: {
            id: lastRun.id,
            title: lastRun.title,
            state: lastRun.state,
            created_at: lastRun.createdAt.toISOString(),
            updated_at: lastRun.updatedAt.toISOString(),
            started_at: lastRun.startedAt?.toISOString() ?? null,
          },
        }),
    last_task_run_timestamp: lastStartedAt?.toISOString() ?? null,
    scope: toScopeItem(scope, { teamId, userId: creator.userId }),
  }
}
