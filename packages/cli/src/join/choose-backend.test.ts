import { expect, test } from 'vitest'
import { chooseBackend } from './choose-backend.ts'

test('what is asked for is taken, and no engine is asked', async () => {
  const env = { DOCKER_HOST: 'nonsense' }
  for (const backend of ['direct', 'docker'] as const)
    expect(await chooseBackend(backend, env)).toEqual({ backend, why: 'as asked for' })
})

test('without an engine that answers it is direct, and says why', async () => {
  const chosen = await chooseBackend('auto', { DOCKER_HOST: 'unix:///nowhere/docker.sock' })
  expect(chosen).toEqual({ backend: 'direct', why: expect.stringMatching(/\w+/) })
})
