import { beforeEach, inject } from 'vitest'

/** Why there is none was said where it was looked for. */
beforeEach((test) => {
  if (inject('dockerEngine') === null) test.skip('no Docker engine can be started on this machine')
})
