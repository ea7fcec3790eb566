import { createHash, randomBytes } from 'node:crypto'
import { AppError } from '@openoz/protocol'
import { findApiKeyByHash, updateApiKeyUsed } from '../store/api-keys.ts'
import type { Database } from '../store/database.ts'
import { findExecutionByToken } from '../store/executions.ts'
import type { Role } from '../store/people.ts'
import type { Ctx } from './context.ts'

/** Who is asking. Every request has exactly one, found from its key or token. */
export type Actor =
  | { kind: 'user'; keyId: string; keyName: string; teamId: string; userId: string; userName: string; role: Role }
  | { kind: 'team'; keyId: string; keyName: string; teamId: string; userId: null }
  | { kind: 'worker'; keyId: string; keyName: string; teamId: string; userId: null; workerId: string | null }
  | ExecutionActor

export interface ExecutionActor {
  kind: 'execution'
  teamId: string
  userId: null
  executionId: string
  runId: string
  /** Null while it lives; else for how long it has been over. */
  overForSeconds: number | null
}

/** Prefix of execution tokens. They begin like keys, since the reference client adds `wk-` to anything that does not. */
export const executionTokenPrefix = 'wk-exec-'

/** 256 random bits; the database gets the hash only. */
export function newExecutionToken(): string {
  return executionTokenPrefix + randomBytes(32).toString('base64url')
}

export function hashSecret(secret: string): Buffer {
  return createHash('sha256').update(secret).digest()
}

/** Finds the actor of a key or token, or says what is wrong with it. */
export async function authenticate(ctx: Pick<Ctx, 'db' | 'config'>, token: string | undefined): Promise<Actor> {
  if (token === undefined || token === '') throw new AppError('api_key_missing')
  return token.startsWith(executionTokenPrefix) ? authenticateExecution(ctx, token) : authenticateKey(ctx.db, token)
}

/** The same for a token that is no execution's. */
export async function authenticateKey(db: Database, token: string): Promise<Actor> {
  const key = await findApiKeyByHash(db, hashSecret(token))
  if (!key) throw new AppError('api_key_unknown', { suffix: token.slice(-4) })
  if (key.revokedAt) throw new AppError('api_key_revoked', { name: key.name, revokedAt: key.revokedAt.toISOString() })
  if (key.isExpired) throw new AppError('api_key_expired', { name: key.name, expiresAt: key.expiresAt?.toISOString() })
  if (key.wantsTouch) await updateApiKeyUsed(db, key.id)

  const common = { keyId: key.id, keyName: key.name, teamId: key.teamId }
  switch (key.scope) {
    case 'team':
      return { ...common, kind: 'team', userId: null }
    case 'worker':
      return { ...common, kind: 'worker', userId: null, workerId: key.workerId }
    case 'user':
      // The person left the team: their keys went with the membership.
      if (key.userId === null || key.role === null)
        throw new AppError('not_authorized', { actor: `The key ${key.name}`, action: 'act for a team it has left' })
      return { ...common, kind: 'user', userId: key.userId, userName: key.userName ?? key.name, role: key.role }
    default:
      return key.scope satisfies never
  }
}

async function authenticateExecution(ctx: Pick<Ctx, 'db' | 'config'>, token: string): Promise<ExecutionActor> {
  const execution = await findExecutionByToken(ctx.db, hashSecret(token), {
    lateSeconds: ctx.config.lease.lateMs / 1000,
    outageSeconds: ctx.config.lease.outageMs / 1000,
  })
  if (!execution) throw new AppError('api_key_unknown', { suffix: token.slice(-4) })
  // It may not even add evidence any more.
  if (execution.isTooLate) throw new AppError('execution_token_ended', { executionId: execution.id })
  const { overForSeconds } = execution
  return {
    kind: 'execution',
    teamId: execution.teamId,
    userId: null,
    executionId: execution.id,
    runId: execution.runId,
    overForSeconds,
  }
}

/** How the actor is called in audit events and messages. */
export function actorLabel(actor: Actor): string {
  switch (actor.kind) {
    case 'user':
      return `user:${actor.userId}`
    case 'team':
    case 'worker':
      return `key:${actor.keyId}`
    case 'execution':
      return `execution:${actor.executionId}`
    default:
      return actor satisfies never
  }
}

/** How the actor is called before people: as the author of a message. */
export function actorName(actor: Actor): string {
  if (actor.kind === 'user') return actor.userName
  return actor.kind === 'execution' ? `execution ${actor.executionId}` : actor.keyName
}
