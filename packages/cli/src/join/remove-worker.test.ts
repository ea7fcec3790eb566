import { mkdirSync, mkdtempSync, rmSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { lockFolder } from '@openoz/machine'
import { afterEach, beforeEach, expect, test } from 'vitest'
import type { JoinedWorker } from './installation.ts'
import { engineVariables, removeContainers, stopWorker } from './remove-worker.ts'

let stateDir: string
beforeEach(() => {
  stateDir = mkdtempSync(join(tmpdir(), 'oz-remove-worker-'))
})
afterEach(() => rmSync(stateDir, { recursive: true, force: true }))

const worker = (changes: Partial<JoinedWorker>): JoinedWorker => ({
  ...{ serverUrl: 'http://127.0.0.1:1', workerId: 'build-1', backend: 'docker', keptBy: 'nobody' },
  ...{ stateDir, keyFile: join(stateDir, 'key'), ...changes },
})
const heard = () => {
  const lines: string[] = []
  return { lines, say: (line: string) => void lines.push(line) }
}

test('the engine is the worker’s own, not that of whoever asks', async () => {
  const ofWorker = { PATH: '/bin', DOCKER_HOST: 'unix:///worker/docker.sock', DOCKER_CONFIG: '', OTHER: 'x' }
  expect(engineVariables(ofWorker)).toEqual({ DOCKER_HOST: 'unix:///worker/docker.sock' })
  const { lines, say } = heard()
  const env = { DOCKER_HOST: 'unix:///somebody/docker.sock', DOCKER_CONTEXT: 'else' }
  await removeContainers(worker({ engine: engineVariables(ofWorker) }), { env, say })
  expect(lines.join('\n')).toContain('/worker/docker.sock')
  expect(lines.join('\n')).not.toContain('somebody')
})

test('a service that runs and whose systemd does not answer is not taken for stopped; one that is gone is', async () => {
  const { lines, say } = heard()
  // No folder of a user’s systemd is there for these variables, and none of the machine is asked.
  const kept = worker({ keptBy: 'user' })
  const env = { PATH: '/nowhere', XDG_RUNTIME_DIR: join(stateDir, 'none') }
  await stopWorker(kept, { env, say })
  expect(lines.join('\n')).toContain('Worker build-1 does not run.')
  const instance = join(stateDir, 'instances', 'a')
  mkdirSync(instance, { recursive: true })
  const lock = lockFolder(instance)
  await expect(stopWorker(kept, { env, say })).rejects.toMatchObject({
    code: 'worker_out_of_reach',
    message: expect.stringContaining('Nothing was removed'),
  })
  if ('release' in lock) lock.release()
  await stopWorker(kept, { env, say })
})
