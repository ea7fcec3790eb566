import { expect, test } from 'vitest'
import { makeTestHome, runOz } from '../test-support/run-program.ts'

test('what cannot be killed, and a round of nothing, are refused before anything starts', async () => {
  await using home = await makeTestHome()
  const kinds = await runOz(['chaos', '--kill', 'worker,disk'], home.env)
  expect(kinds).toMatchObject({ exitCode: 2, stdout: '' })
  expect(kinds.stderr).toContain('disk is none of worker, agent, server, database, network')
  expect(await runOz(['chaos', '--runs', '0'], home.env)).toMatchObject({ exitCode: 2 })
})

test('the help shows an example, and nothing of what the round says to itself', async () => {
  await using home = await makeTestHome()
  const { stdout } = await runOz(['chaos', '--help'], home.env)
  expect(stdout).toContain('oz chaos --runs 300 --seed 7')
  expect(stdout).not.toContain('--guard')
  expect((await runOz(['server', '--help'], home.env)).stdout).not.toContain('--no-notify')
})

test('a guard of no round ends nothing', async () => {
  await using home = await makeTestHome()
  const { exitCode, stderr } = await runOz(['chaos', '--guard', home.folder], home.env)
  expect(exitCode).toBe(2)
  expect(stderr).toContain('is no round’s folder')
})
