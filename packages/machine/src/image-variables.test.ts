import { expect, test } from 'vitest'
import { restoreImageVariables } from './image-variables.ts'

test('what was renamed for our own start has its name again, and nothing else is touched', () => {
  const env: NodeJS.ProcessEnv = {
    PATH: '/bin',
    OZ_IMAGE_NODE_OPTIONS: '--trace-warnings',
    OZ_IMAGE_LD_PRELOAD: '/x.so',
  }
  restoreImageVariables(env)
  expect(env).toEqual({ PATH: '/bin', NODE_OPTIONS: '--trace-warnings', LD_PRELOAD: '/x.so' })
})
