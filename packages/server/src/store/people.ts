import type { Queryable, Tx } from './database.ts'

export type Role = 'owner' | 'admin' | 'member'

export interface TeamRecord {
  id: string
  wireId: number
  name: string
}

export interface UserRecord {
  id: string
  wireId: number
  name: string
  email: string
}

export async function insertUser(tx: Tx, user: { id: string; name: string; email: string }): Promise<void> {
  await tx.query('insert into users (id, name, email) values ($1, $2, $3)', [user.id, user.name, user.email])
}

export async function insertTeam(tx: Tx, team: { id: string; name: string; slug: string }): Promise<void> {
  await tx.query('insert into teams (id, name, slug) values ($1, $2, $3)', [team.id, team.name, team.slug])
}

export async function insertMember(
  tx: Tx,
  member: { id: string; teamId: string; userId: string; role: Role },
): Promise<void> {
  await tx.query('insert into members (id, team_id, user_id, role) values ($1, $2, $3, $4)', [
    member.id,
    member.teamId,
    member.userId,
    member.role,
  ])
}

/** The owner and the team that the first start made; undefined before it. */
export async function findFirstOwner(db: Queryable): Promise<{ userId: string; teamId: string } | undefined> {
  const { rows } = await db.query<{ user_id: string; team_id: string }>(
    `select user_id, team_id from members where role = 'owner' order by created_at limit 1`,
  )
  return rows[0] && { userId: rows[0].user_id, teamId: rows[0].team_id }
}

export async function findTeam(db: Queryable, teamId: string): Promise<TeamRecord | undefined> {
  const { rows } = await db.query<{ id: string; wire_id: number; name: string }>('select * from teams where id = $1', [
    teamId,
  ])
  return rows[0] && { id: rows[0].id, wireId: rows[0].wire_id, name: rows[0].name }
}

export async function findUser(db: Queryable, userId: string): Promise<UserRecord | undefined> {
  const { rows } = await db.query<{ id: string; wire_id: number; name: string; email: string }>(
    'select * from users where id = $1',
    [userId],
  )
  return rows[0] && { id: rows[0].id, wireId: rows[0].wire_id, name: rows[0].name, email: rows[0].email }
}
