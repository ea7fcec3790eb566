import { execFileSync } from 'node:child_process'
import { expect, test } from 'vitest'
import { gitEnvironment, withoutRepository } from './git-environment.ts'

test('nothing that ties git to the repository of a hook is passed on', () => {
  const names = execFileSync('git', ['rev-parse', '--local-env-vars'], { encoding: 'utf8' }).trim().split('\n')
  const env = Object.fromEntries([...names, 'GIT_QUARANTINE_PATH', 'PATH'].map((name) => [name, 'x']))
  // Settings that a job or a worker gives to every repository stay.
  expect(withoutRepository(env)).toEqual({ GIT_CONFIG_COUNT: 'x', PATH: 'x' })
  expect(gitEnvironment(env)).not.toHaveProperty('GIT_DIR')
})
