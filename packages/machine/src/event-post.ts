import { AppError, agentChannelPaths, type EventBatch, type EventBatchResponse } from '@openoz/protocol'
import type { Dialer } from './dialer.ts'
import { readAnswerOrRetryLater } from './send-failure.ts'

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
    const answer = await readAnswerOrRetryLater<EventBatchResponse>(response, dialer.serverUrl)
    if (Number.isSafeInteger(answer?.acked_n)) return answer
    throw new AppError('server_answer_unreadable', { url: dialer.serverUrl, status: response.status })
  }
}
