import { expect, test } from 'vitest'
import { launchArguments } from './launch-command.ts'
import { createAssignment } from './test-support/control-plane.ts'

const settings = { serverRootUrl: 'http://cp' }

test('the smallest task gets what every task gets', () => {
  const assignment = createAssignment()
  expect(launchArguments(assignment, settings)).toEqual(
    `agent run --task-id ${assignment.task_id} --sandboxed --server-root-url http://cp --computer-use --idle-on-complete`.split(
      ' ',
    ),
  )
})

test('everything that the snapshot says comes in the order of the reference', () => {
  const base = createAssignment({
    config: {
      model_id: 'openai/gpt-5',
      skill_spec: 'org/repo:skill',
      mcp_servers: { linear: { url: 'https://mcp', headers: { authorization: 'hidden' } } },
      computer_use_enabled: false,
      harness: { type: 'oz' },
      environment_id: 'env-1',
      idle_timeout_minutes: 0,
    },
    additional_oz_args: ['--verbose', '--x=y z'],
  })
  const assignment = { ...base, task: { ...base.task, owner: { Type: 'TEAM' as const, Id: 7 } } }
  const args = launchArguments(assignment, {
    ...settings,
    idleOnComplete: '45m',
    mcpFile: '/c/mcp.json',
    sessionSharingServerUrl: 'wss://share',
  })
  expect(args).toEqual([
    ...['agent', 'run', '--share', 'team:edit', '--task-id', assignment.task_id, '--sandboxed'],
    ...[
      '--server-root-url',
      'http://cp',
      '--model',
      'openai/gpt-5',
      '--skill',
      'org/repo:skill',
      '--mcp',
      '/c/mcp.json',
    ],
    ...['--no-computer-use', '--harness', 'oz', '--environment', 'env-1', '--verbose', '--x=y z'],
    ...['--idle-on-complete', '0m', '--session-sharing-server-url', 'wss://share'],
  ])
  expect(args.join(' ')).not.toContain('hidden')
})

test('a third-party harness gets neither our model nor computer use, and the worker’s idle window where the run names none', () => {
  const args = launchArguments(createAssignment({ config: { harness: { type: 'codex' }, model_id: 'm' } }), {
    ...settings,
    idleOnComplete: '1h 30m',
  })
  expect(args).not.toContain('--model')
  expect(args).toContain('--no-computer-use')
  expect(args.slice(-2)).toEqual(['--idle-on-complete', '1h 30m'])
})
