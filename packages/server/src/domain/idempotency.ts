import { createHash } from 'node:crypto'
import { AppError } from '@openoz/protocol'
import {
  claimIdempotencyKey,
  type IdempotencyScope,
  replaceIdempotencyKey,
  updateIdempotencyAnswer,
} from '../store/idempotency-keys.ts'
import { type Ctx, change } from './context.ts'
import type { Hint } from './turns.ts'

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

/**
 * Does `work` once per idempotency key: a repeated request gets the first one's answer. The answer is stored in the transaction that does the
 * work, so there is no moment at which one exists without the other.
 *
 * The published SDKs send no key but retry 409, 429 and 5xx: their retry is recognised by owner, route and body. Two first tries with the same
 * body are two requests.
 */
export async function doOnce(
  ctx: Ctx,
  request: RequestIdentity & { owner: string; route: string },
  work: (tx: Parameters<Parameters<typeof change>[1]>[0], hint: Hint) => Promise<Answer>,
): Promise<Answer> {
  const bodyHash = createHash('sha256').update(request.body).digest()
  const isSdk = request.key === undefined && request.sdkRetryCount !== undefined
  if (request.key === undefined && !isSdk) return change(ctx, work)

  const scope: IdempotencyScope = {
    owner: request.owner,
    route: request.route,
    key: request.key ?? `sdk ${bodyHash.toString('base64url')}`,
  }
  return change(ctx, async (tx, hint) => {
    const isFirstTry = isSdk && request.sdkRetryCount === 0
    if (isFirstTry) await replaceIdempotencyKey(tx, scope, bodyHash)
    const earlier = isFirstTry
      ? undefined
      : await claimIdempotencyKey(tx, scope, bodyHash, isSdk ? sdkRetrySeconds : keySeconds)
    if (earlier) {
      if (!earlier.bodyHash.equals(bodyHash)) throw new AppError('idempotency_key_reused', { key: scope.key })
      return { status: earlier.status === 201 ? 201 : 200, body: earlier.body }
    }
    const answer = await work(tx, hint)
    await updateIdempotencyAnswer(tx, scope, answer)
    return answer
  })
}
