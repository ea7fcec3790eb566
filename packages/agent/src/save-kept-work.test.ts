import { once } from 'node:events'
import { existsSync, mkdirSync, readdirSync, readFileSync, rmSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'
import { endProcessTree, openSpool } from '@openoz/machine'
import type { HelloResponse } from '@openoz/protocol'
import { pino } from 'pino'
import { expect, test } from 'vitest'
import {
  type AgentFixture,
  type AgentFixtureOptions,
  git,
  makeRepository,
  startAgentFixture,
} from '../../../test/support/agent-fixture.ts'
import { openKeptWork } from './kept-work.ts'
import { readKeptWork } from './kept-work-reader.ts'
import { saveKeptWork } from './save-kept-work.ts'

/** What the worker does with what a dead agent left, without the worker. */
function saveLeft({ server, spool, env }: AgentFixture, options: { timeoutMs?: number; signal?: AbortSignal } = {}) {
  return saveKeptWork({
    serverUrl: server.url,
    executionToken: server.token,
    spoolDir: spool,
    env,
    log: pino({ level: process.env.OZ_TEST_LOG ?? 'silent' }),
    signal: new AbortController().signal,
    ...options,
  })
}

/** What was not synced: the last lines of the last segment, and the word on what is acknowledged. */
function loseLastEvents(spool: string, count: number): void {
  rmSync(join(spool, 'acked'), { force: true })
  const last =
    readdirSync(spool)
      .filter((name) => name.startsWith('events-'))
      .sort()
      .at(-1) ?? ''
  const lines = readFileSync(join(spool, last), 'utf8').split('\n').slice(0, -1)
  expect(lines.length).toBeGreaterThan(count)
  writeFileSync(
    join(spool, last),
    lines
      .slice(0, -count)
      .map((line) => `${line}\n`)
      .join(''),
  )
}

const command = (text: string) => ({ toolCalls: [{ name: 'run_command', arguments: { command: text } }] })

/** An agent that is killed when its model has been asked for the second time: one command is done, nothing of it is saved. */
async function startKilled(firstCommand: string, options: AgentFixtureOptions = {}): Promise<AgentFixture> {
  const agent = await startAgentFixture({
    steps: [command(firstCommand), { hangAfterPieces: 0 }],
    message: 'Make it.',
    ...options,
  })
  const origin = makeRepository(join(agent.folder, 'origin'), { 'a.txt': 'a\n' })
  if (!options.hello) agent.server.hello.config = { environment: { source_repos: [{ url: `file://${origin}` }] } }
  const child = agent.spawn()
  await expect.poll(() => agent.model.requests.length, { timeout: 20_000 }).toBe(2)
  child.kill('SIGKILL')
  await once(child, 'exit')
  await endProcessTree({ marker: `OZ_EXECUTION_ID=${agent.server.hello.execution_id}` }, 0)
  return agent
}

async function startNext(first: AgentFixture, options: AgentFixtureOptions): Promise<AgentFixture> {
  const { run_id, config, turn } = first.server.hello
  const last = (type: string) => (first.server.eventsOf(type).at(-1)?.data ?? null) as never
  const continues: HelloResponse['continues'] = { reason: 'retry', is_workspace_stale: false }
  const state = { checkpoint: last('checkpoint'), workspace: last('workspace_saved'), continues }
  const second = await startAgentFixture({ ...options, hello: { run_id, config, turn, attempt: 2, ...state } })
  for (const [id, bytes] of first.server.blobs) second.server.blobs.set(id, bytes)
  return second
}

test('files that a killed agent changed without a commit are there for the next one, which repeats nothing', async () => {
  await using first = await startKilled(
    'echo run >> count.txt; echo changed > a.txt; chmod +x a.txt; git rm -q --cached a.txt',
  )
  expect(readKeptWork(first.spool).checkpoint).toBeDefined()
  const before = first.server.events.length
  expect(await saveLeft(first)).toEqual({ saved: true, leftOut: [] })
  expect(existsSync(join(first.spool, 'kept'))).toBe(false)
  const said = first.server.events.slice(before).map(({ type }) => type)
  expect(said.slice(-2)).toEqual(['notice', 'workspace_saved'])
  expect(first.server.events.map(({ n }) => n)).toEqual(first.server.events.map((_, i) => i + 1))

  await using second = await startNext(first, { steps: [command('cat count.txt a.txt'), { text: 'Done.' }] })
  expect(await second.run()).toEqual({ exitCode: 0 })
  expect(second.server.eventsOf('terminal_output').at(-1)?.data.text).toBe('run\nchanged\n')
  const asked = second.model.requests[0]?.body.messages as { role: string; content: string }[]
  expect(asked.filter(({ role }) => role === 'tool')).toHaveLength(1)
  expect(asked.filter(({ content }) => content === 'Make it.')).toHaveLength(1)
})

test('a call that was cut off by the death of its agent ends for those who look on, as it does for the model', async () => {
  const calls = ['echo done', 'echo begun; sleep 1000', 'echo never'].map((text) => command(text).toolCalls[0])
  await using first = await startAgentFixture({ steps: [{ toolCalls: calls.filter((call) => call !== undefined) }] })
  const child = first.spawn()
  await first.server.waitFor(({ data }) => data.text === 'begun\n')
  child.kill('SIGKILL')
  await once(child, 'exit')
  await endProcessTree({ marker: `OZ_EXECUTION_ID=${first.server.hello.execution_id}` }, 0)
  const open = new Set(first.server.eventsOf('tool_call').map(({ data }) => data.toolCallId))
  for (const { data } of first.server.eventsOf('tool_call_update')) open.delete(data.toolCallId)
  expect(open.size).toBe(1)
  await saveLeft(first)

  await using second = await startNext(first, { steps: [{ text: 'Done.' }] })
  expect(await second.run()).toEqual({ exitCode: 0 })
  const [update, ...more] = second.server.eventsOf('tool_call_update').map(({ data }) => data)
  expect(update).toMatchObject({ toolCallId: [...open][0], status: 'failed' })
  expect(JSON.stringify(update)).toContain('Interrupted')
  expect(more).toEqual([])
})

test('a report in a workspace without a repository is there for the next one', async () => {
  await using first = await startKilled('echo "# Report" > report.md', { hello: { config: {} } })
  expect((await saveLeft(first)).saved).toBe(true)
  await using second = await startNext(first, { steps: [command('cat report.md'), { text: 'Done.' }] })
  expect(await second.run()).toEqual({ exitCode: 0 })
  expect(second.server.eventsOf('terminal_output').at(-1)?.data.text).toBe('# Report\n')
  expect(existsSync(join(second.workspace, '.git'))).toBe(false)
})

test('a workspace in which nothing is left is saved as such: what was saved before does not come back', async () => {
  await using first = await startKilled('echo x > new.txt && rm new.txt', { hello: { config: {} } })
  expect(await saveLeft(first)).toEqual({ saved: true, leftOut: [] })
  expect(first.server.eventsOf('workspace_saved').map(({ data }) => data)).toMatchObject([
    { repositories: [], left_out: [] },
  ])
  expect(first.server.eventsOf('notice')).toEqual([])
})

test('without a control plane it ends in time, says that it failed, and can be tried again', async () => {
  await using first = await startKilled('echo x > new.txt')
  first.server.setAway(true)
  expect(await saveLeft(first, { timeoutMs: 1_000 })).toEqual({ saved: false, canBeTriedAgain: true, leftOut: [] })
  first.server.setAway(false)
  expect(await saveLeft(first)).toMatchObject({ saved: true })
  expect(first.server.eventsOf('workspace_saved')).toHaveLength(1)
  // Nothing is left to save.
  expect(await saveLeft(first)).toEqual({ saved: true, leftOut: [] })
  expect(first.server.eventsOf('workspace_saved')).toHaveLength(1)
})

test('what an execution that was given up has done is still said, as what it is: late', async () => {
  await using first = await startKilled('echo x > new.txt')
  const copy = join(first.spool, 'saved-workspace')
  mkdirSync(copy)
  first.server.supersede()
  expect(await saveLeft(first)).toEqual({ saved: true, leftOut: [] })
  const [saved] = first.server.eventsOf('workspace_saved')
  expect(saved?.data.repositories).toMatchObject([{ files_changed: 1 }])
  expect(existsSync(join(first.spool, 'kept'))).toBe(false)
  expect(existsSync(copy)).toBe(false)
})

test('what the agent had saved itself is marked once the spool has it, so that a saver that is stopped then leaves no second copy', async () => {
  await using first = await startKilled('echo x > new.txt')
  const copy = join(first.spool, 'saved-workspace')
  mkdirSync(copy)
  writeFileSync(join(copy, 'saved.json'), '{}')
  // Nothing is acknowledged from now on.
  const { events } = first.server
  events.push = () => {
    throw new Error('the disk is full')
  }
  const stop = new AbortController()
  const saving = saveLeft(first, { signal: stop.signal })
  await expect.poll(() => existsSync(join(first.spool, 'kept')), { timeout: 10_000 }).toBe(false)
  expect(existsSync(join(copy, 'saved.json'))).toBe(false)
  stop.abort()
  expect(await saving).toEqual({ saved: true, leftOut: [] })
  expect(existsSync(join(first.spool, 'saved-workspace.spooled', 'saved.json'))).toBe(true)
})

test('what the agent had saved itself stays where its workspace is not known any more', async () => {
  await using first = await startKilled('echo x > new.txt')
  const copy = join(first.spool, 'saved-workspace')
  mkdirSync(copy)
  rmSync(join(first.spool, 'kept', 'workspace.json'))
  expect(await saveLeft(first)).toEqual({ saved: true, leftOut: [] })
  expect(existsSync(copy)).toBe(true)
})

test('after a power cut that took events from the disk, what is saved gets numbers of its own', async () => {
  await using first = await startKilled('echo x > new.txt')
  const before = first.server.events.length
  loseLastEvents(first.spool, 3)
  expect(await saveLeft(first)).toEqual({ saved: true, leftOut: [] })
  const later = first.server.events.slice(before)
  // Nobody knows how old the kept conversation is by now; the control plane has its own.
  expect(later.map(({ type }) => type)).toEqual(['notice', 'workspace_saved'])
  expect(first.server.events.map(({ n }) => n)).toEqual(first.server.events.map((_, i) => i + 1))
})

test('an execution that is not listened to any more is left alone', async () => {
  await using first = await startKilled('echo x > new.txt')
  first.server.refuseWith('execution_token_ended')
  expect(await saveLeft(first)).toEqual({ saved: false, leftOut: [] })
  expect(existsSync(join(first.spool, 'kept'))).toBe(true)
})

test('a checkpoint that is older than what the spool says is not said again', async () => {
  await using agent = await startAgentFixture({})
  mkdirSync(agent.spool, { recursive: true })
  {
    using spool = await openSpool(agent.spool)
    const blob_id = crypto.randomUUID()
    spool.append([{ type: 'checkpoint', data: { harness: 'oz', format: 'x', step: 7, blob_id } }])
  }
  const data = Buffer.from('{}')
  const checkpoint = { harness: 'oz', format: 'x', takenMessageIds: [], data }
  openKeptWork(agent.spool).keepCheckpoint({ ...checkpoint, step: 6 })
  expect(await saveLeft(agent)).toEqual({ saved: true, leftOut: [] })
  expect(agent.server.eventsOf('checkpoint').map(({ data: { step } }) => step)).toEqual([7])
  openKeptWork(agent.spool).keepCheckpoint({ ...checkpoint, step: 8 })
  await saveLeft(agent)
  expect(agent.server.eventsOf('checkpoint').map(({ data: { step } }) => step)).toEqual([7, 8])
})

test('a repository that runs a program when git looks at it is no reason to wait for ever', async () => {
  await using first = await startKilled(
    'git config core.fsmonitor "sleep 60"; echo x > a.txt; git status >/dev/null 2>&1 & sleep 0.2',
  )
  expect(await saveLeft(first)).toMatchObject({ saved: true })
  expect(git(join(first.workspace, 'origin'), 'config', 'core.fsmonitor')).toBe('sleep 60')
  expect(readFileSync(join(first.workspace, 'origin', 'a.txt'), 'utf8')).toBe('x\n')
})
