import type { CreateRunRequest } from '@openoz/protocol'
import { expect, test } from 'vitest'
import { startControlPlane } from './support/control-plane.ts'

test('what is shared is stored once for each subject, and shown', async () => {
  await using cp = await startControlPlane()
  const share: CreateRunRequest['share'] = [
    { subject: 'self', access: 'edit' },
    { subject: 'user', email: 'Ann@Example.com', access: 'edit' },
    { subject: 'user', email: 'ann@example.com', access: 'view' },
    { subject: 'team', access: 'view' },
    { subject: 'team', access: 'edit' },
    { subject: 'public', access: 'view' },
  ]
  const shares = [
    { subject: 'public', access: 'view' },
    { subject: 'self', access: 'edit' },
    { subject: 'team', access: 'edit' },
    { subject: 'user', email: 'ann@example.com', access: 'edit' },
  ]
  const local = await cp.client.runs.startLocal({ prompt: 'x', host: 'laptop', share })
  expect((await cp.client.runs.get(local.run_id)).shares).toEqual(shares)
  const remote = await cp.createRun({ share })
  expect((await cp.client.runs.get(remote)).shares).toEqual(shares)
  expect((await cp.client.runs.list()).runs.map((run) => run.shares)).toEqual([shares, shares])
  const { run_id: fork } = await cp.client.runs.fork(remote, { prompt: 'x' })
  expect((await cp.client.runs.get(fork)).shares).toEqual([])
})

test.each([
  [{ subject: 'user', access: 'view' }],
  [{ subject: 'user', email: 'nobody', access: 'view' }],
  [{ subject: 'user', email: 'a@b:edit', access: 'view' }],
  [{ subject: 'user', email: '', access: 'view' }],
  [{ subject: 'team', email: 'ann@example.com', access: 'view' }],
])('%j grants nothing', async (share) => {
  await using cp = await startControlPlane()
  for (const path of ['/api/v1/agent/runs', '/api/v1/agent/local-runs']) {
    const json = { prompt: 'x', share: [share], ...(path.includes('local') ? { host: 'laptop' } : {}) }
    expect(await cp.request('POST', path, { json })).toMatchObject({ status: 400, body: { code: 'share_invalid' } })
  }
})
