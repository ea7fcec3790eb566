import {
  ApiError,
  AppError,
  agentChannelPaths,
  type EventBatch,
  type EventBatchResponse,
  readAnswer,
} from '@openoz/protocol'
import { toDialError } from './dial-failure.ts'
import type { Dialer } from './dialer.ts'
import { RetryLater, retryAfterMs } from './send-failure.ts'

/** Hands one batch over. An empty batch renews the lease. Rejects for everything but an acknowledgement. */
export type EventPost = (batch: EventBatch, signal: AbortSignal) => Promise<EventBatchResponse>

/** The agent channel as an EventPost. The token is asked for at every batch. */
export function createEventPost(dialer: Dialer, token: () => string): EventPost {
  return async (batch, signal) => {
    const response = await dialer.fetch(agentChannelPaths.events, {
      method: 'POST',
      headers: { authorization: `Bearer ${token()}`, 'content-type': 'application/json' },
      body: JSON.stringify(batch),
      signal,
    })
    try {
      const answer = await readAnswer<EventBatchResponse>(response)
      if (Number.isSafeInteger(answer?.acked_n)) return answer
    } catch (error) {
      // The body broke off: that is no answer.
      const failure = error instanceof ApiError ? error : toDialError(error, dialer.serverUrl)
      const afterMs = retryAfterMs(response.headers)
      throw afterMs === undefined ? failure : new RetryLater(afterMs, failure)
    }
    throw new AppError('server_answer_unreadable', { url: dialer.serverUrl, status: response.status })
  }
}
