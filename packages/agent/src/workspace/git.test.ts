import { mkdtempSync, readFileSync, rmSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { endProcessTree, findProcesses } from '@openoz/machine'
import { afterEach, beforeEach, expect, test } from 'vitest'
import { git, gitAnswer, gitQuestion } from './git.ts'

let folder: string
let marker: string
let env: NodeJS.ProcessEnv
beforeEach(() => {
  folder = mkdtempSync(join(tmpdir(), 'oz-git-'))
  const id = `git-test-${crypto.randomUUID()}`
  marker = `OZ_EXECUTION_ID=${id}`
  env = { PATH: process.env.PATH, HOME: folder, OZ_EXECUTION_ID: id }
})
afterEach(async () => {
  await endProcessTree({ marker }, 0)
  rmSync(folder, { recursive: true, force: true })
})

const alias = (command: string) => ['-c', `alias.x=!${command}`, 'x']

test('a helper that git leaves behind with its output open holds nobody', async () => {
  const startedAt = performance.now()
  const result = await git(alias('echo said; sleep 30 & echo $! >pid'), { cwd: folder, env, timeoutMs: 20_000 })
  expect(performance.now() - startedAt).toBeLessThan(5_000)
  expect(result).toMatchObject({ exitCode: 0, stdout: 'said\n', hasTimedOut: false })
  // It was not our command's to end, and was not told that nobody listens.
  expect(() => process.kill(Number(readFileSync(join(folder, 'pid'), 'utf8')), 0)).not.toThrow()
})

test('a git that does not end in time is ended with what it started, whatever holds its output', async () => {
  const startedAt = performance.now()
  const { hasTimedOut } = await git(alias("sleep 30 & trap '' TERM; while :; do sleep 0.1; done"), {
    cwd: folder,
    env,
    timeoutMs: 300,
  })
  expect(hasTimedOut).toBe(true)
  expect(performance.now() - startedAt).toBeLessThan(10_000)
  expect(await findProcesses({ marker })).toEqual([])
})

test('answers and questions that had no time are failures, not empty answers', async () => {
  const options = { cwd: folder, env, timeoutMs: 200 }
  await expect(gitAnswer(alias('sleep 30'), options)).rejects.toThrow(/git x was still running after 200 ms/)
  await expect(gitQuestion(alias('sleep 30'), options)).rejects.toThrow(/still running/)
})

test('a stopped git rejects with the reason of the stop', async () => {
  const stopped = git(alias('sleep 30'), { cwd: folder, env, signal: AbortSignal.timeout(200) })
  await expect(stopped).rejects.toMatchObject({ name: 'TimeoutError' })
  expect(await findProcesses({ marker })).toEqual([])
})

test('a long answer is whole', async () => {
  const { stdout } = await git(alias('head -c 5000000 /dev/zero'), { cwd: folder, env })
  expect(stdout).toHaveLength(5_000_000)
})
