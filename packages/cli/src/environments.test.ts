import { CommanderError } from 'commander'
import { expect, test } from 'vitest'
import { registerAgent } from './commands/agent.ts'
import { registerEnvironment } from './commands/environment.ts'
import { createProgram } from './global-options.ts'
import { reportError } from './output.ts'
import { useControlPlane } from './test-support/control-plane.ts'
import { runOz } from './test-support/run-program.ts'

/** `oz environment` against one real control plane without a worker. */
const home = useControlPlane()

const oz = (...args: string[]) => runOz(args, home.env)
const ozJson = async (...args: string[]) => JSON.parse((await oz(...args, '--output-format', 'json')).stdout)

test('an environment is created, listed, shown, changed and deleted', async () => {
  const none = await oz('environment', 'list')
  expect(none).toMatchObject({ exitCode: 0, stdout: '', stderr: expect.stringContaining('No environments.') })
  const flags = [
    '--name',
    'shop',
    '-r',
    'acme/shop',
    '-c',
    'npm ci',
    '--variable',
    'NODE_ENV=test',
    '--description',
    'D',
  ]
  const created = await oz('environment', 'create', ...flags)
  const uid = /^Created environment (\S+)\.$/m.exec(created.stdout)?.[1] ?? ''
  expect(created.exitCode).toBe(0)
  expect(created.stdout).toMatch(/^Repositories +acme\/shop$/m)

  const listed = await oz('e', 'list', '--output-format', 'json')
  expect(listed.stdout.endsWith(']')).toBe(true)
  expect(JSON.parse(listed.stdout)).toMatchObject([{ uid, scope: { type: 'Team' }, setup_failed: false }])
  expect((await oz('environment', 'list', '--output-format', 'text')).stdout).toMatch(
    new RegExp(`^${uid} +shop +acme/shop +- +team`, 'm'),
  )

  const personal = await ozJson('environment', 'create', '-n', 'mine', '--personal', '-d', 'node:24')
  expect(personal).toMatchObject({ scope: { type: 'User' }, config: { name: 'mine', docker_image: 'node:24' } })
  const sorted = await oz('environment', 'list', '--sort-by', 'name', '--output-format', 'ndjson')
  expect(sorted.stdout.trim().split('\n')).toHaveLength(2)

  const updated = await oz('environment', 'update', uid, '-c', 'npm test', '--remove-description', '--force')
  expect(updated).toMatchObject({ exitCode: 0, stdout: `Updated environment ${uid}.\n` })
  const { config } = await ozJson('environment', 'get', uid)
  expect(config).toEqual({
    name: 'shop',
    github_repos: [{ owner: 'acme', repo: 'shop' }],
    setup_commands: ['npm ci', 'npm test'],
    variables: { NODE_ENV: 'test' },
  })

  expect(await oz('environment', 'delete', uid)).toMatchObject({
    exitCode: 2,
    stderr: expect.stringContaining('--force'),
  })
  expect(await ozJson('environment', 'delete', uid, '--force')).toEqual({ uid, deleted: true })
  expect(await oz('environment', 'get', uid)).toMatchObject({
    exitCode: 1,
    stderr: expect.stringContaining('environment_not_found'),
  })
})

test('what the server refuses is said in words', async () => {
  const long = await oz('environment', 'create', '-n', 'x', '--description', 'x'.repeat(241))
  expect(long).toMatchObject({ exitCode: 1, stderr: expect.stringMatching(/description.*at most 240 characters/) })
  const unknown = await oz('agent', 'run-cloud', '-p', 'x', '-e', crypto.randomUUID())
  expect(unknown).toMatchObject({ exitCode: 1, stderr: expect.stringContaining('oz environment list') })
})

test('a run is started in an environment', async () => {
  const { uid } = await ozJson('environment', 'create', '-n', 'shop', '-r', 'acme/shop')
  const start = ['agent', 'run-cloud', '-p', 'x', '--host', 'nobody', '--environment', uid]
  const { run_id } = await ozJson(...start)
  const shown = await oz('run', 'get', run_id)
  expect(shown.stdout).toMatch(new RegExp(`^Environment +${uid}$`, 'm'))
  expect(shown.stdout).toMatch(/^Repositories +acme\/shop$/m)
  await ozJson('environment', 'delete', uid, '--force')
})

test.each([
  'agent run-cloud -p x -e E --no-environment',
  'agent run-cloud -p x --no-environment -e E',
  'agent run-cloud -p x -e E --repo acme/other',
  'agent run-cloud -p x -e E --setup-command make',
  'environment create --team --personal',
  'environment update E --description x --remove-description',
  'environment update E -d x --remove-docker-image',
  'environment get',
  'environment list --sort-by size',
])('`oz %s` is wrong use', async (line) => {
  const program = createProgram({}).configureOutput({ writeErr: () => {} })
  registerAgent(program)
  registerEnvironment(program)
  for (const command of program.commands.flatMap((group) => [group, ...group.commands]))
    command.exitOverride().configureOutput({ writeErr: () => {} })
  const error = await program.parseAsync(line.split(' '), { from: 'user' }).catch((thrown: unknown) => thrown)
  expect(error).toBeInstanceOf(CommanderError)
  const stderr = { write: () => true }
  expect(reportError(error, { format: 'text', debug: false, stderr, env: {} })).toBe(2)
})

test('an environment of nothing, without a name for it or of what is no repository is not made', async () => {
  for (const args of [[], ['--personal'], ['--name', '']])
    expect((await oz('environment', 'create', ...args)).exitCode).toBe(2)
  const { exitCode, stderr } = await oz('environment', 'create', '--repo', 'not a repo')
  expect({ exitCode, stderr }).toEqual({ exitCode: 1, stderr: expect.stringContaining('"not a repo" is no address') })
})

test('an update that changes nothing is wrong use, before anything is asked', async () => {
  expect((await oz('environment', 'update', crypto.randomUUID())).exitCode).toBe(2)
})
