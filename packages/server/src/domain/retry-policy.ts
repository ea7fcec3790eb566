import { type AnyFailureReason, failureSpec, type PlatformErrorCode } from '@openoz/protocol'

/**
 * Whether a turn is tried again after an execution of it ended without its agent's word: one pure function over the table of failure reasons
 * (`protocol/src/failure-reasons.ts`). In this order:
 *
 *   the agent took its worker with it too often        ends as ERROR with `run_poison`
 *   the run is local, or the agent ended by itself     ends with the reason
 *   the reason's own count, or `retry.max_attempts`    tried again, after a delay that doubles with each try for this reason
 */

/** The longest that a run waits before it is tried again. */
export const maxRetryDelaySeconds = 300

export interface Failure {
  reason: AnyFailureReason
  /** What happened, for people, behind what the reason means. */
  detail: string
  exitCode: number | null
  /** The agent died together with its worker. */
  diedWithWorker: boolean
  /** What happened, where it was not what the reason means. */
  meaning?: string | undefined
  /** Its worker is still to say that nothing of it runs any more: the next attempt waits for that too. */
  isAwaited?: boolean
}

export interface TurnSoFar {
  isLocal: boolean
  /** How often it was tried again, by reason. */
  retries: Record<string, number>
  /** Asked for with the run; null: as often as the reasons allow. */
  maxAttempts: number | null
  /** Workers that its agent took with it, this one included, oldest first. */
  deadWorkers: string[]
  poisonDeaths: number
}

export type RetryDecision =
  | {
      kind: 'retry'
      delaySeconds: number
      /** The next attempt at this turn, from 1, of so many. */
      attempt: number
      of: number
      retries: Record<string, number>
      sentence: string
    }
  | {
      kind: 'end'
      outcome: 'FAILED' | 'ERROR'
      code: PlatformErrorCode
      failureReason: AnyFailureReason
      sentence: string
    }

export function retryDecision(turn: TurnSoFar, failure: Failure): RetryDecision {
  const { reason, detail } = failure
  const spec = failureSpec(reason)
  const attempts = 1 + Object.values(turn.retries).reduce((sum, count) => sum + count, 0)
  // Leases mean nothing to whoever started an agent by hand.
  const sentence = turn.isLocal ? detail : [failure.meaning ?? spec.meaning, detail].filter(Boolean).join(' ')

  if (failure.diedWithWorker && !turn.isLocal && turn.deadWorkers.length >= turn.poisonDeaths) {
    const poison = failureSpec('run_poison')
    const workers = `${turn.deadWorkers.length} times, on ${inWords([...new Set(turn.deadWorkers)])}.`
    return {
      kind: 'end',
      outcome: 'ERROR',
      code: poison.code,
      failureReason: 'run_poison',
      sentence: `${poison.meaning} ${workers} It is not offered again. ${detail}`.trim(),
    }
  }

  const tried = turn.retries[reason] ?? 0
  const hasTriesLeft = turn.maxAttempts === null ? tried < spec.retries : attempts < turn.maxAttempts
  if (!turn.isLocal && spec.retries > 0 && hasTriesLeft && !endedByItself(failure))
    return {
      kind: 'retry',
      delaySeconds: Math.min(maxRetryDelaySeconds, spec.retryDelaySeconds * 2 ** tried),
      attempt: attempts + 1,
      of: turn.maxAttempts ?? attempts + spec.retries - tried,
      retries: { ...turn.retries, [reason]: tried + 1 },
      sentence,
    }
  return {
    kind: 'end',
    outcome: spec.side === 'user' ? 'FAILED' : 'ERROR',
    code: spec.code,
    failureReason: reason,
    sentence: attempts > 1 ? `${sentence} It was tried ${attempts} times.` : sentence,
  }
}

/** Only a killed agent is tried again: one that ended by itself would do the same once more. */
function endedByItself({ reason, exitCode }: Failure): boolean {
  return reason === 'agent_invocation' && (exitCode ?? 0) <= 128
}

function inWords(workers: string[]): string {
  const last = workers.at(-1) ?? ''
  return workers.length < 2 ? `worker ${last}` : `workers ${workers.slice(0, -1).join(', ')} and ${last}`
}
