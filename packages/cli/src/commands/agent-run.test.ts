import { expect, test } from 'vitest'
import { ignoredOptions } from './agent-run.ts'
import { readWorkerCommandLine } from './worker-command-line.ts'

const taskId = '0198c2f0-0000-7000-8000-000000000000'
const notices = (line: string) =>
  ignoredOptions(readWorkerCommandLine(`agent run --task-id ${taskId} ${line}`.trim().split(' '))?.given ?? ['unread'])

test.each([
  '',
  '--share team:edit --sandboxed --server-root-url http://cp --model a/b --computer-use --harness oz --environment e --idle-on-complete 10m',
  '--sandboxed --server-root-url http://cp --no-computer-use --idle-on-complete',
])('what workers pass by themselves is not worth a notice: %s', (line) => {
  expect(notices(line)).toEqual([])
})

test('an option that somebody asked for and that does nothing is named', () => {
  const line = '--sandboxed --computer-use --profile p --idle-on-complete --session-sharing-server-url wss://share'
  expect(notices(line)).toEqual([
    'Options of the agent without an effect yet: --profile, --session-sharing-server-url.',
  ])
})
