import { mkdirSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'
import { expect, test } from 'vitest'
import { type AgentFixture, makeRepository, startAgentFixture } from '../../../test/support/agent-fixture.ts'

const oneCommand = (command: string) => [
  { toolCalls: [{ name: 'run_command', arguments: { command } }] },
  { text: 'Done.' },
]
const terminal = ({ server }: AgentFixture) =>
  server
    .eventsOf('terminal_output')
    .map(({ data }) => data.text)
    .join('')
const notices = ({ server }: AgentFixture) => server.eventsOf('notice').map(({ data }) => data.text)

test('variables of an environment are there for setup commands and tools, PATH among them', async () => {
  const tools = 'echo "tool: $GREETING, $(greet), CI=$CI"'
  await using agent = await startAgentFixture({ steps: oneCommand(tools), env: { CI: 'ours' } })
  const bin = join(agent.folder, 'bin')
  mkdirSync(bin)
  writeFileSync(join(bin, 'greet'), '#!/bin/sh\necho found\n', { mode: 0o755 })
  agent.server.hello.config = {
    environment: {
      setup_commands: ['mkdir -p sub && cd sub && echo "setup: $GREETING, $(greet), CI=$CI"', 'pwd'],
      variables: { GREETING: 'two words & "quotes"', PATH: `${bin}:${process.env.PATH}` },
    },
  }
  expect(await agent.run()).toMatchObject({ exitCode: 0 })
  expect(terminal(agent)).toBe(
    [
      'setup: two words & "quotes", found, CI=true',
      agent.workspace,
      'tool: two words & "quotes", found, CI=ours',
      '',
    ].join('\n'),
  )
})

test('what belongs to the platform is not for an environment to set, and the log says so', async () => {
  const names = ['OZ_RUN_ID', 'WARP_RUN_ID', 'OZ_EXECUTION_ID', 'GIT_CONFIG_COUNT', 'GIT_TERMINAL_PROMPT']
  await using agent = await startAgentFixture({
    steps: oneCommand(`echo "${names.map((name) => `$${name}`).join(' ')} $OZONE"`),
    env: { GIT_CONFIG_COUNT: '0' },
  })
  const variables = Object.fromEntries([...names, 'OZONE'].map((name) => [name, 'theirs']))
  agent.server.hello.config = { environment: { variables } }
  expect(await agent.run()).toMatchObject({ exitCode: 0 })
  const { run_id, execution_id } = agent.server.hello
  expect(terminal(agent)).toBe(`${run_id} ${run_id} ${execution_id} 0 0 theirs\n`)
  expect(notices(agent)).toEqual([
    'Variables that an environment cannot set are left out: OZ_RUN_ID, WARP_RUN_ID, OZ_EXECUTION_ID, GIT_CONFIG_COUNT.',
  ])
})

test('a repository that is named twice is cloned once', async () => {
  await using agent = await startAgentFixture({ steps: oneCommand('pwd') })
  const url = `file://${makeRepository(join(agent.folder, 'origin'), { 'a.txt': 'a' })}`
  agent.server.hello.config = { environment: { source_repos: [{ url }, { url: `${url}/` }, { url, dir: 'origin' }] } }
  expect(await agent.run()).toMatchObject({ exitCode: 0 })
  const clones = agent.server.eventsOf('setup_step').filter(({ data }) => data.step === 'clone')
  expect(clones.map(({ data }) => data.status)).toEqual(['started', 'completed'])
  expect(terminal(agent)).toContain(`${join(agent.workspace, 'origin')}\n`)
})

test('a run on a machine of its own says what is meant for a container and does not apply', async () => {
  await using agent = await startAgentFixture({
    steps: [{ text: 'Hi.' }],
    hello: { execution_location: 'LOCAL' },
    env: { OZ_WORKER_BACKEND: undefined },
  })
  agent.server.hello.config = {
    environment: { docker_image: 'node:24' },
    instance_shape: { vcpus: 2, memory_gb: 4 },
    additional_sidecars: [{ image: 'tools', mount_path: '/tools' }],
  }
  expect(await agent.run()).toMatchObject({ exitCode: 0 })
  expect(notices(agent)).toEqual([
    'The image node:24 does not apply: this run works on the machine itself.',
    'The instance shape does not apply: this run works on the machine itself.',
    'The additional sidecars do not apply: this run works on the machine itself.',
  ])
})
