import { readSaying } from './conversation-script.ts'
import type { Evidence, ExecutionRow, LedgerEntry } from './evidence.ts'
import { endToGoneMs, lostToGoneMs } from './lease-times.ts'
import type { Finding } from './verify.ts'

interface RunEffects {
  runId: string
  run: number
  entries: LedgerEntry[]
  executions: Map<string, ExecutionRow>
}

function effectsOf({ ledger, accepted, executions }: Evidence): RunEffects[] {
  const runIds = new Map(accepted.map(({ run, runId }) => [run, runId]))
  return [...Map.groupBy(ledger, ({ run }) => run)].map(([run, entries]) => {
    const runId = runIds.get(run) ?? `of plan ${run}`
    const own = executions.filter(({ run_id }) => run_id === runId)
    return { runId, run, entries, executions: new Map(own.map((row) => [row.id, row])) }
  })
}

/** Once an execution has done something, none before it does; and none does anything after its end. */
export function checkEffects(evidence: Evidence): Finding[] {
  const findings: Finding[] = []
  for (const { runId, entries, executions } of effectsOf(evidence)) {
    let newest = 0
    const told = new Set<string>()
    for (const { executionId, turn, step, kind, what, at } of entries) {
      const execution = executions.get(executionId)
      const number = execution?.number ?? 0
      const act = `${kind} of step ${step} in turn ${turn} (${what})`
      const tell = (key: string, detail: string) => {
        if (told.has(key)) return
        told.add(key)
        findings.push({ check: 'effects', runId, detail })
      }
      if (!execution) tell(executionId, `an execution that is not there did ${act}`)
      else if (number < newest) {
        tell(`${number} under ${newest}`, `execution ${number} did ${act} after execution ${newest} had begun to act`)
      } else if (actsAfterEnd(execution, at)) {
        const seconds = (at - (execution.ended_at ?? 0)).toFixed(1)
        tell(`${number} after`, `execution ${number} (${execution.state}) did ${act} ${seconds} s after its end`)
      }
      newest = Math.max(newest, number)
    }
  }
  return findings
}

function actsAfterEnd({ ended_at, state }: ExecutionRow, at: number): boolean {
  if (ended_at === null || at === 0) return false
  const graceMs = state === 'lost' ? lostToGoneMs : endToGoneMs
  return at > ended_at + graceMs / 1000
}

/** What an execution does once it does once; what a turn that succeeded had to do was done. */
export function checkSteps(evidence: Evidence): Finding[] {
  const findings: Finding[] = []
  for (const { runId, entries } of effectsOf(evidence)) {
    const begun = entries.filter(({ what }) => what === 'begin')
    const calls = Map.groupBy(
      begun,
      ({ executionId, turn, step, attempt }) => `${executionId} ${turn} ${step} ${attempt}`,
    )
    for (const [{ turn, step }, ...again] of calls.values() as Iterable<[LedgerEntry, ...LedgerEntry[]]>) {
      if (again.length === 0) continue
      findings.push({
        check: 'steps',
        runId,
        detail: `one call of step ${step} in turn ${turn} was performed ${again.length + 1} times`,
      })
    }
  }
  const runIds = new Map(evidence.accepted.map(({ run, runId }) => [runId, run]))
  const done = new Set(evidence.ledger.map(({ run, turn, step, what }) => `${run} ${turn} ${step} ${what}`))
  for (const { run_id: runId, message, outcome, number } of evidence.turns) {
    const { turn, steps = [] } = readSaying(message) ?? {}
    if (outcome !== 'SUCCEEDED' && outcome !== 'BLOCKED') continue
    for (const [step, kind] of steps.entries()) {
      if (!endsByItself(kind) || done.has(`${runIds.get(runId)} ${turn} ${step} done`)) continue
      findings.push({
        check: 'steps',
        runId,
        detail: `turn ${number} is ${outcome}, and its step ${step} (${kind}) was never done`,
      })
    }
  }
  return findings
}

/** What goes on behind its call may be ended with the turn before it has written a word. */
function endsByItself(kind: string): boolean {
  return kind === 'beat' || kind === 'write' || kind === 'long' || kind === 'fail'
}

/** Each turn finds the files that the turns before it made; and an execution those that it, or one that did not vanish, has made. */
export function checkWorkspaces(evidence: Evidence): Finding[] {
  const findings: Finding[] = []
  for (const { runId, entries, executions } of effectsOf(evidence)) {
    const made: LedgerEntry[] = []
    const told = new Set<string>()
    for (const entry of entries) {
      if (entry.kind === 'write' && entry.what === 'done') made.push(entry)
      // What goes on behind its call may have looked before the next step wrote, and said so after.
      if (entry.what !== 'begin' || !endsByItself(entry.kind)) continue
      const present = new Set(entry.files)
      for (const file of made) {
        const name = `chaos-${file.turn}-${file.step}`
        if (present.has(name) || told.has(name) || !mustBeThere(file, entry, executions)) continue
        told.add(name)
        const numbers = [file, entry].map(({ executionId }) => executions.get(executionId)?.number ?? '?')
        const detail = `turn ${entry.turn} (execution ${numbers[1]}) did not find ${name}, which execution ${numbers[0]} had made`
        findings.push({ check: 'workspace', runId, detail })
      }
    }
  }
  return findings
}

function mustBeThere(file: LedgerEntry, entry: LedgerEntry, executions: Map<string, ExecutionRow>): boolean {
  if (file.executionId === entry.executionId) return true
  // Whoever vanished with its machine takes with it what was not saved.
  return executions.get(file.executionId)?.state !== 'lost'
}
