import { randomBytes } from 'node:crypto'
import {
  AppError,
  type CheckJoinTokenResponse,
  type CreateJoinTokenResponse,
  type JoinWorkerResponse,
} from '@openoz/protocol'
import type { createJoinTokenRequest, joinWorkerRequest } from '@openoz/protocol/schemas'
import { v7 as uuidv7 } from 'uuid'
import type { z } from 'zod'
import { insertApiKey, listWorkerKeyHashes, updateApiKeyEnded } from '../store/api-keys.ts'
import { insertAuditEvent } from '../store/audit-events.ts'
import type { Tx } from '../store/database.ts'
import {
  findJoinToken,
  findJoinTokenForUpdate,
  insertJoinToken,
  type JoinTokenRecord,
  updateJoinTokenUsed,
} from '../store/join-tokens.ts'
import { type Actor, actorLabel, hashSecret } from './actors.ts'
import { newApiKey } from './api-keys.ts'
import { type Ctx, change } from './context.ts'
import { storableText } from './session-log.ts'
import { requireWorkerId } from './worker-drains.ts'

/**
 * A join token turns a machine that has nothing into a worker. Its life: made by an administrator → (checked, any number of times, which spends
 * nothing) → redeemed once, for a key that connects as one worker id. An answer that is lost would leave the machine without a key and the token spent:
 * whoever redeems names a number of its own, and with that number is answered again for a while, by a new key in place of the one that got lost.
 */

/** Everybody knows them by it: a key in its place, or the other way round, is noticed before it is sent anywhere. */
const prefix = 'jt-'

/** A machine that lost the answer asks again at once; an installer that was started anew has another number. */
const answeredAgainSeconds = 10 * 60

export async function createJoinToken(
  ctx: Ctx,
  request: z.output<typeof createJoinTokenRequest>,
  actor: Actor,
): Promise<CreateJoinTokenResponse> {
  const workerId = request.worker_id === undefined ? null : requireWorkerId(request.worker_id)
  const token = `${prefix}${randomBytes(32).toString('base64url')}`
  return change(ctx, async (tx) => {
    const id = uuidv7()
    const expiresAt = await insertJoinToken(tx, {
      id,
      teamId: actor.teamId,
      createdBy: actor.userId,
      workerId,
      tokenHash: hashSecret(token),
      goodForMinutes: request.expires_in_minutes,
    })
    await insertAuditEvent(tx, {
      teamId: actor.teamId,
      actor: actorLabel(actor),
      action: 'join-token.create',
      target: `join-token:${id}`,
      data: { worker_id: workerId, expires_at: expiresAt.toISOString() },
    })
    return { token, expires_at: expiresAt.toISOString() }
  })
}

/** Throws `join_token_invalid` when there is none like it. */
export async function assertJoinToken(ctx: Pick<Ctx, 'db'>, token: string | undefined): Promise<void> {
  if (token === undefined) throw new AppError('join_token_invalid')
  requireToken(await findJoinToken(ctx.db, hashSecret(token)))
}

/** Throws `join_token_invalid`, `join_token_used` or `join_token_expired` when it cannot be redeemed. */
export async function checkJoinToken(ctx: Ctx, token: string): Promise<CheckJoinTokenResponse> {
  const found = requireToken(await findJoinToken(ctx.db, hashSecret(token)))
  assertUnused(found)
  return { worker_id: found.workerId, expires_at: found.expiresAt.toISOString() }
}

/**
 * Throws the same, `join_token_other_worker`, and `worker_id_taken`: whoever has a token for any worker is not to get the runs of one that is there, by its
 * name, and machines that were copied have one name. A token for that worker says that it is meant; a key of it, that it is the same machine.
 */
export async function redeemJoinToken(
  ctx: Ctx,
  token: string,
  request: z.output<typeof joinWorkerRequest>,
): Promise<JoinWorkerResponse> {
  const workerId = requireWorkerId(request.worker_id)
  const nonce = Buffer.from(request.nonce, 'hex')
  return change(ctx, async (tx) => {
    const found = requireToken(await findJoinTokenForUpdate(tx, hashSecret(token)))
    const isAskedAgain = found.usedNonce?.equals(nonce) && (found.usedForSeconds ?? 0) < answeredAgainSeconds
    if (!isAskedAgain) assertUnused(found)
    if (found.workerId !== null && found.workerId !== workerId)
      throw new AppError('join_token_other_worker', { allowed: found.workerId, workerId })
    if (found.apiKeyId !== null) await updateApiKeyEnded(tx, found.apiKeyId)
    const own = request.worker_key === undefined ? undefined : hashSecret(request.worker_key)
    const others = await listWorkerKeyHashes(tx, { teamId: found.teamId, workerId })
    if (found.workerId === null && others.length > 0 && !others.some((hash) => own?.equals(hash)))
      throw new AppError('worker_id_taken', { workerId })
    const { id, secret } = await insertWorkerKey(tx, found, { workerId, host: storableText(request.host) })
    await updateJoinTokenUsed(tx, found.id, { nonce, apiKeyId: id })
    await insertAuditEvent(tx, {
      teamId: found.teamId,
      actor: `join-token:${found.id}`,
      action: 'worker.join',
      target: `api-key:${id}`,
      data: { worker_id: workerId, host: storableText(request.host), platform: storableText(request.platform) },
    })
    return { api_key: secret, key_id: id, worker_id: workerId }
  })
}

/** The key that asks opens nothing any more. */
export async function leaveAsWorker(ctx: Ctx, actor: Actor): Promise<void> {
  if (actor.kind !== 'worker') throw new Error(`${actor.kind} is no worker`)
  await change(ctx, async (tx) => {
    await updateApiKeyEnded(tx, actor.keyId)
    await insertAuditEvent(tx, {
      teamId: actor.teamId,
      actor: actorLabel(actor),
      action: 'worker.leave',
      target: `api-key:${actor.keyId}`,
      data: { worker_id: actor.workerId },
    })
  })
}

/** A token of somebody who administers the team no more is none, as their keys are. */
function requireToken(found: JoinTokenRecord | undefined): JoinTokenRecord {
  if (!found?.isBacked) throw new AppError('join_token_invalid')
  return found
}

function assertUnused({ usedAt, isExpired, expiresAt }: JoinTokenRecord): void {
  if (usedAt !== null) throw new AppError('join_token_used', { usedAt: usedAt.toISOString() })
  if (isExpired) throw new AppError('join_token_expired', { expiresAt: expiresAt.toISOString() })
}

async function insertWorkerKey(
  tx: Tx,
  { teamId, createdBy }: JoinTokenRecord,
  { workerId, host }: { workerId: string; host: string },
): Promise<{ id: string; secret: string }> {
  const secret = newApiKey()
  const id = uuidv7()
  const key = await insertApiKey(tx, {
    id,
    teamId,
    userId: createdBy,
    name: `joined from ${host || 'a machine'}: ${workerId}`.slice(0, 255),
    scope: 'worker',
    workerId,
    keyHash: hashSecret(secret),
    keySuffix: secret.slice(-4),
    expiresAt: null,
  })
  if (!key) throw new Error('a new random key existed already')
  return { id, secret }
}
