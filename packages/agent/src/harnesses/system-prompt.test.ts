import { expect, test } from 'vitest'
import { testLimits } from '../../../../test/support/agent-channel-server.ts'
import { toolsFor } from '../tools/tools.ts'
import { systemPrompt } from './system-prompt.ts'

const workspace = { folder: '/w', toolsFolder: '/w', repositories: [] }
const mode = 'normal'
const now = new Date('2026-01-02T03:04:05Z')

test('the model is told of the tools that there are, and of no others', async () => {
  const tools = toolsFor({ limits: testLimits })
  const all = await systemPrompt({ config: { base_prompt: 'Be kind.' }, mode, workspace, tools, now })
  expect(all.startsWith('Be kind.')).toBe(true)
  for (const name of ['run_command', 'read_command', 'edit_files', 'todo', 'ask']) expect(all).toContain(name)
  const one = await systemPrompt({
    config: {},
    mode,
    workspace,
    tools: tools.filter(({ name }) => name === 'edit_files'),
    now,
  })
  expect(one).toContain('edit_files')
  for (const name of ['run_command', 'read_command', 'todo', 'grep']) expect(one).not.toContain(name)
  expect(await systemPrompt({ config: {}, mode, workspace, tools: [], now })).not.toContain('# Your tools')
})

test('a run in plan mode is told to change nothing and to report a plan, and no other run is', async () => {
  const tools = toolsFor({ limits: testLimits })
  const planned = await systemPrompt({ config: {}, mode: 'plan', workspace, tools, now })
  expect(planned).toContain('Change nothing')
  expect(planned).toContain('report_artifact')
  for (const other of ['normal', 'orchestrate'] as const)
    expect(await systemPrompt({ config: {}, mode: other, workspace, tools, now })).not.toContain('Change nothing')
})
