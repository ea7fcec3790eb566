import { createHash } from 'node:crypto'
import { AppError } from '@openoz/protocol'
import type { Tx } from '../store/database.ts'
import {
  claimIdempotencyKey,
  type EarlierAnswer,
  findIdempotencyAnswer,
  type IdempotencyScope,
  replaceIdempotencyKey,
  updateIdempotencyAnswer,
} from '../store/idempotency-keys.ts'
import { type Ctx, change, type Hint } from './context.ts'

const keySeconds = 24 * 3600

/** The published SDKs retry for at most some seconds; 10 minutes covers a slow one. */
const sdkRetrySeconds = 600

/** How a creating request names itself, if it does. */
export interface RequestIdentity {
  /** `Idempotency-Key`. */
  key: string | undefined
  /** `X-Stainless-Retry-Count`: present on every request of the published SDKs, above 0 on their retries. */
  sdkRetryCount: number | undefined
  body: string
}

export interface Answer {
  status: 200 | 201
  body: unknown
}

/** What a creating request does, in two steps. */
interface Work<Plan> {
  /** What can be decided, and refused, before the transaction. A repeated request is answered without it: what it asks may have changed. */
  plan: () => Promise<Plan>
  /** `kept` is stored for repeated requests instead of the body, when that must not be. */
  act: (tx: Tx, hint: Hint, plan: Plan) => Promise<Answer & { kept?: unknown }>
}

/**
 * Does the work once per idempotency key: a repeated request gets the first one's answer. The answer is stored in the transaction that does the
 * work, so there is no moment at which one exists without the other.
 *
 * The published SDKs send no key but retry 409, 429 and 5xx: their retry is recognised by owner, route and body. Two first tries with the same
 * body are two requests.
 */
export async function doOnce<Plan>(
  ctx: Ctx,
  request: RequestIdentity & { owner: string; route: string },
  { plan, act }: Work<Plan>,
): Promise<Answer & { isRepeated: boolean }> {
  const isSdk = request.key === undefined && request.sdkRetryCount !== undefined
  const isFirstTry = isSdk && request.sdkRetryCount === 0
  const isNamed = request.key !== undefined || isSdk
  // A body may have many megabytes of attachments.
  const bodyHash = isNamed ? createHash('sha256').update(request.body).digest() : Buffer.alloc(0)
  const scope: IdempotencyScope = {
    owner: request.owner,
    route: request.route,
    key: request.key ?? `sdk ${bodyHash.toString('base64url')}`,
  }
  const maxAge = isSdk ? sdkRetrySeconds : keySeconds
  const repeat = (earlier: EarlierAnswer) => {
    if (!earlier.bodyHash.equals(bodyHash)) throw new AppError('idempotency_key_reused', { key: scope.key })
    return { status: earlier.status === 201 ? (201 as const) : (200 as const), body: earlier.body, isRepeated: true }
  }

  if (isNamed && !isFirstTry) {
    const earlier = await findIdempotencyAnswer(ctx.db, scope, maxAge)
    if (earlier) return repeat(earlier)
  }
  const planned = await plan()
  return change(ctx, async (tx, hint) => {
    if (isFirstTry) await replaceIdempotencyKey(tx, scope, bodyHash)
    else if (isNamed) {
      const earlier = await claimIdempotencyKey(tx, scope, bodyHash, maxAge)
      if (earlier) return repeat(earlier)
    }
    const { kept, ...answer } = await act(tx, hint, planned)
    if (isNamed) await updateIdempotencyAnswer(tx, scope, { status: answer.status, body: kept ?? answer.body })
    return { ...answer, isRepeated: false }
  })
}
