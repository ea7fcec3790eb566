import { type Execution, errorSpecs, failureReasons, ownFailureReasons } from '@openoz/protocol'
import type { Output } from './output.ts'
import { oneLine } from './plain-text.ts'
import { type Column, printList } from './table.ts'
import { ageText, durationText } from './time-text.ts'

/** An execution as people count it: the run's first one is number 1. */
export interface Attempt extends Execution {
  number: number
  /** Of the attempt at the same turn that failed before it. */
  retryOf: number | undefined
}

/** `executions`: all of the run, in their order. */
export function attemptsOf(executions: readonly Execution[]): Attempt[] {
  const numbers = new Map(executions.map(({ execution_id }, index) => [execution_id, index + 1]))
  return executions.map((execution, index) => ({
    ...execution,
    number: index + 1,
    retryOf: execution.retry_of === null ? undefined : numbers.get(execution.retry_of),
  }))
}

/** A worker's reason, one of ours, or a code of docs/errors.md that the agent gave. undefined for one that this version does not know. */
export function reasonMeaning(reason: string): string | undefined {
  const reasons: Record<string, { meaning: string } | undefined> = { ...failureReasons, ...ownFailureReasons }
  const codes: Record<string, { title: string } | undefined> = errorSpecs
  return reasons[reason]?.meaning ?? (codes[reason] && `${codes[reason].title}.`)
}

/** `lost: The execution was lost: nobody renewed its lease.` */
export function reasonText(reason: string): string {
  const meaning = reasonMeaning(reason)
  return meaning === undefined ? oneLine(reason) : `${reason}: ${meaning}`
}

export function printAttempts(output: Output, executions: readonly Execution[], now: number): void {
  if (output.isJson) {
    // As the server has them, with what only their order and the registry say.
    const rows = executions.map((execution, index) => ({
      number: index + 1,
      ...execution,
      reason_meaning: execution.failure_reason === null ? null : (reasonMeaning(execution.failure_reason) ?? null),
    }))
    printList(output, { rows, columns: [], empty: '' })
    return
  }
  const columns: Column<Attempt>[] = [
    { title: 'attempt', value: (row) => `${row.number}` },
    { title: 'retry of', value: (row) => `${row.retryOf ?? ''}`, dropOrder: 4 },
    { title: 'worker', value: (row) => row.worker, dropOrder: 2 },
    { title: 'state', value: stateText },
    { title: 'outcome', value: (row) => row.outcome ?? '' },
    { title: 'exit code', value: (row) => `${row.exit_code ?? ''}`, dropOrder: 3 },
    { title: 'began', value: (row) => ageText(row.created_at, now), dropOrder: 5 },
    { title: 'took', value: (row) => durationText(tookMs(row, now)), dropOrder: 1 },
    { title: 'reason', value: (row) => (row.failure_reason === null ? '' : reasonText(row.failure_reason)), cutTo: 16 },
  ]
  printList(output, { rows: attemptsOf(executions), columns, empty: 'No attempt yet: no worker has taken it.' })
}

function stateText({ state, unreachable }: Execution): string {
  return unreachable ? `${state}, unreachable` : state
}

function tookMs({ created_at, ended_at }: Execution, now: number): number {
  return Math.max(0, (ended_at === null ? now : Date.parse(ended_at)) - Date.parse(created_at))
}
