import { fullJitterMs, sleep } from '@openoz/machine'
import type { AgentLimits } from '@openoz/protocol'
import type { EventSink } from '../event-sink.ts'
import { judgeModelFailure } from './model-failure.ts'
import { askModelOnce, type StepAnswer, type StepRequest, withdraw } from './model-step.ts'

/** The longest pause that we choose ourselves; a provider may ask for more. */
const maxPauseMs = 30_000
/** The first pause spans up to this. A cut answer is mostly the connection's fault: the next one need not wait. */
const firstPauseMs = { refused: 1_000, cut: 100 }

interface Patience {
  modelId: string
  limits: AgentLimits
  sink: EventSink
  signal: AbortSignal
}

/**
 * Asks the model until it has answered, and says what it waits for. Nothing of a failed answer is kept: each try begins at the last finished step,
 * with a request that is made anew, since people may have said something meanwhile. Rejects with the signal's reason, with ConversationTooLong,
 * or with the AppError to end on.
 *
 * Patience ends after `limits.llm_retry_for_ms` without an answer, counted from the provider's first failure: pauses, and the silence of later
 * tries. An answer that comes is no silence, however long it takes and however it ends. Nor is it the provider's fault when the control plane is
 * away: after that its patience begins anew.
 */
export async function askModel(makeRequest: () => StepRequest, patience: Patience): Promise<StepAnswer> {
  const { modelId, limits, sink, signal } = patience
  let silentMs: number | undefined
  let wasPatient = false
  let failures = 0
  for (let attempt = 1; ; attempt++) {
    const request = makeRequest()
    const { connection } = request.model
    connection.heardAt = undefined
    const askedAt = performance.now()
    try {
      return await askModelOnce(request)
    } catch (error) {
      signal.throwIfAborted()
      const failure = judgeModelFailure(error, modelId)
      if (failure.action !== 'retry') throw failure.error
      if (failure.isPatient !== wasPatient) failures = 0
      wasPatient = failure.isPatient
      const baseMs = failure.isCut ? firstPauseMs.cut : firstPauseMs.refused
      // Some providers ask for no pause at all, again and again.
      const pauseMs = Math.max(failure.afterMs ?? 0, fullJitterMs(failures++, { baseMs, maxMs: maxPauseMs }))
      if (failure.isPatient) silentMs = undefined
      else {
        silentMs = silentMs === undefined ? 0 : silentMs + performance.now() - (connection.heardAt ?? askedAt)
        silentMs += pauseMs
        if (silentMs > limits.llm_retry_for_ms) throw failure.givesUpAs
      }
      withdraw(request)
      const until = new Date(Date.now() + pauseMs).toISOString()
      sink.emit({ type: 'model_wait', data: { reason: `${modelId}: ${failure.problem}`, until, attempt } })
      await sleep(pauseMs, signal)
      signal.throwIfAborted()
    }
  }
}
