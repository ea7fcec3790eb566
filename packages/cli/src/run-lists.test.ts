import type { Execution, ListRunsResponse, Run } from '@openoz/protocol'
import { expect, test } from 'vitest'
import { createOutput } from './output.ts'
import { printRun, printRuns } from './run-lists.ts'

const run: Run = {
  run_id: '0198c2f0-0000-7000-8000-000000000001',
  title: 'Fix it',
  state: 'SUCCEEDED',
  execution_location: 'REMOTE',
  prompt: 'fix it',
  agent_config: {},
  creator: { display_name: 'Ada' },
  source: 'CLI',
  conversation_id: '0198c2f0-0000-7000-8000-000000000002',
  created_at: '2026-11-23T12:00:00Z',
  started_at: null,
  finished_at: null,
  usage: { requests: 0 },
} as never

function shown(one: Run, ...workers: string[]) {
  const text = { list: '', one: '' }
  const outputTo = (name: keyof typeof text) => {
    const stdout = { write: (part: string) => (text[name] += part) }
    return createOutput('text', { stdout, stderr: stdout, env: {} })
  }
  const answer = { runs: [one], page_info: { has_next_page: false } } as ListRunsResponse
  printRuns(outputTo('list'), answer, Date.parse('2026-11-23T12:00:00Z'))
  const executions = workers.map((worker) => ({ worker }) as Execution)
  printRun(outputTo('one'), one, executions)
  return text
}

test('a local run names its machine, and that it is local', () => {
  const { list, one } = shown({ ...run, execution_location: 'LOCAL', host: 'ada-laptop' })
  expect(list).toContain('ada-laptop (local)')
  expect(one).toMatch(/^Host +ada-laptop \(local\)$/m)
})

test('a remote run names the worker that it was given to, or that has taken it', () => {
  const named = shown({ ...run, agent_config: { worker_host: 'build-1' } })
  expect(named.list).toContain('build-1')
  expect(named.one).toMatch(/^Host +build-1$/m)
  expect(shown(run, 'build-2').one).toMatch(/^Host +build-2$/m)
  expect(shown(run).one).toMatch(/^Host +any worker$/m)
})

test('a run that was tried again says how often, and its reason what it means', () => {
  const lost = { ...run, status_message: { message: 'x', failure_reason: 'lost', error_code: 'resource_unavailable' } }
  const { one } = shown(lost as never, 'build-1', 'build-2')
  expect(one).toMatch(/^Host +build-2$/m)
  expect(one).toMatch(/^Attempts +2 \(oz run attempts 0198c2f0-0000-7000-8000-000000000001\)$/m)
  expect(one).toMatch(/^Reason +lost: The execution was lost: nobody renewed its lease\.$/m)
  expect(shown(run, 'build-2').one).not.toContain('Attempts')
})
