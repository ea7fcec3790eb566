import type { Output } from '../output.ts'
import { planHash, type RoundBackend } from './plan.ts'
import type { RoundResult } from './round.ts'
import { type CheckName, checkNames, type Finding } from './verify.ts'

/** `oz chaos --output-format json`, one object. */
export interface ChaosReport {
  type: 'chaos_report'
  seed: string
  plan_hash: string
  runs: number
  servers: number
  backend: RoundBackend
  kinds: readonly string[]
  seconds: number
  turns: number
  executions: number
  /** Of executions, by their reason: `lost` is what only its lease has told of. */
  failures: Record<string, number>
  events: number
  /** By `target how`; `nobody`: there was none to do it to. */
  faults: Record<string, number>
  lost: number
  double: number
  stuck: number
  holes: number
  left_over: number
  findings: Finding[]
  /** The command line that does the same again. */
  repeat: string
  /** Where logs, ledgers and evidence are; absent when there was nothing to find. */
  folder?: string
}

/** Which checks speak of what the product promises: no run lost, none twice, none stuck, no hole, nothing left. */
const promises = {
  lost: ['lost', 'said', 'workspace', 'outcome'],
  double: ['double', 'effects', 'steps', 'checkpoints', 'fence'],
  stuck: ['stuck', 'crashed'],
  holes: ['holes', 'viewers'],
  left_over: ['left_over'],
} as const satisfies Record<string, readonly CheckName[]>

export function makeReport(
  { evidence, faults, seconds }: RoundResult,
  { findings, image }: { findings: Finding[]; image?: string },
): ChaosReport {
  const { plan, turns, executions, events } = evidence
  const count = (promise: keyof typeof promises) => {
    const names: readonly CheckName[] = promises[promise]
    return findings.filter(({ check }) => names.includes(check)).length
  }
  const runs = plan.runs.length
  const kinds = plan.kinds.length === 0 ? 'none' : plan.kinds.join(',')
  return {
    type: 'chaos_report',
    seed: plan.seed,
    plan_hash: planHash(plan),
    runs,
    servers: plan.servers,
    backend: plan.backend,
    kinds: plan.kinds,
    seconds,
    turns: turns.length,
    executions: executions.length,
    failures: countsOf(executions.flatMap(({ failure_reason }) => failure_reason ?? [])),
    events: events.length,
    faults,
    lost: count('lost'),
    double: count('double'),
    stuck: count('stuck'),
    holes: count('holes'),
    left_over: count('left_over'),
    findings,
    repeat: [
      `oz chaos --runs ${runs} --seed ${plan.seed} --servers ${plan.servers} --kill ${kinds}`,
      ...(plan.backend === 'direct' ? [] : [`--backend ${plan.backend}`]),
      ...(image === undefined ? [] : [`--image ${image}`]),
    ].join(' '),
  }
}

export function printReport(output: Output, report: ChaosReport): void {
  const { colors } = output
  const { runs, turns, executions, events, seconds } = report
  output.line(`${runs} runs, ${turns} turns, ${executions} executions, ${events} events, ${seconds} s`)
  output.line(countsText('faults', report.faults))
  output.line(countsText('executions that failed', report.failures))
  output.line()
  for (const name of ['lost', 'double', 'stuck', 'holes', 'left_over'] as const) {
    const paint = report[name] === 0 ? colors.green : colors.red
    output.line(`${paint(String(report[name]).padStart(4))}  ${titles[name]}`)
  }
  const byCheck = Map.groupBy(report.findings, ({ check }) => check)
  for (const check of checkNames) {
    for (const [index, { runId, detail }] of (byCheck.get(check) ?? []).entries()) {
      if (index === 0) output.line(`\n${colors.red(check)}`)
      output.line(`  ${detail}${runId === undefined ? '' : colors.dim(`  run ${runId}`)}`)
    }
  }
  output.line()
  if (report.folder !== undefined) output.line(`Logs and evidence: ${report.folder}`)
  output.line(`The same again: ${report.repeat}`)
}

function countsOf(names: readonly string[]): Record<string, number> {
  return Object.fromEntries([...Map.groupBy(names, (name) => name)].map(([name, same]) => [name, same.length]))
}

function countsText(what: string, counts: Record<string, number>): string {
  const entries = Object.entries(counts).toSorted(([a], [b]) => (a < b ? -1 : 1))
  const total = entries.reduce((sum, [, count]) => sum + count, 0)
  return `${total} ${what}${total === 0 ? '' : `: ${entries.map(([name, count]) => `${count} × ${name}`).join(', ')}`}`
}

const titles = {
  lost: 'lost: a run, a message or its work',
  double: 'double: something performed twice, or by two at once',
  stuck: 'stuck: with nobody responsible',
  holes: 'holes: in a log, or in what a viewer saw',
  left_over: 'left over: processes, files, rows, containers',
} as const
