import { existsSync, readFileSync, symlinkSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'
import { findProcesses } from '@openoz/machine'
import type { ModelAccess, SavedRepository } from '@openoz/protocol'
import { expect, test } from 'vitest'
import { git, makeRepository, startAgentFixture } from '../../../test/support/agent-fixture.ts'
import { startScriptedModel } from '../../../test/support/scripted-model.ts'

const wires: ModelAccess[] = [
  { id: 'openai/scripted', wire: 'openai-chat', base_path: '/llm/openai/v1' },
  { id: 'openai/gpt-5', wire: 'openai-responses', base_path: '/llm/openai/v1' },
  { id: 'anthropic/claude-sonnet-4-5', wire: 'anthropic-messages', base_path: '/llm/anthropic/v1' },
]

test.each(wires)('a run clones, works, commits, saves its branch and reports its outcome ($wire)', async (model) => {
  await using agent = await startAgentFixture({
    message: 'Make the test pass.',
    hello: { model },
    steps: [
      {
        text: ['I will ', 'fix it.'],
        toolCalls: [
          {
            name: 'edit_files',
            arguments: { edits: [{ type: 'replace', path: 'sum.txt', old_text: '3', new_text: '4' }] },
          },
        ],
      },
      { toolCalls: [{ name: 'run_command', arguments: { command: 'git commit -qam "Fix the sum" && cat sum.txt' } }] },
      { text: 'Fixed and committed.', usage: { input: 100, output: 20, cached: 40 } },
    ],
  })
  const origin = makeRepository(join(agent.folder, 'origin'), { 'sum.txt': '2 + 2 = 3\n', 'AGENTS.md': 'Be brief.' })
  agent.server.hello.config = { environment: { source_repos: [{ url: `file://${origin}` }] } }

  expect(await agent.run()).toEqual({ exitCode: 0 })

  const { server } = agent
  expect(server.eventsOf('turn_outcome').map(({ data }) => data)).toMatchObject([
    { turn_id: server.hello.turn.turn_id, outcome: 'SUCCEEDED', message: 'Fixed and committed.' },
  ])
  expect(server.events.map(({ n }) => n)).toEqual(server.events.map((_, index) => index + 1))
  expect(steps(server.eventsOf('setup_step'))).toEqual([
    'hello completed',
    'workspace started',
    'workspace completed',
    'clone started',
    'clone completed',
    'harness started',
    'harness completed',
    'teardown started',
    'teardown completed',
  ])
  const words = server.eventsOf('agent_message_chunk').map(({ data }) => (data.content as { text: string }).text)
  expect(words.join('|')).toContain('Fixed and committed.')

  const [first, second] = agent.model.requests
  expect(JSON.stringify(first?.body)).toContain('Be brief.')
  expect(first?.body.model).toBe(model.id)
  expect(JSON.stringify(second?.body)).toContain('+2 + 2 = 4')

  const [saved] = server.eventsOf('workspace_saved').flatMap(({ data }) => data.repositories as SavedRepository[])
  expect(saved).toMatchObject({
    dir: 'origin',
    url: `file://${origin}`,
    branch: `oz/${server.hello.run_id}`,
    base: git(origin, 'rev-parse', 'HEAD'),
    commits: 1,
    files_changed: 1,
    insertions: 1,
    deletions: 1,
    uncommitted: false,
  })
  writeFileSync(join(agent.folder, 'bundle'), server.blobs.get(saved?.bundle_blob_id ?? '') ?? '')
  git(origin, 'fetch', join(agent.folder, 'bundle'), 'refs/oz/head:refs/heads/result')
  expect(git(origin, 'show', 'result:sum.txt')).toBe('2 + 2 = 4')
  expect(server.blobs.get(saved?.diff_blob_id ?? '')?.toString()).toContain('+2 + 2 = 4')
  expect(git(origin, 'for-each-ref', 'refs/oz')).toBe('')
  expect(existsSync(join(agent.workspace, 'origin', '.git', 'refs', 'oz', 'head'))).toBe(false)
  expect(readFileSync(join(agent.workspace, 'origin', 'sum.txt'), 'utf8')).toBe('2 + 2 = 4\n')
})

function steps(events: { data: Record<string, unknown> }[]): string[] {
  return events.map(({ data }) => `${data.step} ${data.status}`)
}

test('what the model is told: base prompt first, then where it is, and the rules of the repository, each file once', async () => {
  await using agent = await startAgentFixture({ steps: [{ text: 'Read.' }] })
  const origin = makeRepository(join(agent.folder, 'origin'), { 'AGENTS.md': 'Rule one.', 'WARP.md': 'Rule two.' })
  symlinkSync('AGENTS.md', join(origin, 'CLAUDE.md'))
  git(origin, 'add', '--all')
  git(origin, 'commit', '-qm', 'Link')
  const environment = { source_repos: [{ url: `file://${origin}` }] }
  agent.server.hello.config = { base_prompt: 'You are our reviewer.', environment }
  await agent.run()
  const [system, user] = agent.model.requests[0]?.body.messages ?? []
  expect(system.content).toMatch(/^You are our reviewer\.\n\n# How to work/)
  expect(system.content).toContain(`Commands start in ${agent.workspace}/origin.`)
  expect(system.content.match(/Rule one/g).length).toBe(1)
  expect(system.content).toContain('Rule two.')
  expect(user.content).toBe('Do it.')
})

test('parts of the config that have no effect are named in the run’s log', async () => {
  await using agent = await startAgentFixture({ steps: [{ text: 'Hi.' }] })
  agent.server.hello.config = { environment: { docker_image: 'node:24' }, mcp_servers: { x: {} } }
  expect(await agent.run()).toEqual({ exitCode: 0 })
  const notices = agent.server.eventsOf('notice').map(({ data }) => data.text)
  expect(notices).toEqual([expect.stringContaining('The image node:24 does not apply'), expect.stringContaining('MCP')])
})

test.each([
  [{ setup_commands: ['exit 3'] }, 'setup_command_exited_shell'],
  [{ setup_commands: ['true', 'false'] }, 'setup_command_failed'],
  [{ setup_commands: ['sleep 1000'] }, 'setup_command_timeout'],
  [{ source_repos: [{ url: 'file:///absent/repo' }] }, 'repository_clone_failed'],
  [{ source_repos: [{ url: 'a/x' }, { url: 'b/x' }] }, 'repository_directory_conflict'],
])('an environment %j ends the run as FAILED, and no model is asked', async (environment, code) => {
  await using agent = await startAgentFixture({ limits: { setup_command_timeout_ms: 500 } })
  agent.server.hello.config = { environment }
  expect(await agent.run()).toEqual({ exitCode: 1 })
  const outcomes = agent.server.eventsOf('turn_outcome').map(({ data }) => data)
  expect(outcomes).toMatchObject([{ outcome: 'FAILED', error_code: code }])
  expect(outcomes[0]?.message).toMatch(/^Environment setup failed: /)
  expect(agent.model.requests).toEqual([])
  expect(steps(agent.server.eventsOf('setup_step')).slice(-2)).toEqual(['teardown started', 'teardown completed'])
})

test('what the setup exports is there for the tools, and CI is not', async () => {
  await using agent = await startAgentFixture({
    steps: [
      { toolCalls: [{ name: 'run_command', arguments: { command: 'echo "$GREETING, CI=$CI, $OZ_EXECUTION_ID"' } }] },
      { text: 'Hi.' },
    ],
  })
  agent.server.hello.config = { environment: { setup_commands: ['export GREETING=hello; unset OZ_EXECUTION_ID'] } }
  expect(await agent.run()).toEqual({ exitCode: 0 })
  const text = agent.server.eventsOf('terminal_output').at(-1)?.data.text
  expect(text).toBe(`hello, CI=, ${agent.server.hello.execution_id}\n`)
})

test('a daemon that the agent started is ended with the run', async () => {
  const command = 'setsid sh -c "sleep 1000" >/dev/null 2>&1 & echo started'
  await using agent = await startAgentFixture({
    steps: [{ toolCalls: [{ name: 'run_command', arguments: { command } }] }, { text: 'Done.' }],
  })
  expect(await agent.run()).toEqual({ exitCode: 0 })
  expect(await findProcesses({ marker: `OZ_EXECUTION_ID=${agent.server.hello.execution_id}` })).toEqual([])
})

test('a prompt of 5 MB with NUL and characters of four bytes arrives as it is', async () => {
  const message = `\0😀${'x'.repeat(5_000_000)}`
  const model: ModelAccess = {
    id: 'openai/scripted',
    wire: 'openai-chat',
    base_path: '/llm/openai/v1',
    context_window: 10_000_000,
  }
  await using agent = await startAgentFixture({ message, hello: { model }, steps: [{ text: 'Long: 😀\0.' }] })
  expect(await agent.run()).toEqual({ exitCode: 0 })
  expect(agent.model.requests[0]?.body.messages[1].content).toBe(message)
  expect(agent.server.eventsOf('turn_outcome')[0]?.data.message).toBe('Long: 😀\0.')
})

test('a model gateway at an address of its own is asked there, with the execution’s token, and its refusal of the execution is the end', async () => {
  const elsewhere = await startScriptedModel({
    handler: ({ number }) =>
      number === 0
        ? { toolCalls: [{ name: 'run_command', arguments: { command: 'echo hi' } }] }
        : {
            status: 401,
            headers: { 'x-oz-error-code': 'execution_superseded' },
            body: { error: { type: 'authentication_error', message: 'This execution is over.' } },
          },
  })
  const model = { id: 'openai/scripted', wire: 'openai-chat', base_path: '/llm/openai/v1', base_url: elsewhere.url }
  try {
    await using agent = await startAgentFixture({ hello: { model: model as ModelAccess } })
    expect(await agent.run()).toEqual({ exitCode: 1 })
    expect(agent.model.requests).toEqual([])
    expect(elsewhere.requests[0]?.headers.authorization).toBe(`Bearer ${agent.server.token}`)
    expect(elsewhere.requests.length).toBe(2)
    expect(agent.server.eventsOf('turn_outcome')).toEqual([])
  } finally {
    await elsewhere.close()
  }
})
