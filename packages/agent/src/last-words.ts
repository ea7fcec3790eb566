import type { TurnInput } from '@openoz/protocol'
import type { TurnResult } from './harnesses/harness.ts'
import type { LiveExecution } from './live-execution.ts'
import { performTurn, reportOutcome, stoppedResult } from './turn.ts'

/**
 * The end of a local run that was stopped. No worker reports it, and no next execution takes up what waits, so the agent itself says the
 * outcome and goodbye; where it cannot, the run ends with its lease.
 */

/** After a stop nobody waits long. */
const farewellMs = 3_000
const lastWordsMs = 700

/** What waits shares the end of the turn that was stopped. Never rejects. */
export async function leaveStopped(execution: LiveExecution): Promise<void> {
  const { stop } = execution
  const patience = AbortSignal.any([stop.ours, AbortSignal.timeout(farewellMs)])
  await sayGoodbye(execution, patience, async (turn) => {
    await performTurn(execution, turn)
  })
}

/** All that is still said when nothing may be waited for: the outcome of the turn at work, and goodbye. Never rejects. */
export async function sayLastWords(execution: LiveExecution): Promise<TurnResult | undefined> {
  const { stop, openTurn } = execution
  const result = openTurn && reportOutcome(execution, openTurn, stoppedResult(stop.reason))
  await sayGoodbye(execution, AbortSignal.timeout(lastWordsMs), async (turn) => {
    reportOutcome(execution, turn, stoppedResult(stop.reason))
  })
  return result
}

async function sayGoodbye(
  execution: LiveExecution,
  patience: AbortSignal,
  end: (turn: TurnInput) => Promise<void>,
): Promise<void> {
  const { channel, sender, log } = execution
  execution.isLeaving = true
  try {
    while (await sender.flushed(patience)) {
      const { turn } = await channel.nextTurn({ is_last: true }, patience)
      if (!turn) return
      await end(turn)
    }
  } catch (error) {
    log.debug({ err: error }, 'the end could not be said')
  }
}
