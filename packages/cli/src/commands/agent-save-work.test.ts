import { spawn } from 'node:child_process'
import { once } from 'node:events'
import { existsSync, mkdirSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'
import { fileURLToPath } from 'node:url'
import { expect, test } from 'vitest'
import { startAgentFixture } from '../../../../test/support/agent-fixture.ts'

const oz = fileURLToPath(new URL('../../bin/oz.mjs', import.meta.url))

test('a dead agent’s workspace in which nothing was made is said to be empty, so that nothing older comes back', async () => {
  await using agent = await startAgentFixture({})
  const { server, spool, workspace, env } = agent
  const kept = join(spool, 'kept')
  mkdirSync(kept, { recursive: true })
  const about = { folder: workspace, toolsFolder: workspace, repositories: [], found: [] }
  writeFileSync(join(kept, 'workspace.json'), JSON.stringify({ version: 1, workspace: about, max_bytes: 1_000_000 }))
  const token = join(agent.folder, 'token')
  writeFileSync(token, server.token, { mode: 0o600 })
  const child = spawn(process.execPath, [oz, 'agent', 'save-work', '--server-url', server.url], {
    env: { ...env, OZ_EXECUTION_TOKEN_FILE: token, OZ_SPOOL_DIR: spool },
    stdio: 'ignore',
  })
  expect(await once(child, 'exit')).toEqual([0, null])
  expect(server.events.map(({ type, data }) => ({ type, data }))).toEqual([
    { type: 'workspace_saved', data: { repositories: [], left_out: [] } },
  ])
  expect(existsSync(kept)).toBe(false)
})
