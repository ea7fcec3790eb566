import { randomBytes } from 'node:crypto'
import { type ApiKey, AppError, type CreateApiKeyResponse } from '@openoz/protocol'
import type { createApiKeyRequest } from '@openoz/protocol/schemas'
import { v7 as uuidv7 } from 'uuid'
import type { z } from 'zod'
import {
  type ApiKeyRecord,
  insertApiKey,
  listApiKeys as listApiKeyRecords,
  updateApiKeyRevoked,
} from '../store/api-keys.ts'
import { insertAuditEvent } from '../store/audit-events.ts'
import type { Tx } from '../store/database.ts'
import { type Actor, actorLabel, hashSecret } from './actors.ts'
import { type Ctx, change } from './context.ts'
import { seesAllKeys } from './permissions.ts'

/** 256 random bits after the prefix that everyone knows. */
export function newApiKey(): string {
  return `wk-${randomBytes(32).toString('base64url')}`
}

export async function createApiKey(
  tx: Tx,
  request: z.output<typeof createApiKeyRequest>,
  actor: Actor,
): Promise<CreateApiKeyResponse> {
  if (request.worker_id !== undefined && request.scope !== 'worker')
    throw new AppError('invalid_request', { problem: 'worker_id is only for keys of scope worker.' })
  if (request.worker_id === undefined && request.scope === 'worker')
    throw new AppError('invalid_request', {
      problem: 'A key of scope worker needs worker_id (--worker-id): the one worker that it may connect as.',
    })
  if (request.scope !== 'user' && !(actor.kind === 'user' && actor.role !== 'member'))
    throw new AppError('not_authorized', {
      actor: `${actor.kind === 'user' ? `The ${actor.role}’s key ${actor.keyName}` : 'This key'}`,
      action: `make keys of scope ${request.scope}`,
    })
  const rawKey = newApiKey()
  const key = await insertApiKey(tx, {
    id: uuidv7(),
    teamId: actor.teamId,
    userId: actor.userId,
    name: request.name,
    scope: request.scope,
    workerId: request.worker_id ?? null,
    keyHash: hashSecret(rawKey),
    keySuffix: rawKey.slice(-4),
    expiresAt: request.expires_at === undefined ? null : new Date(request.expires_at),
  })
  if (!key) throw new Error('a new random key existed already')
  await insertAuditEvent(tx, {
    teamId: actor.teamId,
    actor: actorLabel(actor),
    action: 'api-key.create',
    target: `api-key:${key.id}`,
    data: { name: key.name, scope: key.scope },
  })
  return { raw_api_key: rawKey, api_key: toApiKeyItem(key) }
}

export async function listApiKeys(ctx: Ctx, actor: Actor): Promise<ApiKey[]> {
  const keys = await listApiKeyRecords(ctx.db, { ...actor, seesAll: seesAllKeys(actor) })
  return keys.map(toApiKeyItem)
}

/** Ends a key at once. */
export async function expireApiKey(ctx: Ctx, uidOrName: string, actor: Actor): Promise<string> {
  return change(ctx, async (tx) => {
    const key = await updateApiKeyRevoked(tx, { ...actor, seesAll: seesAllKeys(actor) }, uidOrName)
    if (!key) throw new AppError('api_key_not_found', { apiKeyId: uidOrName })
    await insertAuditEvent(tx, {
      teamId: actor.teamId,
      actor: actorLabel(actor),
      action: 'api-key.expire',
      target: `api-key:${key.id}`,
      data: { name: key.name },
    })
    return key.id
  })
}

function toApiKeyItem(key: ApiKeyRecord): ApiKey {
  return {
    uid: key.id,
    name: key.name,
    scope: key.scope,
    key_suffix: key.keySuffix,
    worker_id: key.workerId,
    created_at: key.createdAt.toISOString(),
    last_used_at: key.lastUsedAt?.toISOString() ?? null,
    expires_at: key.expiresAt?.toISOString() ?? null,
  }
}
