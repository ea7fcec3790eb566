import type { Queryable, Tx } from './database.ts'

export interface IdempotencyScope {
  owner: string
  route: string
  key: string
}

export interface EarlierAnswer {
  bodyHash: Buffer
  status: number
  body: unknown
}

/**
 * Claims the key for this transaction, or answers what the first request got. A second request with the key waits at the unique index until the
 * first one's transaction ends, so it never sees an unanswered row of a live one.
 */
export async function claimIdempotencyKey(
  tx: Tx,
  scope: IdempotencyScope,
  bodyHash: Buffer,
  maxAgeSeconds: number,
): Promise<EarlierAnswer | undefined> {
  await tx.query(
    `delete from idempotency_keys
      where owner = $1 and route = $2 and key = $3 and created_at < db_now() - make_interval(secs => $4)`,
    [scope.owner, scope.route, scope.key, maxAgeSeconds],
  )
  const { rowCount } = await tx.query(
    'insert into idempotency_keys (owner, route, key, body_hash) values ($1, $2, $3, $4) on conflict do nothing',
    [scope.owner, scope.route, scope.key, bodyHash],
  )
  if (rowCount === 1) return undefined
  const { rows } = await tx.query<{ body_hash: Buffer; status: number; body: unknown }>(
    'select body_hash, status, body from idempotency_keys where owner = $1 and route = $2 and key = $3',
    [scope.owner, scope.route, scope.key],
  )
  const row = rows[0]
  return row && { bodyHash: row.body_hash, status: row.status, body: row.body }
}

/** What the first request with the key got, if its transaction has ended. Locks nothing. */
export async function findIdempotencyAnswer(
  db: Queryable,
  scope: IdempotencyScope,
  maxAgeSeconds: number,
): Promise<EarlierAnswer | undefined> {
  const { rows } = await db.query<{ body_hash: Buffer; status: number; body: unknown }>(
    `select body_hash, status, body from idempotency_keys
      where owner = $1 and route = $2 and key = $3 and created_at >= db_now() - make_interval(secs => $4)`,
    [scope.owner, scope.route, scope.key, maxAgeSeconds],
  )
  const row = rows[0]
  return row && { bodyHash: row.body_hash, status: row.status, body: row.body }
}

/** Makes the key this transaction's own, whoever had it: what was answered before under it is forgotten. */
export async function replaceIdempotencyKey(tx: Tx, scope: IdempotencyScope, bodyHash: Buffer): Promise<void> {
  await tx.query(
    `insert into idempotency_keys (owner, route, key, body_hash) values ($1, $2, $3, $4)
     on conflict (owner, route, key)
     do update set body_hash = excluded.body_hash, status = null, body = null, created_at = db_now()`,
    [scope.owner, scope.route, scope.key, bodyHash],
  )
}

export async function updateIdempotencyAnswer(
  tx: Tx,
  scope: IdempotencyScope,
  answer: { status: number; body: unknown },
): Promise<void> {
  await tx.query('update idempotency_keys set status = $4, body = $5 where owner = $1 and route = $2 and key = $3', [
    scope.owner,
    scope.route,
    scope.key,
    answer.status,
    JSON.stringify(answer.body),
  ])
}

export async function deleteOldIdempotencyKeys(db: Queryable, maxAgeSeconds: number): Promise<void> {
  await db.query('delete from idempotency_keys where created_at < db_now() - make_interval(secs => $1)', [
    maxAgeSeconds,
  ])
}
