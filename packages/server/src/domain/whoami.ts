import type { Whoami } from '@openoz/protocol'
import { findTeam, findUser } from '../store/people.ts'
import type { Actor } from './actors.ts'
import type { Ctx } from './context.ts'

export async function describeActor(ctx: Ctx, actor: Actor): Promise<Whoami> {
  const team = await findTeam(ctx.db, actor.teamId)
  const teams = {
    team_uids: team ? [team.id] : [],
    team_names: team ? [team.name] : [],
    workspace_uid: team?.id ?? null,
    workspace_name: team?.name ?? null,
  }
  if (actor.kind === 'user') {
    const user = await findUser(ctx.db, actor.userId)
    return {
      uid: actor.userId,
      type: 'user',
      display_name: user?.name ?? '',
      email: user?.email ?? null,
      key_scope: 'user',
      ...teams,
    }
  }
  const isExecution = actor.kind === 'execution'
  return {
    uid: isExecution ? actor.executionId : actor.keyId,
    type: 'service_account',
    display_name: isExecution ? `execution ${actor.executionId}` : actor.keyName,
    email: null,
    key_scope: actor.kind,
    ...teams,
  }
}
