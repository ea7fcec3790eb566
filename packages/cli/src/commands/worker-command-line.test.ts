import { expect, test } from 'vitest'
import { readWorkerCommandLine } from './worker-command-line.ts'

const taskId = '0198c2f0-0000-7000-8000-000000000000'

test('what workers pass is read as commander reads it', () => {
  const line = `agent run --share team:edit --task-id ${taskId} --sandboxed --server-root-url http://127.0.0.1:4747 --model a/b --no-computer-use -e env --idle-on-complete`
  expect(readWorkerCommandLine(line.split(' '))).toEqual({
    globals: { apiKey: undefined, serverUrl: undefined, serverRootUrl: 'http://127.0.0.1:4747', debug: false },
    options: { taskId, cwd: undefined },
    given: [
      '--model',
      '--share',
      '--environment',
      '--idle-on-complete',
      '--task-id',
      '--sandboxed',
      '--no-computer-use',
    ],
  })
  const withIdle = ['agent', 'run', '--idle-on-complete', '10m', '--task-id', taskId, '-C', '/work', '--debug']
  expect(readWorkerCommandLine(withIdle)).toMatchObject({
    globals: { debug: true },
    options: { taskId, cwd: '/work' },
    given: ['--cwd', '--idle-on-complete', '--task-id'],
  })
})

test.each([
  ['agent', 'run'],
  ['agent', 'run', '--help'],
  ['agent', 'run', '--task-id'],
  ['agent', 'run', '--task-id', taskId, 'something'],
  ['agent', 'run', '--task-id', taskId, '--model'],
  ['agent', 'run', `--task-id=${taskId}`],
  ['agent', 'run', '--prompt', 'x'],
  ['agent', 'run', '--task-id', taskId, '--prompt', 'x'],
  ['agent', 'run-cloud', '--prompt', 'x'],
  ['run', 'list'],
  [],
])('everything else is left to commander: %s %s %s %s', (...args) => {
  expect(readWorkerCommandLine(args)).toBeUndefined()
})
