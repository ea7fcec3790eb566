import { existsSync, mkdtempSync, rmSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { afterEach, beforeEach, expect, test } from 'vitest'
import { readAgentEnvironment } from './agent-environment.ts'

let folder: string
beforeEach(() => {
  folder = mkdtempSync(join(tmpdir(), 'oz-agent-env-'))
})
afterEach(() => rmSync(folder, { recursive: true }))

test('the token comes from its file, which is gone afterwards, and nothing of ours stays in the environment', async () => {
  const file = join(folder, 'token')
  writeFileSync(file, 'oet-secret\n', { mode: 0o600 })
  const env = { OZ_EXECUTION_TOKEN_FILE: file, OZ_SPOOL_DIR: '/spool', WARP_SERVER_ROOT_URL: 'http://a', HOME: '/root' }

  expect(await readAgentEnvironment(env)).toEqual({
    executionToken: 'oet-secret',
    spoolDir: '/spool',
    serverUrl: 'http://a',
  })
  expect(env).toEqual({ HOME: '/root' })
  expect(existsSync(file)).toBe(false)
})

test('workers that know no token file hand it over as WARP_API_KEY', async () => {
  const env: NodeJS.ProcessEnv = { WARP_API_KEY: 'oet-secret', PATH: '/bin' }
  expect(await readAgentEnvironment(env)).toMatchObject({ executionToken: 'oet-secret', spoolDir: undefined })
  expect(env).toEqual({ PATH: '/bin' })
})

test('a token file that others may read is refused', async () => {
  const file = join(folder, 'token')
  writeFileSync(file, 'oet-secret', { mode: 0o644 })
  await expect(readAgentEnvironment({ OZ_EXECUTION_TOKEN_FILE: file })).rejects.toMatchObject({
    code: 'private_file_exposed',
  })
})

test('without a token there is nothing to run', async () => {
  await expect(readAgentEnvironment({})).rejects.toMatchObject({ code: 'not_logged_in' })
  const missing = readAgentEnvironment({ OZ_EXECUTION_TOKEN_FILE: join(folder, 'none') })
  await expect(missing).rejects.toMatchObject({ code: 'option_invalid' })
})
