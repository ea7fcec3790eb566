import { once } from 'node:events'
import { writeFileSync } from 'node:fs'
import { join } from 'node:path'
import { findProcesses } from '@openoz/machine'
import { expect, test } from 'vitest'
import {
  type AgentFixture,
  type AgentFixtureOptions,
  git,
  makeRepository,
  startAgentFixture,
  startNextAgent,
} from '../../../test/support/agent-fixture.ts'
import { readKeptWork } from './kept-work-reader.ts'

async function startWithRepository(options: AgentFixtureOptions): Promise<AgentFixture> {
  const agent = await startAgentFixture(options)
  const origin = makeRepository(join(agent.folder, 'origin'), {})
  agent.server.hello.config = { environment: { source_repos: [{ url: `file://${origin}` }] } }
  return agent
}

const runsCommand = ({ type, data }: { type: string; data: Record<string, unknown> }) =>
  type === 'tool_call' && data.tool === 'run_command'

/** What the model is told first, as one text. */
function told(agent: AgentFixture): string {
  const { messages } = agent.model.requests[0]?.body ?? {}
  return messages.map(({ content }: { content: string }) => content).join('\n')
}

test('a killed agent’s work goes on from its last checkpoint, without its prompt being sent again', async () => {
  const steps = [
    { toolCalls: [{ name: 'edit_files', arguments: { edits: [{ type: 'create', path: 'one.txt', content: '1' }] } }] },
    { toolCalls: [{ name: 'run_command', arguments: { command: 'git add -A; git commit -qm One; sleep 1000' } }] },
  ]
  await using first = await startWithRepository({ steps, message: 'Make two files.' })
  const child = first.spawn()
  await first.server.waitFor(runsCommand)
  child.kill('SIGKILL')
  await once(child, 'exit')
  const kept = readKeptWork(first.spool)
  expect(kept.workspace?.workspace.repositories).toMatchObject([{ dir: 'origin' }])
  expect(kept.checkpoint).toMatchObject({ harness: 'oz', takenMessageIds: [] })

  await using second = await startNextAgent(
    first,
    { reason: 'retry' },
    { handler: () => ({ text: 'Both are there.' }) },
  )
  expect(await second.run()).toEqual({ exitCode: 0 })

  const { messages } = second.model.requests[0]?.body ?? {}
  expect(messages.map(({ role }: { role: string }) => role)).toEqual(['system', 'user', 'assistant', 'tool', 'user'])
  expect(messages[1].content).toBe('Make two files.')
  expect(messages[4].content).toMatch(/this is attempt 2 .*\norigin: nothing was saved of it; it is as freshly cloned/s)
  expect(second.server.eventsOf('checkpoint').at(-1)?.data).toMatchObject({ step: 2 })
  // What the first left running belongs to the worker to end; here nobody is.
  for (const { pid } of await findProcesses({ marker: `OZ_EXECUTION_ID=${first.server.hello.execution_id}` }))
    process.kill(pid, 'SIGKILL')
})

test('an agent that was stopped is continued with its workspace, commits and uncommitted work', async () => {
  const commit = 'git add -A; git commit -qm One; echo two > two.txt; echo ready; sleep 1000'
  const steps = [
    { toolCalls: [{ name: 'edit_files', arguments: { edits: [{ type: 'create', path: 'one.txt', content: '1' }] } }] },
    { toolCalls: [{ name: 'run_command', arguments: { command: commit } }] },
  ]
  await using first = await startWithRepository({ steps })
  const running = first.run()
  await first.server.waitFor(({ data }) => JSON.stringify(data).includes('ready\\n'))
  first.stop.abort()
  expect(await running).toEqual({ exitCode: 143 })

  const { run_id } = first.server.hello
  const look = { name: 'run_command', arguments: { command: 'git log --format=%s; git status --short' } }
  await using second = await startNextAgent(
    first,
    { reason: 'retry' },
    { steps: [{ toolCalls: [look] }, { text: 'Done.' }] },
  )
  expect(await second.run()).toEqual({ exitCode: 0 })
  const [output] = second.server.eventsOf('terminal_output').slice(-1)
  expect(output?.data.text).toBe('One\nBegin\n?? two.txt\n')
  const { messages } = second.model.requests[0]?.body ?? {}
  expect(messages.at(-1).content).toContain(
    `origin: back at branch oz/${run_id} with 1 new commit, with what was not committed.`,
  )
  const saved = second.server.eventsOf('workspace_saved')[0]?.data.repositories
  expect(saved).toMatchObject([{ commits: 1, uncommitted: true, files_changed: 2 }])
  expect(git(join(second.workspace, 'origin'), 'branch', '--show-current')).toBe(`oz/${run_id}`)
})

test('a turn that was answered before the agent died is not asked again', async () => {
  await using first = await startAgentFixture({ steps: [{ text: 'Done.' }] })
  await first.run()
  await using second = await startNextAgent(first, { reason: 'retry' }, { steps: [] })
  expect(await second.run()).toEqual({ exitCode: 0 })
  expect(second.model.requests).toEqual([])
  expect(second.server.eventsOf('turn_outcome')[0]?.data).toMatchObject({ outcome: 'SUCCEEDED', message: 'Done.' })
})

test('a follow-up is asked in the conversation that there was', async () => {
  await using first = await startAgentFixture({ steps: [{ text: 'Four.' }], message: '2 + 2?' })
  await first.run()
  const next = { steps: [{ text: 'Five.' }], message: 'Plus one?' }
  await using second = await startNextAgent(first, { reason: 'follow_up' }, next)
  expect(await second.run()).toEqual({ exitCode: 0 })
  expect(told(second)).toMatch(/\n2 \+ 2\?\nFour\.\nNote from openoz: you go on in another process.*\nPlus one\?$/s)
})

test.each([
  ['retry', 'this is attempt 2 of this run'],
  ['follow_up', 'you go on in another process'],
  ['conversation', 'this conversation goes on in a new run'],
] as const)(
  'files that were lost with their machine are named to people and to the model (%s)',
  async (reason, about) => {
    const edit = { type: 'create', path: 'work.txt', content: 'lost' }
    const steps = [{ toolCalls: [{ name: 'edit_files', arguments: { edits: [edit] } }] }, { text: 'Written.' }]
    await using first = await startWithRepository({ steps })
    await first.run()
    const next = { steps: [{ text: 'Looked.' }], message: 'Is it there?', hello: { workspace: null } }
    await using second = await startNextAgent(first, { reason, isStale: true }, next)
    // A retried turn that was answered needs no model, so here another one is retried.
    if (reason === 'retry') second.server.hello.turn = { ...second.server.hello.turn, turn_id: crypto.randomUUID() }
    expect(await second.run()).toEqual({ exitCode: 0 })
    expect(told(second)).toContain(about)
    expect(told(second)).toContain('you remember work that is not on this disk')
    const warnings = second.server.eventsOf('notice').filter(({ data }) => data.level === 'warning')
    expect(warnings.map(({ data }) => data.text)).toEqual([expect.stringContaining('are lost with it')])
  },
)

test.each([
  [[], 'you remember work that is not on this disk', 'are lost with it'],
  [['of-the-image.txt'], 'you may remember work that is not on this disk', 'If this is another machine'],
])(
  'files that lay in no repository and were lost with their machine are named as well (found there: %j)',
  async (found, toModel, toPeople) => {
    const write = { name: 'run_command', arguments: { command: 'echo lost > work.txt' } }
    await using first = await startAgentFixture({ steps: [{ toolCalls: [write] }, { text: 'Written.' }] })
    await first.run()
    const next = { steps: [{ text: 'Looked.' }], message: 'Is it there?', hello: { workspace: null } }
    await using second = await startNextAgent(first, { reason: 'follow_up', isStale: true }, next)
    for (const name of found) writeFileSync(join(second.workspace, name), '')
    expect(await second.run()).toEqual({ exitCode: 0 })
    expect(told(second)).toContain(toModel)
    const warnings = second.server.eventsOf('notice').filter(({ data }) => data.level === 'warning')
    expect(warnings.map(({ data }) => data.text)).toEqual([expect.stringContaining(toPeople)])
  },
)

test('who is stopped while the workspace is put back does not save the half of it in its place', async () => {
  const write = { name: 'run_command', arguments: { command: 'echo kept > work.txt' } }
  await using first = await startWithRepository({ steps: [{ toolCalls: [write] }, { text: 'Written.' }] })
  await first.run()
  await using second = await startNextAgent(first, { reason: 'follow_up' }, { steps: [] })
  second.server.blobTrouble.push('hold')
  const running = second.run()
  await expect.poll(() => second.server.blobTrouble.length, { timeout: 20_000 }).toBe(0)
  second.server.send({ id: crypto.randomUUID(), type: 'cancel', payload: { reason: 'user' } })
  expect(await running).toEqual({ exitCode: 1 })
  expect(second.server.eventsOf('turn_outcome')[0]?.data).toMatchObject({ outcome: 'CANCELLED' })
  expect(second.server.eventsOf('workspace_saved')).toEqual([])
})

test('a workspace whose folder is still there is not stale', async () => {
  const edit = { type: 'create', path: 'work.txt', content: 'kept' }
  const steps = [{ toolCalls: [{ name: 'edit_files', arguments: { edits: [edit] } }] }, { text: 'Written.' }]
  await using first = await startWithRepository({ steps })
  await first.run()
  const next = { steps: [{ text: 'Looked.' }], workspace: first.workspace, hello: { workspace: null } }
  await using second = await startNextAgent(first, { reason: 'follow_up', isStale: true }, next)
  expect(await second.run()).toEqual({ exitCode: 0 })
  expect(told(second)).toContain('its folder is still there')
  expect(told(second)).not.toContain('not on this disk')
  expect(second.server.eventsOf('notice').filter(({ data }) => data.level === 'warning')).toEqual([])
})

test('files outside of repositories come back as well, also for a run without any', async () => {
  const write = { name: 'run_command', arguments: { command: 'mkdir notes; echo kept > notes/a.txt' } }
  await using first = await startAgentFixture({ steps: [{ toolCalls: [write] }, { text: 'Written.' }] })
  await first.run()
  const read = { name: 'run_command', arguments: { command: 'cat notes/a.txt' } }
  const next = { steps: [{ toolCalls: [read] }, { text: 'Read.' }], message: 'Read it.' }
  await using second = await startNextAgent(first, { reason: 'follow_up' }, next)
  expect(await second.run()).toEqual({ exitCode: 0 })
  expect(second.server.eventsOf('terminal_output').at(-1)?.data.text).toBe('kept\n')
  expect(told(second)).toContain('Files outside of repositories: they are back.')
})

test('a workspace that is empty again is saved as such', async () => {
  const run = (command: string) => ({ toolCalls: [{ name: 'run_command', arguments: { command } }] })
  await using agent = await startAgentFixture({
    hello: { idle_timeout_ms: 100 },
    steps: [run('echo a > a.txt'), { text: 'Written.' }, run('rm a.txt'), { text: 'Removed.' }],
  })
  agent.server.queueTurn('Remove it.', { isQuiet: true })
  expect(await agent.run()).toEqual({ exitCode: 0 })
  const saved = agent.server.eventsOf('workspace_saved').map(({ data }) => data.repositories)
  expect(saved).toEqual([[expect.objectContaining({ dir: '.' })], []])
})
