import type { ApiKeyScope } from '@openoz/protocol'
import type { Queryable, Tx } from './database.ts'
import type { Role } from './people.ts'

export interface ApiKeyRecord {
  id: string
  teamId: string
  userId: string | null
  name: string
  scope: ApiKeyScope
  workerId: string | null
  keySuffix: string
  createdAt: Date
  lastUsedAt: Date | null
  expiresAt: Date | null
  revokedAt: Date | null
}

interface ApiKeyRow {
  id: string
  team_id: string
  user_id: string | null
  name: string
  scope: ApiKeyScope
  worker_id: string | null
  key_suffix: string
  created_at: Date
  last_used_at: Date | null
  expires_at: Date | null
  revoked_at: Date | null
}

const toApiKey = (row: ApiKeyRow): ApiKeyRecord => ({
  id: row.id,
  teamId: row.team_id,
  userId: row.user_id,
  name: row.name,
  scope: row.scope,
  workerId: row.worker_id,
  keySuffix: row.key_suffix,
  createdAt: row.created_at,
  lastUsedAt: row.last_used_at,
  expiresAt: row.expires_at,
  revokedAt: row.revoked_at,
})

export interface NewApiKey {
  id: string
  teamId: string
  userId: string | null
  name: string
  scope: ApiKeyScope
  workerId: string | null
  keyHash: Buffer
  keySuffix: string
  expiresAt: Date | null
}

/** Answers undefined when this very key exists already. */
export async function insertApiKey(tx: Tx, key: NewApiKey): Promise<ApiKeyRecord | undefined> {
  const { rows } = await tx.query<ApiKeyRow>(
    `insert into api_keys (id, team_id, user_id, name, scope, worker_id, key_hash, key_suffix, expires_at)
     values ($1, $2, $3, $4, $5, $6, $7, $8, $9)
     on conflict (key_hash) do nothing returning *`,
    [key.id, key.teamId, key.userId, key.name, key.scope, key.workerId, key.keyHash, key.keySuffix, key.expiresAt],
  )
  return rows[0] && toApiKey(rows[0])
}

/** The key with this hash, with role and name of its person, and whether its time is over on the database's clock. */
export async function findApiKeyByHash(
  db: Queryable,
  keyHash: Buffer,
): Promise<
  (ApiKeyRecord & { role: Role | null; userName: string | null; isExpired: boolean; wantsTouch: boolean }) | undefined
> {
  const { rows } = await db.query<
    ApiKeyRow & { role: Role | null; user_name: string | null; is_expired: boolean; wants_touch: boolean }
  >(
    `select api_keys.*, members.role, users.name as user_name,
            coalesce(expires_at <= db_now(), false) as is_expired,
            coalesce(last_used_at < db_now() - interval '1 minute', true) as wants_touch
       from api_keys
       left join members on members.user_id = api_keys.user_id and members.team_id = api_keys.team_id
       left join users on users.id = api_keys.user_id
      where key_hash = $1`,
    [keyHash],
  )
  const row = rows[0]
  return (
    row && {
      ...toApiKey(row),
      role: row.role,
      userName: row.user_name,
      isExpired: row.is_expired,
      wantsTouch: row.wants_touch,
    }
  )
}

/** Hashes of the keys that connect as this worker id and are good now. Whoever asks in the same moment for the same id waits. */
export async function listWorkerKeyHashes(
  tx: Tx,
  { teamId, workerId }: { teamId: string; workerId: string },
): Promise<Buffer[]> {
  await tx.query('select pg_advisory_xact_lock(hashtextextended($1, 0))', [`worker-keys ${teamId} ${workerId}`])
  const { rows } = await tx.query<{ key_hash: Buffer }>(
    `select key_hash from api_keys
      where team_id = $1 and scope = 'worker' and worker_id = $2
        and revoked_at is null and (expires_at is null or expires_at > db_now())`,
    [teamId, workerId],
  )
  return rows.map((row) => row.key_hash)
}

/** Which of these keys are revoked or expired. */
export async function listUnusableKeys(db: Queryable, keyIds: string[]): Promise<string[]> {
  const { rows } = await db.query<{ id: string }>(
    'select id from api_keys where id = any($1) and (revoked_at is not null or expires_at <= db_now())',
    [keyIds],
  )
  return rows.map((row) => row.id)
}

/** At most once a minute per key, so that a busy key is not a busy row. */
export async function updateApiKeyUsed(db: Queryable, keyId: string): Promise<void> {
  await db.query('update api_keys set last_used_at = db_now() where id = $1', [keyId])
}

export async function listApiKeys(
  db: Queryable,
  viewer: { teamId: string; userId: string | null; seesAll: boolean },
): Promise<ApiKeyRecord[]> {
  const { rows } = await db.query<ApiKeyRow>(
    `select * from api_keys
      where team_id = $1 and revoked_at is null and ($3 or user_id = $2)
      order by created_at, id`,
    [viewer.teamId, viewer.userId, viewer.seesAll],
  )
  return rows.map(toApiKey)
}

/** Revokes by uid or by name, within what the viewer may see. */
export async function updateApiKeyRevoked(
  tx: Tx,
  viewer: { teamId: string; userId: string | null; seesAll: boolean },
  uidOrName: string,
): Promise<ApiKeyRecord | undefined> {
  const { rows } = await tx.query<ApiKeyRow>(
    `update api_keys set revoked_at = db_now()
      where id = (select id from api_keys
                   where team_id = $1 and revoked_at is null and ($3 or user_id = $2) and $4 in (id::text, name)
                   order by created_at limit 1)
      returning *`,
    [viewer.teamId, viewer.userId, viewer.seesAll, uidOrName],
  )
  return rows[0] && toApiKey(rows[0])
}

/** Revokes by id, whoever asks. One that is revoked stays as it is. */
export async function updateApiKeyEnded(tx: Tx, keyId: string): Promise<void> {
  await tx.query('update api_keys set revoked_at = db_now() where id = $1 and revoked_at is null', [keyId])
}
