import { randomUUID } from 'node:crypto'
import { fullJitterMs, sleep } from '@openoz/machine'
import { ApiError, AppError } from '@openoz/protocol'

/** Tried three times under one idempotency key: a request whose answer got lost does nothing a second time. */
export async function sendOnce<T>(send: (options: { idempotencyKey: string }) => Promise<T>): Promise<T> {
  const idempotencyKey = randomUUID()
  for (let attempt = 0; ; attempt++) {
    try {
      return await send({ idempotencyKey })
    } catch (error) {
      if (attempt === 2 || !isRetryable(error)) throw error
      await sleep(500 + fullJitterMs(attempt))
    }
  }
}

/** Whether the same question may be answered later. */
export function isRetryable(error: unknown): boolean {
  if (error instanceof ApiError) return error.problem.retryable
  return error instanceof AppError && error.spec.retryable
}
