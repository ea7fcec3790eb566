import type { Evidence } from './evidence.ts'
import type { Finding } from './verify.ts'

/** `seq` from 1 without holes up to the counter, and no number of an agent taken twice. */
export function checkHoles({ events, logs, executions }: Evidence): Finding[] {
  const findings: Finding[] = []
  const eventsOf = Map.groupBy(events, ({ run_id }) => run_id)
  for (const { run_id: runId, last_seq } of logs) {
    const seqs = (eventsOf.get(runId) ?? []).map(({ seq }) => seq).toSorted((a, b) => a - b)
    const at = seqs.findIndex((seq, index) => seq !== index + 1)
    if (at >= 0) findings.push({ check: 'holes', runId, detail: `seq ${at + 1} is missing, ${seqs[at]} follows` })
    else if (seqs.length !== last_seq) {
      findings.push({ check: 'holes', runId, detail: `the log ends at ${seqs.length}, its counter at ${last_seq}` })
    }
  }
  const numbered = Map.groupBy(
    events.filter(({ n }) => n !== null),
    ({ execution_id }) => execution_id ?? '',
  )
  for (const { id, run_id: runId, number, acked_n } of executions) {
    const taken = (numbered.get(id) ?? []).map(({ n }) => n ?? 0)
    if (new Set(taken).size !== taken.length) {
      findings.push({ check: 'holes', runId, detail: `execution ${number} has an event twice` })
    }
    if (taken.some((n) => n > acked_n)) {
      findings.push({
        check: 'holes',
        runId,
        detail: `execution ${number} has events above ${acked_n}, the last acknowledged`,
      })
    }
  }
  return findings
}

/** Every viewer saw each event once, in order, and as it is stored. */
export function checkViewers({ views, events, logs }: Evidence): Finding[] {
  const findings: Finding[] = []
  const hashes = new Map(events.map(({ run_id, seq, hash }) => [`${run_id} ${seq}`, hash]))
  const lastSeqs = new Map(logs.map(({ run_id, last_seq }) => [run_id, last_seq]))
  for (const { viewer, runId, seen } of views) {
    const at = seen.findIndex(([seq], index) => seq !== index + 1)
    const wrong = seen.find(([seq, hash]) => hashes.get(`${runId} ${seq}`) !== hash)
    const lastSeq = lastSeqs.get(runId) ?? 0
    if (at >= 0) {
      findings.push({ check: 'viewers', runId, detail: `viewer ${viewer} saw ${seen[at]?.[0]} where ${at + 1} comes` })
    } else if (wrong) {
      findings.push({
        check: 'viewers',
        runId,
        detail: `viewer ${viewer} saw another event ${wrong[0]} than the stored one`,
      })
    } else if (seen.length !== lastSeq) {
      findings.push({ check: 'viewers', runId, detail: `viewer ${viewer} saw ${seen.length} of ${lastSeq} events` })
    }
  }
  return findings
}

/** A conversation grows in one line: no execution writes behind a later one, and none goes on from before where the last one came to. */
export function checkCheckpoints({ checkpoints, executions }: Evidence): Finding[] {
  const findings: Finding[] = []
  const numbers = new Map(executions.map(({ id, number }) => [id, number]))
  for (const [runId, own] of Map.groupBy(checkpoints, ({ run_id }) => run_id)) {
    let before: { number: number; step: number } | undefined
    for (const { execution_id, step } of own) {
      const number = numbers.get(execution_id) ?? 0
      if (before && number < before.number) {
        const detail = `execution ${number} wrote a checkpoint after execution ${before.number} had`
        findings.push({ check: 'checkpoints', runId, detail })
      } else if (before && step < before.step) {
        const detail = `execution ${number} went back from step ${before.step} to step ${step}`
        findings.push({ check: 'checkpoints', runId, detail })
      }
      before = { number, step }
    }
  }
  return findings
}
