import { createHash, randomUUID } from 'node:crypto'
import type { ControlPlane } from './control-plane.ts'

/** There is no front door for people yet: they are written as the store would. */

export type Role = 'owner' | 'admin' | 'member'

export async function addMember(
  cp: ControlPlane,
  role: Role,
  teamId?: string,
): Promise<{ userId: string; teamId: string; key: string }> {
  const userId = randomUUID()
  const key = `wk-${randomUUID()}`
  const [team] = await cp.db.query<{ id: string }>('select id from teams order by created_at limit 1')
  const theirTeam = teamId ?? team?.id ?? ''
  await cp.db.query('insert into users (id, name, email) values ($1, $2, $3)', [userId, role, `${userId}@example.test`])
  await cp.db.query('insert into members (id, team_id, user_id, role) values ($1, $2, $3, $4)', [
    randomUUID(),
    theirTeam,
    userId,
    role,
  ])
  await cp.db.query(
    `insert into api_keys (id, team_id, user_id, name, scope, key_hash, key_suffix)
     values ($1, $2, $3, $4, 'user', $5, $6)`,
    [randomUUID(), theirTeam, userId, `key of a ${role}`, createHash('sha256').update(key).digest(), key.slice(-4)],
  )
  return { userId, teamId: theirTeam, key }
}

export async function addTeam(
  cp: ControlPlane,
  slug: string,
): Promise<{ userId: string; teamId: string; key: string }> {
  const teamId = randomUUID()
  await cp.db.query('insert into teams (id, name, slug) values ($1, $2, $2)', [teamId, slug])
  return addMember(cp, 'owner', teamId)
}
