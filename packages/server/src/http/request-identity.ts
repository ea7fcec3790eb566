import type { Context } from 'hono'
import type { RequestIdentity } from '../domain/idempotency.ts'

/** How a creating request names itself: `Idempotency-Key`, or the retry counter of the published SDKs. */
export async function requestIdentity(c: Context): Promise<RequestIdentity> {
  const retryCount = c.req.header('x-stainless-retry-count')
  return {
    // An empty one names nothing.
    key: c.req.header('idempotency-key')?.slice(0, 255) || undefined,
    sdkRetryCount: retryCount === undefined || Number.isNaN(Number(retryCount)) ? undefined : Number(retryCount),
    body: await c.req.text(),
  }
}
