import { fullJitterMs, sleep } from '@openoz/machine'
import type { AgentLimits } from '@openoz/protocol'
import type { EventSink } from '../event-sink.ts'
import { judgeModelFailure } from './model-failure.ts'
import { askModelOnce, type StepAnswer, type StepRequest } from './model-step.ts'

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
 * Asks the model until it has answered, for at most `limits.llm_retry_for_ms` after the first failure of this step, and says what it waits for.
 * Nothing of a failed answer is kept: each try begins at the last finished step, with a request that is made anew, since people may have said
 * something meanwhile. Rejects with the signal's reason, with ConversationTooLong, or with the AppError to end on.
 */
export async function askModel(makeRequest: () => StepRequest, patience: Patience): Promise<StepAnswer> {
  const { modelId, limits, sink, signal } = patience
  let firstFailureAt: number | undefined
  for (let attempt = 0; ; attempt++) {
    try {
      return await askModelOnce(makeRequest())
    } catch (error) {
      signal.throwIfAborted()
      const failure = judgeModelFailure(error, modelId)
      if (failure.action !== 'retry') throw failure.error
      firstFailureAt ??= performance.now()
      const baseMs = failure.isCut ? firstPauseMs.cut : firstPauseMs.refused
      const pauseMs = failure.afterMs ?? fullJitterMs(attempt, { baseMs, maxMs: maxPauseMs })
      const endsAt = firstFailureAt + limits.llm_retry_for_ms
      if (!failure.isPatient && performance.now() + pauseMs > endsAt) throw failure.givesUpAs
      const until = new Date(Date.now() + pauseMs).toISOString()
      sink.emit({ type: 'model_wait', data: { reason: `${modelId}: ${failure.problem}`, until, attempt: attempt + 1 } })
      await sleep(pauseMs, signal)
      signal.throwIfAborted()
    }
  }
}
