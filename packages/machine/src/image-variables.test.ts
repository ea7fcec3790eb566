import { readFileSync } from 'node:fs'
import { expect, test } from 'vitest'
import { restoreImageVariables } from './image-variables.ts'

test('what was renamed for our own start has its name again, and nothing else is touched', () => {
  const env: NodeJS.ProcessEnv = {
    PATH: '/bin',
    OZ_IMAGE_NODE_OPTIONS: '--trace-warnings',
    OZ_IMAGE_LD_PRELOAD: '/x.so',
    OZ_IMAGE_TAG: 'v1',
    OZ_IMAGE_PATH: '/nowhere',
  }
  restoreImageVariables(env)
  expect(env).toEqual({
    ...{ PATH: '/bin', NODE_OPTIONS: '--trace-warnings', LD_PRELOAD: '/x.so' },
    ...{ OZ_IMAGE_TAG: 'v1', OZ_IMAGE_PATH: '/nowhere' },
  })
})

test('what the launcher renames has its name again', () => {
  const launcher = readFileSync(new URL('../../cli/src/bundle/programs/oz', import.meta.url), 'utf8')
  const names = (/^for name in (.*); do$/m.exec(launcher)?.[1] ?? '').split(' ')
  expect(names.length).toBeGreaterThan(3)
  const env = Object.fromEntries(names.map((name) => [`OZ_IMAGE_${name}`, 'x']))
  restoreImageVariables(env)
  expect(Object.keys(env).sort()).toEqual(names.sort())
})
