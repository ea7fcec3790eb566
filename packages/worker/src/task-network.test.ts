import { readFileSync, statSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'
import { expect, test } from 'vitest'
import { readTaskNetwork } from './task-network.ts'
import { startControlPlane } from './test-support/control-plane.ts'
import { createFolder, startWorker } from './test-support/worker.ts'

const pem = '-----BEGIN CERTIFICATE-----\nTWluZQ==\n-----END CERTIFICATE-----\n'

test('a task takes over its worker’s proxies and authorities, which it can read, and can be given others', async () => {
  using folder = createFolder()
  const file = join(folder.path, 'ca.pem')
  writeFileSync(file, pem, { mode: 0o600 })
  const proxies = {
    HTTPS_PROXY: 'http://me:s3cr%40t-of-the-proxy@proxy.invalid:3128',
    http_proxy: 'http://proxy.invalid:3128',
    NO_PROXY: '127.0.0.1,10.0.0.0/8',
  }
  await using cp = await startControlPlane()
  await using worker = startWorker(cp, folder.path, {
    env: { PATH: process.env.PATH, HOME: process.env.HOME, OZ_CA_FILE: file, ...proxies },
    taskEnvironment: { NO_PROXY: 'everything.invalid' },
    cleanup: false,
    oz: 'env > seen; cat "$OZ_CA_FILE" > own; cat "$GIT_SSL_CAINFO" > all; echo "through $HTTPS_PROXY" >&2; exit 3',
  })
  await worker.listening()
  const { task_id, execution_id } = cp.assign()
  const outcome = await cp.outcome(execution_id)
  const read = (name: string) => readFileSync(join(worker.workspaceRoot, task_id, name), 'utf8')
  const seen = Object.fromEntries(
    read('seen')
      .split('\n')
      .map((line) => line.split(/=(.*)/s).slice(0, 2)),
  )
  expect(seen).toMatchObject({ ...proxies, NO_PROXY: 'everything.invalid' })
  expect(seen.NODE_EXTRA_CA_CERTS).toBe(seen.OZ_CA_FILE)
  expect(seen.OZ_CA_FILE).not.toBe(file)
  expect(read('own')).toBe(pem)
  expect(read('all')).toContain(pem)
  expect(read('all').split('BEGIN CERTIFICATE').length).toBeGreaterThan(10)
  // What the agent says at its end goes to the control plane.
  expect(JSON.stringify(outcome)).toContain('through http://me:***@proxy.invalid:3128')
  expect(JSON.stringify(cp.state.messages)).not.toContain('s3cr')
  expect(statSync(file).mode & 0o777).toBe(0o600)
})

test('passwords of proxies are secrets, as written and decoded', () => {
  const env = { https_proxy: 'http://me:a%2Fb-c@proxy:1', HTTP_PROXY: 'me:second@proxy:1', NO_PROXY: 'x:y@z' }
  const { secrets, proxies, authorities } = readTaskNetwork(env)
  expect(secrets).toEqual(['a%2Fb-c', 'a/b-c', 'second'])
  expect(proxies).toEqual(env)
  expect(authorities).toBeUndefined()
  expect(readTaskNetwork({ HTTPS_PROXY: 'http://proxy:1/@' }).secrets).toEqual([])
  expect(readTaskNetwork({ OZ_CA_FILE: '/no/such/file' }).authorities).toBeUndefined()
})
