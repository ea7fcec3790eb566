import { fullJitterMs, sleep } from '@openoz/machine'
import { notice } from '../event-sink.ts'
import { judgeModelFailure } from './model-failure.ts'
import { askModelOnce, type StepAnswer, type StepRequest } from './model-step.ts'

/** The longest pause that we choose ourselves; a provider may ask for more. */
const maxPauseMs = 30_000

/**
 * Asks the model until it has answered, for at most `limits.llm_retry_for_ms` after the first failure of this step, and says what it waits for.
 * Nothing of a failed answer is kept: each try begins at the last finished step. Rejects with the signal's reason or with the AppError to end on.
 */
export async function askModel(request: StepRequest, modelId: string): Promise<StepAnswer> {
  const { limits, sink, signal } = request
  let firstFailureAt: number | undefined
  for (let attempt = 0; ; attempt++) {
    try {
      return await askModelOnce(request)
    } catch (error) {
      signal.throwIfAborted()
      const failure = judgeModelFailure(error, modelId)
      if (failure.action !== 'retry') throw failure.error
      firstFailureAt ??= performance.now()
      const pauseMs = failure.afterMs ?? fullJitterMs(attempt, { baseMs: 1_000, maxMs: maxPauseMs })
      const endsAt = firstFailureAt + limits.llm_retry_for_ms
      if (!failure.isPatient && performance.now() + pauseMs > endsAt) throw failure.givesUpAs
      notice(sink, 'warning', `Asking ${modelId} again in ${seconds(pauseMs)}: ${failure.problem}.`)
      await sleep(pauseMs, signal)
    }
  }
}

function seconds(ms: number): string {
  return ms < 10_000 ? `${(ms / 1000).toFixed(1)} s` : `${Math.round(ms / 1000)} s`
}
