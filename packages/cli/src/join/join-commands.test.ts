import { fileURLToPath } from 'node:url'
import { expect, test } from 'vitest'
import { makeTestHome, startOz } from '../test-support/run-program.ts'

const program = fileURLToPath(new URL('../../bin/oz-agent-worker.mjs', import.meta.url))
const isRoot = process.getuid?.() === 0

test('to join takes a token and the address of a control plane', async () => {
  await using home = await makeTestHome()
  const run = (args: string[], env: NodeJS.ProcessEnv = {}) => startOz(args, { ...home.env, ...env }, { program }).ended
  // Whether this machine has joined is the machine's own business where it is root.
  if (!isRoot) {
    expect(await run(['join'])).toMatchObject({ exitCode: 1, stderr: expect.stringContaining('OZ_JOIN_TOKEN') })
    expect(await run(['leave'])).toMatchObject({ exitCode: 0, stdout: expect.stringContaining('joined nothing') })
  }
  const token = { OZ_JOIN_TOKEN: 'jt-x', OZ_SERVER_URL: '' }
  expect(await run(['join'], token)).toMatchObject({ exitCode: 2, stderr: expect.stringContaining('--server-url') })
  expect(await run(['join', '--backend', 'cloud'], token)).toMatchObject({ exitCode: 2 })
  expect(await run(['join', '--api-key', 'wk-x'], token)).toMatchObject({ exitCode: 2 })
  const { exitCode, stderr } = await run(['set-up'])
  expect([exitCode, stderr]).toEqual([2, expect.stringContaining('install.sh')])
})
