import { existsSync, readFileSync, renameSync } from 'node:fs'
import { join } from 'node:path'
import type { SavedRepository } from '@openoz/protocol'
import { expect, test } from 'vitest'
import {
  type AgentFixture,
  git,
  makeRepository,
  startAgentFixture,
  startNextAgent,
} from '../../../test/support/agent-fixture.ts'

const command = (text: string) => ({ toolCalls: [{ name: 'run_command', arguments: { command: text } }] })
const saved = (agent: AgentFixture) => agent.server.eventsOf('workspace_saved').map(({ data }) => data.repositories)
const outcome = (agent: AgentFixture) => agent.server.eventsOf('turn_outcome').map(({ data }) => data)

/** A run with two repositories that changed a file in the first one. */
async function startWithWork(): Promise<AgentFixture> {
  const agent = await startAgentFixture({ steps: [command('echo two > first/a.txt'), { text: 'Done.' }] })
  const sources = ['first', 'second'].map((name) => {
    const origin = makeRepository(join(agent.folder, 'origins', name), { 'a.txt': 'one\n' })
    return { url: `file://${origin}` }
  })
  agent.server.hello.config = { environment: { source_repos: sources } }
  expect(await agent.run()).toEqual({ exitCode: 0 })
  expect(saved(agent)).toMatchObject([[{ dir: 'first', uncommitted: true }, { dir: 'second' }]])
  return agent
}

test('work that cannot be downloaded ends the turn, and is not replaced by what is there without it', async () => {
  await using first = await startWithWork()
  await using second = await startNextAgent(first, { reason: 'follow_up' }, { steps: [{ text: 'Never asked.' }] })
  second.server.blobTrouble.push('refuse')
  expect(await second.run()).toEqual({ exitCode: 1 })
  expect(outcome(second)).toMatchObject([{ outcome: 'ERROR', error_code: 'workspace_download_failed' }])
  expect(saved(second)).toEqual([])
  expect(second.model.requests).toEqual([])
})

test('a repository that was cloned before another clone failed is put back by the next turn of the same execution', async () => {
  await using first = await startWithWork()
  const away = join(first.folder, 'away')
  renameSync(join(first.folder, 'origins', 'second'), away)
  let asked = 0
  await using second = await startNextAgent(
    first,
    { reason: 'follow_up' },
    {
      steps: [{ text: 'Gone on.' }],
      nextTurn: () => {
        if (asked++ > 0) return null
        renameSync(away, join(first.folder, 'origins', 'second'))
        return { turn_id: crypto.randomUUID(), number: 2, message: 'Try again.', messages: [] }
      },
    },
  )
  expect(await second.run()).toEqual({ exitCode: 0 })
  expect(outcome(second)).toMatchObject([
    { outcome: 'FAILED', error_code: 'repository_clone_failed' },
    { outcome: 'SUCCEEDED' },
  ])
  const clone = join(second.workspace, 'first')
  expect(readFileSync(join(clone, 'a.txt'), 'utf8')).toBe('two\n')
  expect(existsSync(join(second.workspace, 'second'))).toBe(true)
  // The failed turn saved nothing in the place of what there was.
  expect(saved(second)).toMatchObject([[{ dir: 'first', uncommitted: true, files_changed: 1 }, { dir: 'second' }]])
  const [again] = saved(second)[0] as SavedRepository[]
  expect(again?.base).toBe(git(join(first.folder, 'origins', 'first'), 'rev-parse', 'HEAD'))
  expect(git(clone, 'config', '--get-all', 'openoz.base')).toBe(again?.base)
})
