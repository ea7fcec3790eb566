import { once } from 'node:events'
import { existsSync, readdirSync, readFileSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'
import { findProcesses } from '@openoz/machine'
import { expect, test } from 'vitest'
import {
  type AgentFixture,
  type AgentFixtureOptions,
  git,
  makeRepository,
  startAgentFixture,
} from '../../../test/support/agent-fixture.ts'

const hanging = {
  toolCalls: [
    { name: 'edit_files', arguments: { edits: [{ type: 'create', path: 'work.txt', content: 'half done' }] } },
    { name: 'run_command', arguments: { command: 'setsid sleep 1000 & sleep 1000' } },
  ],
}

async function startHanging(options: AgentFixtureOptions = {}): Promise<AgentFixture> {
  const agent = await startAgentFixture({ steps: [hanging], ...options })
  const origin = makeRepository(join(agent.folder, 'origin'), {})
  agent.server.hello.config = { environment: { source_repos: [{ url: `file://${origin}` }] } }
  return agent
}

const runsCommand = ({ type, data }: { type: string; data: Record<string, unknown> }) =>
  type === 'tool_call' && data.tool === 'run_command'

function leftOver(agent: AgentFixture) {
  return findProcesses({ marker: `OZ_EXECUTION_ID=${agent.server.hello.execution_id}` })
}

const cancel = () => ({ id: crypto.randomUUID(), type: 'cancel' as const, payload: { reason: 'user' } })

test('a cancel in the middle of a command ends its whole tree, saves the workspace and reports CANCELLED', async () => {
  await using agent = await startHanging()
  const running = agent.run()
  await agent.server.waitFor(runsCommand)
  const command = cancel()
  const start = performance.now()
  agent.server.send(command)
  expect(await running).toEqual({ exitCode: 1 })
  expect(performance.now() - start).toBeLessThan(10_000)

  expect(agent.server.eventsOf('turn_outcome').map(({ data }) => data)).toMatchObject([
    { turn_id: agent.server.hello.turn.turn_id, outcome: 'CANCELLED', message: 'Cancelled by user' },
  ])
  const [update] = agent.server.eventsOf('tool_call_update').slice(-1)
  expect(update?.data).toMatchObject({ status: 'failed' })
  const [saved] = agent.server.eventsOf('workspace_saved')
  expect(saved?.data.repositories).toMatchObject([{ uncommitted: true, files_changed: 1 }])
  expect(agent.server.acknowledgedCommands).toEqual([command.id])
  expect(await leftOver(agent)).toEqual([])
  const checkpoint = agent.server.eventsOf('checkpoint').at(-1)?.data.blob_id as string
  const { messages } = JSON.parse(agent.server.blobs.get(checkpoint)?.toString() ?? '')
  expect(JSON.stringify(messages.at(-1))).toContain('This call was stopped before it ended')
})

test('a cancel in the middle of the model’s answer stops the request', async () => {
  await using agent = await startAgentFixture({ steps: [{ text: ['I am ', 'thinking'], hangAfterPieces: 2 }] })
  const running = agent.run()
  await agent.server.waitFor(({ type }) => type === 'agent_message_chunk')
  agent.server.send(cancel())
  expect(await running).toEqual({ exitCode: 1 })
  expect(agent.server.eventsOf('turn_outcome')[0]?.data).toMatchObject({ outcome: 'CANCELLED' })
  await expect.poll(() => agent.model.requests[0]?.wasAborted).toBe(true)
})

test('a cancel during the setup stops it', async () => {
  await using agent = await startAgentFixture({
    hello: { config: { environment: { setup_commands: ['sleep 1000'] } } },
  })
  const running = agent.run()
  await agent.server.waitFor(({ data }) => data.step === 'setup_command')
  agent.server.send(cancel())
  expect(await running).toEqual({ exitCode: 1 })
  expect(agent.server.eventsOf('turn_outcome')[0]?.data).toMatchObject({ outcome: 'CANCELLED' })
  expect(await leftOver(agent)).toEqual([])
})

test('an agent that is asked to stop saves the workspace, gives no outcome and exits with 143', async () => {
  await using agent = await startHanging()
  const running = agent.run()
  await agent.server.waitFor(runsCommand)
  agent.stop.abort()
  expect(await running).toEqual({ exitCode: 143 })
  expect(agent.server.eventsOf('workspace_saved').length).toBe(1)
  expect(agent.server.eventsOf('turn_outcome')).toEqual([])
  expect(await leftOver(agent)).toEqual([])
})

test('SIGTERM does the same to the process, which leaves nothing behind', async () => {
  await using agent = await startHanging()
  const child = agent.spawn()
  await agent.server.waitFor(runsCommand)
  child.kill('SIGTERM')
  expect(await once(child, 'exit')).toEqual([143, null])
  expect(agent.server.eventsOf('workspace_saved').length).toBe(1)
  expect(await leftOver(agent)).toEqual([])
})

test('an agent whose execution was taken over stops and says nothing more', async () => {
  await using agent = await startHanging()
  const running = agent.run()
  await agent.server.waitFor(runsCommand)
  agent.server.refuseWith('execution_superseded')
  expect(await running).toEqual({ exitCode: 1 })
  expect(agent.server.eventsOf('turn_outcome')).toEqual([])
  expect(agent.server.eventsOf('workspace_saved')).toEqual([])
  expect(await leftOver(agent)).toEqual([])
})

test('a stop from the control plane is silent too', async () => {
  await using agent = await startHanging()
  const running = agent.run()
  await agent.server.waitFor(runsCommand)
  agent.server.send({ id: crypto.randomUUID(), type: 'stop', payload: { reason: 'superseded' } })
  expect(await running).toEqual({ exitCode: 1 })
  expect(agent.server.eventsOf('turn_outcome')).toEqual([])
  expect(await leftOver(agent)).toEqual([])
})

test('an agent that cannot renew its lease stops its tools, saves its work beside the spool and keeps the spool', async () => {
  await using agent = await startHanging({ limits: { stop_after_ms: 1_500 } })
  const running = agent.run()
  await agent.server.waitFor(runsCommand)
  agent.server.setAway(true)
  expect(await running).toEqual({ exitCode: 75 })
  expect(await leftOver(agent)).toEqual([])
  const folder = join(agent.spool, 'saved-workspace')
  const saved = JSON.parse(readFileSync(join(folder, 'saved.json'), 'utf8'))
  expect(saved.repositories).toMatchObject([{ uncommitted: true, files_changed: 1 }])
  // As an operator gets at it, see docs/operations.md.
  const clone = join(agent.folder, 'origin')
  git(clone, 'fetch', '--quiet', join(folder, saved.repositories[0].bundle_blob_id), 'refs/oz/*:refs/oz/*')
  git(clone, 'switch', '--quiet', '--create', 'rescued', 'refs/oz/worktree')
  expect(readFileSync(join(clone, 'work.txt'), 'utf8')).toBe('half done')
  expect(readdirSync(agent.spool).some((name) => name.startsWith('events-'))).toBe(true)
})

test('of a workspace in which nothing was made no copy is left when the lease is lost', async () => {
  const { toolCalls } = hanging
  await using agent = await startAgentFixture({
    steps: [{ toolCalls: toolCalls.slice(1) }],
    limits: { stop_after_ms: 1_500 },
  })
  const running = agent.run()
  await agent.server.waitFor(runsCommand)
  agent.server.setAway(true)
  expect(await running).toEqual({ exitCode: 75 })
  expect(existsSync(join(agent.spool, 'kept'))).toBe(true)
  expect(existsSync(join(agent.spool, 'saved-workspace'))).toBe(false)
})

test('a control plane that is away for a while is not noticed by the run', async () => {
  await using agent = await startAgentFixture({
    steps: [
      {
        toolCalls: [
          { name: 'run_command', arguments: { command: 'echo begun; until [ -e go ]; do sleep 0.05; done' } },
        ],
      },
      { text: 'Done.' },
    ],
  })
  const running = agent.run()
  await agent.server.waitFor(({ type }) => type === 'terminal_output')
  agent.server.setAway(true)
  writeFileSync(join(agent.workspace, 'go'), '')
  await new Promise((resolve) => setTimeout(resolve, 1_000))
  agent.server.setAway(false)
  expect(await running).toEqual({ exitCode: 0 })
  expect(agent.server.eventsOf('turn_outcome')[0]?.data).toMatchObject({ outcome: 'SUCCEEDED' })
})

test('an agent whose token is not valid exits quietly', async () => {
  await using agent = await startAgentFixture()
  agent.server.refuseWith('execution_token_ended')
  expect(await agent.run()).toMatchObject({ exitCode: 1 })
  expect(agent.server.events).toEqual([])
})

test('what the environment says of us does not reach tools', async () => {
  await using agent = await startAgentFixture({
    steps: [
      {
        toolCalls: [
          {
            name: 'run_command',
            arguments: { command: 'env; cat "$TMPDIR"/token-* 2>/dev/null; tr "\\0" "\\n" </proc/$PPID/environ' },
          },
        ],
      },
      { text: 'Done.' },
    ],
  })
  const child = agent.spawn()
  expect(await once(child, 'exit')).toEqual([0, null])
  const text = JSON.stringify(agent.server.events) + JSON.stringify(agent.model.requests.map(({ body }) => body))
  expect(text).not.toContain(agent.server.token)
  expect(text).toContain(`OZ_RUN_ID=${agent.server.hello.run_id}`)
  expect(text).not.toContain('***')
})
