import type { TaskAssignment } from '@openoz/protocol'
import { expect, test } from 'vitest'
import { containerEnvironment, controlEntries, tokenOf } from './docker-environment.ts'

const refs = { task_id: '0198b7a0-0000-7000-8000-000000000001', execution_id: '0198b7a0-0000-7000-8000-000000000002' }
const assignment = (more: Partial<TaskAssignment> = {}): TaskAssignment => ({
  ...refs,
  task: {
    id: refs.task_id,
    title: '',
    task_definition: { prompt: '' },
    created_at: '',
    updated_at: '',
    owner: { Type: 'USER', Id: 1 },
  },
  ...more,
})
const network = { proxies: { https_proxy: 'http://proxy:3128' }, secrets: [] }
const parts = { network, serverRootUrl: 'http://oz:1', configured: {}, isForeignAgent: false }

test('the token is a file and never a variable, however it came', () => {
  for (const given of [
    { execution_token: 'secret-1' },
    { env_vars: { WARP_API_KEY: 'secret-1', OZ_API_KEY: 'secret-1' } },
  ]) {
    const variables = containerEnvironment({ assignment: assignment(given), ...parts })
    expect(JSON.stringify(variables)).not.toContain('secret-1')
    expect(variables.OZ_EXECUTION_TOKEN_FILE).toBe('/run/openoz/token')
    const entries = controlEntries(assignment(given), { user: { uid: 7, gid: 8 }, network, isForeignAgent: false })
    expect(entries).toContainEqual({ name: 'run/openoz/token', body: 'secret-1', uid: 7, gid: 8 })
  }
})

test('an agent that is not ours gets it as the variable that it knows', () => {
  const given = assignment({ execution_token: 'secret-1' })
  const variables = containerEnvironment({ assignment: given, ...parts, isForeignAgent: true })
  expect(variables.WARP_API_KEY).toBe('secret-1')
  expect(variables).not.toHaveProperty('OZ_EXECUTION_TOKEN_FILE')
  expect(tokenOf(assignment())).toBeUndefined()
})

test('what the worker depends on cannot be overridden; the operator’s word counts more than the run’s', () => {
  const variables = containerEnvironment({
    assignment: assignment({ env_vars: { A: 'run', B: 'run', OZ_SPOOL_DIR: '/tmp', OZ_WORKER_BACKEND: 'x' } }),
    ...parts,
    configured: { B: 'operator', OZ_EXECUTION_ID: 'x' },
  })
  expect(variables).toMatchObject({
    ...{ A: 'run', B: 'operator', OZ_SPOOL_DIR: '/run/openoz/spool', OZ_WORKER_BACKEND: 'docker' },
    ...{ OZ_EXECUTION_ID: refs.execution_id, OZ_RUN_ID: refs.task_id, https_proxy: 'http://proxy:3128' },
  })
})
