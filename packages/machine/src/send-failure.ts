import { ApiError, AppError, readAnswer } from '@openoz/protocol'
import { toDialError } from './dial-failure.ts'

/**
 * What to do about something that was sent to the control plane (a batch of events, a blob, a hello) and not answered with yes. Every kind
 * of failure is decided here:
 *
 * | failure | decision | because |
 * | --- | --- | --- |
 * | no answer, timeout | retry | the control plane may be away for minutes, no run shall notice |
 * | answer without a problem document, whatever its status | retry | a proxy or load balancer spoke, not the control plane |
 * | 413 | shrink | something between us takes less than we send |
 * | 408, 425, 429, 5xx, `retryable` | retry, after `Retry-After` if given | the control plane asks for it |
 * | every other refusal (401, 403, 404, 410, …) | refused | the same batch would be refused again |
 * | anything else | retry, logged as an error | it is a bug of ours, and events are not lost for it |
 */
export type SendDecision =
  | { action: 'retry'; problem: string; afterMs: number; isBug: boolean }
  | { action: 'shrink'; problem: string }
  | { action: 'refused'; code: string; status: number; message: string }

/** A failed answer that said when to come back. */
export class RetryLater extends Error {
  readonly afterMs: number
  constructor(afterMs: number, cause: unknown) {
    super('try again later', { cause })
    this.name = 'RetryLater'
    this.afterMs = afterMs
  }
}

/** No server of ours asks for more; a proxy that does shall not end a run. */
const maxRetryAfterMs = 60_000

export function judgeSendFailure(error: unknown): SendDecision {
  if (error instanceof RetryLater) {
    const inner = judgeSendFailure(error.cause)
    return inner.action === 'retry' ? { ...inner, afterMs: Math.min(error.afterMs, maxRetryAfterMs) } : inner
  }
  if (error instanceof ApiError) return judgeRefusal(error)
  if (error instanceof AppError) {
    if (error.details.status === 413) return { action: 'shrink', problem: error.message }
    return { action: 'retry', problem: error.message, afterMs: 0, isBug: false }
  }
  if (error instanceof Error && error.name === 'TimeoutError') {
    return { action: 'retry', problem: 'no answer in time', afterMs: 0, isBug: false }
  }
  return { action: 'retry', problem: error instanceof Error ? error.name : 'unknown', afterMs: 0, isBug: true }
}

function judgeRefusal({ problem }: ApiError): SendDecision {
  const { status, code, detail, retryable } = problem
  if (status === 413) return { action: 'shrink', problem: detail }
  if (retryable || status >= 500 || status === 408 || status === 425 || status === 429) {
    return { action: 'retry', problem: detail, afterMs: 0, isBug: false }
  }
  return { action: 'refused', code, status, message: detail }
}

/**
 * `readAnswer` for whoever asks again: a body that broke off is no answer (`server_unreachable`), and a refusal that says when to come back
 * is a RetryLater around its ApiError.
 */
export async function readAnswerOrRetryLater<T>(response: Response, serverUrl: string): Promise<T> {
  try {
    return await readAnswer<T>(response)
  } catch (error) {
    const failure = error instanceof ApiError ? error : toDialError(error, serverUrl)
    const afterMs = retryAfterMs(response.headers)
    throw afterMs === undefined ? failure : new RetryLater(afterMs, failure)
  }
}

/** Reads `Retry-After`, which is seconds or a date. */
export function retryAfterMs(headers: Headers): number | undefined {
  const value = headers.get('retry-after')
  if (value === null) return undefined
  const ms = /^\d+$/.test(value) ? Number(value) * 1000 : Date.parse(value) - Date.now()
  return Number.isFinite(ms) && ms >= 0 ? ms : undefined
}
