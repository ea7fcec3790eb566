import { type Execution, type ListRunsResponse, type Run, repositoriesOf, type Why } from '@openoz/protocol'
import { reasonText } from './attempts.ts'
import { type Output, printJson } from './output.ts'
import { oneLine, plainText } from './plain-text.ts'
import { paintState } from './state-colors.ts'
import { type Column, printList, renderFields } from './table.ts'
import { ageText, durationText } from './time-text.ts'
import { usageText } from './usage-text.ts'

/** `json` is the server's answer as it came, with the cursor; `ndjson` one run per line. */
export function printRuns(output: Output, answer: ListRunsResponse, now: number): void {
  if (output.format === 'json') {
    output.line(JSON.stringify(answer, null, 2))
    return
  }
  const columns: Column<Run>[] = [
    { title: 'run', value: (row) => row.run_id },
    { title: 'state', value: (row) => row.state, paint: (text) => paintState(text, output.colors) },
    { title: 'title', value: (row) => row.title, cutTo: 14 },
    { title: 'host', value: hostText, dropOrder: 2 },
    { title: 'model', value: (row) => row.agent_config.model_id ?? '', dropOrder: 3 },
    { title: 'created', value: (row) => ageText(row.created_at, now), dropOrder: 1 },
  ]
  printList(output, { rows: answer.runs, columns, empty: 'No runs.' })
  if (answer.page_info.has_next_page && !output.isJson) output.note(`More: --cursor ${answer.page_info.next_cursor}`)
}

/** `executions`: for people, all of the run. */
export function printRun(output: Output, run: Run, executions: readonly Execution[]): void {
  if (output.format === 'json') output.line(JSON.stringify(run, null, 2))
  else if (output.format === 'ndjson') printJson(output, run)
  else {
    output.line(renderFields(fieldsOf(run, output, executions)))
    output.line(`\n${plainText(run.prompt).trim()}`)
  }
}

/** A local run is performed where it was started; of another one, the worker that was asked for by name. */
function hostText(run: Run): string {
  if (run.execution_location !== 'LOCAL') return run.agent_config.worker_host ?? ''
  return run.host === undefined ? 'local' : `${oneLine(run.host)} (local)`
}

function fieldsOf(run: Run, output: Output, executions: readonly Execution[]): [string, string | undefined][] {
  const worker = executions.at(-1)?.worker
  const { failure_reason: reason, error_code } = run.status_message ?? {}
  const environment = run.agent_config.environment
  return [
    ['Run', run.run_id],
    ['Title', oneLine(run.title)],
    ['State', paintState(run.state, output.colors)],
    ['Message', run.status_message && oneLine(run.status_message.message)],
    ['Reason', reason === undefined ? error_code : reasonText(reason)],
    ['Attempts', executions.length > 1 ? `${executions.length} (oz run attempts ${run.run_id})` : undefined],
    ['Host', hostText(run) || (worker === undefined ? 'any worker' : oneLine(worker))],
    ['Model', run.agent_config.model_id ?? 'the default'],
    ['Environment', run.agent_config.environment_id],
    [
      'Repositories',
      repositoriesOf(environment)
        .map((repo) => oneLine(repo.url))
        .join(', '),
    ],
    ['Creator', oneLine(run.creator.display_name)],
    ['Source', run.source],
    ['Conversation', run.conversation_id],
    ['Forked from', run.forked_from_conversation_id && `conversation ${run.forked_from_conversation_id}`],
    ['Created', run.created_at],
    ['Started', run.started_at ?? undefined],
    ['Finished', run.finished_at ?? undefined],
    ['Took', took(run)],
    ['Tokens', run.usage.requests === 0 ? undefined : usageText(run.usage)],
  ]
}

function took(run: Run): string | undefined {
  if (run.started_at === null || run.finished_at === null) return undefined
  return durationText(Date.parse(run.finished_at) - Date.parse(run.started_at))
}

export function printWhy(output: Output, why: Why): void {
  if (output.isJson) {
    printJson(output, why)
    return
  }
  const code = why.waiting_code === null ? '' : output.colors.dim(` [${why.waiting_code}]`)
  output.line(`${paintState(why.state, output.colors)}  ${plainText(why.summary)}${code}`)
  if (why.next_step !== '') output.line(plainText(why.next_step))
  if (why.place_in_queue !== null) output.line(`Place in the queue: ${why.place_in_queue}`)
  if (why.workers.length === 0) return
  const columns: Column<Why['workers'][number]>[] = [
    { title: 'worker', value: (row) => row.worker_id, cutTo: 12 },
    { title: 'why not', value: (row) => row.reason ?? 'it may take the run' },
  ]
  printList(output, { rows: why.workers, columns, empty: '' })
}
