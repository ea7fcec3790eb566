import { type AnyFailureReason, failureReasons, failureSpec, ownFailureReasons } from '@openoz/protocol'
import { isRest } from '../watch/follow-session.ts'
import { idOf, readSaying } from './conversation-script.ts'
import type { Evidence, ExecutionRow, TurnRow } from './evidence.ts'
import type { Finding } from './verify.ts'

/** Everything that was accepted is there, once. */
export function checkLost({ accepted, runs, turns, messages, refused }: Evidence): Finding[] {
  const findings: Finding[] = []
  const known = new Set(runs.map(({ id }) => id))
  const heard = new Set([...turns, ...messages].map(({ id }) => id))
  for (const entry of accepted) {
    if (entry.kind === 'create' && !known.has(entry.runId)) {
      findings.push({ check: 'lost', runId: entry.runId, detail: `run ${entry.run} was accepted and is not there` })
    }
    if ((entry.kind === 'turn' || entry.kind === 'note') && !heard.has(entry.messageId)) {
      findings.push({
        check: 'lost',
        runId: entry.runId,
        detail: `the message ${entry.messageId} was accepted and is not there`,
      })
    }
  }
  for (const { run, what, problem } of refused) {
    findings.push({ check: 'lost', detail: `${what} of run ${run} was refused: ${problem}` })
  }
  return findings
}

/** Terminal, or waiting for a person; no execution is live. */
export function checkStuck({ runs, executions, turns }: Evidence): Finding[] {
  return [
    ...runs
      .filter(({ state }) => !isRest(state))
      .map(({ id, state, status_message }) => ({
        check: 'stuck' as const,
        runId: id,
        detail: `it is ${state}: ${status_message ?? 'nobody says why'}`,
      })),
    ...executions
      .filter(({ state }) => state !== 'ended' && state !== 'lost')
      .map(({ run_id, number, state }) => ({
        check: 'stuck' as const,
        runId: run_id,
        detail: `execution ${number} is ${state}`,
      })),
    ...turns
      .filter(({ outcome }) => outcome === null)
      .map(({ run_id, number }) => ({
        check: 'stuck' as const,
        runId: run_id,
        detail: `turn ${number} has no outcome`,
      })),
  ]
}

/** One outcome per turn, said once, and one that the plan explains. */
export function checkOutcomes(evidence: Evidence): Finding[] {
  const { runs, turns, events, accepted, executions } = evidence
  const findings: Finding[] = []
  const turnsOf = Map.groupBy(turns, ({ run_id }) => run_id)
  const restsOf = Map.groupBy(
    events.filter(({ state }) => state !== null && isRest(state)),
    ({ run_id }) => run_id,
  )
  const executionsOf = Map.groupBy(executions, ({ run_id }) => run_id)
  for (const run of runs) {
    const ownTurns = turnsOf.get(run.id) ?? []
    const rests = restsOf.get(run.id) ?? []
    const cancels = accepted.filter((entry) => entry.kind === 'cancel' && entry.runId === run.id)
    const isCancelled = cancels.length > 0
    // A cancel ends several turns with one word, and moves a run that waits for a person without a turn.
    const isCount = isCancelled
      ? rests.length >= 1 && rests.length <= ownTurns.length + 1
      : rests.length === ownTurns.filter(({ outcome }) => outcome !== null).length
    if (!isCount) {
      const detail = `${ownTurns.length} turns have ${rests.length} outcomes in the log: ${rests.map(({ state }) => state).join(', ')}`
      findings.push({ check: 'outcome', runId: run.id, detail })
    }
    const last = rests.at(-1)?.state
    if (isRest(run.state) && last !== run.state) {
      findings.push({
        check: 'outcome',
        runId: run.id,
        detail: `it is ${run.state}, its log says ${last ?? 'nothing'}`,
      })
    }
    for (const turn of ownTurns) {
      const problem = problemOf(turn, { evidence, isCancelled, reasons: explainedFailures(executionsOf.get(run.id)) })
      if (problem !== undefined) {
        findings.push({
          check: 'outcome',
          runId: run.id,
          detail: `turn ${turn.number}: ${problem} (${firstLine(turn.outcome_message)})`,
        })
      }
    }
  }
  return findings
}

function firstLine(text: string | null): string {
  return (text ?? 'nobody says why').split('\n')[0] ?? ''
}

function problemOf(
  { run_id: runId, outcome, message }: TurnRow,
  facts: { evidence: Evidence; isCancelled: boolean; reasons: readonly string[] },
): string | undefined {
  if (outcome === null) return undefined
  if (outcome === 'CANCELLED') return facts.isCancelled ? undefined : 'CANCELLED, and nobody had asked for that'
  if (outcome === 'FAILED') return 'FAILED'
  if (outcome === 'ERROR') {
    return facts.reasons.length > 0 ? undefined : 'ERROR, and its retries were not used up'
  }
  const saying = readSaying(message)
  if (saying?.steps?.at(-1) !== 'ask') return outcome === 'SUCCEEDED' ? undefined : `${outcome} instead of SUCCEEDED`
  // A question that is asked while something said waits already is answered by it.
  const isAnswered = facts.evidence.accepted.some(
    (one) => one.kind === 'note' && one.runId === runId && readSaying(one.text)?.turn === saying.turn,
  )
  return outcome === 'BLOCKED' || isAnswered ? undefined : `${outcome} instead of BLOCKED`
}

/** The reasons that this run's executions died of more often than they are retried. */
function explainedFailures(executions: readonly ExecutionRow[] = []): string[] {
  const counts = new Map<string, number>()
  for (const { failure_reason: reason } of executions) {
    if (reason !== null) counts.set(reason, (counts.get(reason) ?? 0) + 1)
  }
  return [...counts].filter(([reason, count]) => count > retriesFor(reason)).map(([reason]) => reason)
}

/** A reason that is never retried explains nothing: the plan gives no run cause for it. But a poison run is the sum of earlier deaths. */
function retriesFor(reason: string): number {
  if (reason === 'run_poison') return 0
  if (!isFailureReason(reason)) return Number.POSITIVE_INFINITY
  const { retries } = failureSpec(reason)
  return retries === 0 ? Number.POSITIVE_INFINITY : retries
}

function isFailureReason(reason: string): reason is AnyFailureReason {
  return Object.hasOwn(failureReasons, reason) || Object.hasOwn(ownFailureReasons, reason)
}

/** What people said became one turn or one message, and reached the model once. */
export function checkSaid({ accepted, turns, model, runs }: Evidence): Finding[] {
  const findings: Finding[] = []
  const turnsOf = Map.groupBy(turns, ({ run_id }) => run_id)
  const indexOf = new Map(accepted.map(({ runId, run }) => [runId, run]))
  for (const { id } of runs) {
    const own = turnsOf.get(id) ?? []
    for (const [message, same] of Map.groupBy(own, (turn) => turn.message)) {
      if (same.length > 1) findings.push({ check: 'said', runId: id, detail: `${same.length} turns say "${message}"` })
    }
    if (!indexOf.has(id)) findings.push({ check: 'said', runId: id, detail: 'nobody has sent this run' })
    for (const turn of own) {
      const saying = readSaying(turn.message)
      if (!saying || (turn.outcome !== 'SUCCEEDED' && turn.outcome !== 'BLOCKED')) continue
      const count = model.find((seen) => seen.run === indexOf.get(id) && seen.id === idOf(saying))?.count ?? 0
      if (count === 0)
        findings.push({ check: 'said', runId: id, detail: `turn ${turn.number} never reached the model` })
    }
  }
  for (const { run, id, count } of model) {
    if (count > 1)
      findings.push({ check: 'said', detail: `run ${run}: its model was shown ${id} ${count} times at once` })
  }
  return findings
}

/** No execution begins before the one before it has ended. */
export function checkExecutions({ executions }: Evidence): Finding[] {
  const findings: Finding[] = []
  for (const [runId, own] of Map.groupBy(executions, ({ run_id }) => run_id)) {
    for (const [at, later] of own.entries()) {
      const earlier = own
        .slice(0, at)
        .find(({ ended_at }) => later.hello_at !== null && later.hello_at < (ended_at ?? Infinity))
      if (!earlier) continue
      const detail = `execution ${later.number} began before execution ${earlier.number} had ended`
      findings.push({ check: 'double', runId, detail })
    }
  }
  return findings
}

/** The newest execution is the one that may change the run, and they are counted without a gap. */
export function checkFences({ runs, executions }: Evidence): Finding[] {
  const of = Map.groupBy(executions, ({ run_id }) => run_id)
  return runs.flatMap(({ id, fence }) => {
    const numbers = (of.get(id) ?? []).map(({ number }) => number)
    const isCounted = numbers.every((number, index) => number === index + 1)
    if (isCounted && fence === numbers.length) return []
    return [{ check: 'fence', runId: id, detail: `fence ${fence}, executions ${numbers.join(', ')}` } as const]
  })
}
