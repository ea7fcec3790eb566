import { AppError } from '@openoz/protocol'
import type { Context } from 'hono'
import type { RequestIdentity } from '../domain/idempotency.ts'

const maxKeyLength = 255

/** How a creating request names itself: `Idempotency-Key`, or the retry counter of the published SDKs. */
export async function requestIdentity(c: Context): Promise<RequestIdentity> {
  return { ...requestName(c), body: await c.req.text() }
}

/** The same where the body is a stream. */
export function requestName(c: Context): Omit<RequestIdentity, 'body'> {
  const retryCount = c.req.header('x-stainless-retry-count')
  const key = c.req.header('idempotency-key')
  // Cut, two different keys could become the same one.
  if (key !== undefined && key.length > maxKeyLength)
    throw new AppError('invalid_request', {
      problem: `The Idempotency-Key has ${key.length} characters; at most ${maxKeyLength} are taken.`,
    })
  return {
    // An empty one names nothing.
    key: key || undefined,
    sdkRetryCount: retryCount === undefined || Number.isNaN(Number(retryCount)) ? undefined : Number(retryCount),
  }
}
