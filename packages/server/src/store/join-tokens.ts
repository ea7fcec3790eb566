import type { Queryable, Tx } from './database.ts'

export interface JoinTokenRecord {
  id: string
  teamId: string
  createdBy: string | null
  workerId: string | null
  createdAt: Date
  expiresAt: Date
  usedAt: Date | null
  usedNonce: Buffer | null
  apiKeyId: string | null
  /** On the database's clock. */
  isExpired: boolean
  /** How long ago it was redeemed. */
  usedForSeconds: number | null
  /** Whoever made it still administers the team. */
  isBacked: boolean
}

interface JoinTokenRow {
  id: string
  team_id: string
  created_by: string | null
  worker_id: string | null
  created_at: Date
  expires_at: Date
  used_at: Date | null
  used_nonce: Buffer | null
  api_key_id: string | null
  is_expired: boolean
  used_for_seconds: number | null
  is_backed: boolean
}

const toJoinToken = (row: JoinTokenRow): JoinTokenRecord => ({
  id: row.id,
  teamId: row.team_id,
  createdBy: row.created_by,
  workerId: row.worker_id,
  createdAt: row.created_at,
  expiresAt: row.expires_at,
  usedAt: row.used_at,
  usedNonce: row.used_nonce,
  apiKeyId: row.api_key_id,
  isExpired: row.is_expired,
  usedForSeconds: row.used_for_seconds,
  isBacked: row.is_backed,
})

/** Answers until when it is good. */
export async function insertJoinToken(
  tx: Tx,
  token: {
    id: string
    teamId: string
    createdBy: string | null
    workerId: string | null
    tokenHash: Buffer
    goodForMinutes: number
  },
): Promise<Date> {
  const { rows } = await tx.query<{ expires_at: Date }>(
    `insert into join_tokens (id, team_id, created_by, worker_id, token_hash, expires_at)
     values ($1, $2, $3, $4, $5, db_now() + make_interval(mins => $6))
     returning expires_at`,
    [token.id, token.teamId, token.createdBy, token.workerId, token.tokenHash, token.goodForMinutes],
  )
  const [row] = rows
  if (!row) throw new Error('a new join token was not stored')
  return row.expires_at
}

export async function findJoinToken(db: Queryable, tokenHash: Buffer): Promise<JoinTokenRecord | undefined> {
  const { rows } = await db.query<JoinTokenRow>(select, [tokenHash])
  return rows[0] && toJoinToken(rows[0])
}

/** Two machines with the same token come one after the other. */
export async function findJoinTokenForUpdate(tx: Tx, tokenHash: Buffer): Promise<JoinTokenRecord | undefined> {
  const { rows } = await tx.query<JoinTokenRow>(`${select} for update of join_tokens`, [tokenHash])
  return rows[0] && toJoinToken(rows[0])
}

const select = `select join_tokens.*,
       expires_at <= db_now() as is_expired,
       extract(epoch from db_now() - used_at)::float8 as used_for_seconds,
       created_by is null or exists (select from members
          where members.user_id = created_by and members.team_id = join_tokens.team_id
            and role in ('admin', 'owner')) as is_backed
  from join_tokens where token_hash = $1`

/** The first time it was used stays. */
export async function updateJoinTokenUsed(
  tx: Tx,
  tokenId: string,
  { nonce, apiKeyId }: { nonce: Buffer; apiKeyId: string },
): Promise<void> {
  await tx.query(
    'update join_tokens set used_at = coalesce(used_at, db_now()), used_nonce = $2, api_key_id = $3 where id = $1',
    [tokenId, nonce, apiKeyId],
  )
}

export async function deleteOldJoinTokens(db: Queryable, expiredForSeconds: number): Promise<void> {
  await db.query('delete from join_tokens where expires_at < db_now() - make_interval(secs => $1)', [expiredForSeconds])
}
