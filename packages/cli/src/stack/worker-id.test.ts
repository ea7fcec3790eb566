import { expect, test } from 'vitest'
import { workerEnvironment } from './worker-environment.ts'
import { workerIdFromHost } from './worker-id.ts'

test('any host name gives a worker id that is allowed', () => {
  expect(workerIdFromHost('laptop')).toBe('laptop')
  expect(workerIdFromHost('warp-core')).toBe('host-warp-core')
  expect(workerIdFromHost("Ada's Mac  Book")).toBe("Ada's-Mac-Book")
  expect(workerIdFromHost('  ')).toBe('this-machine')
})

test('the worker inherits what it needs, and no key of the control plane', () => {
  const secrets = {
    ANTHROPIC_API_KEY: 's',
    OPENAI_API_KEY: 's',
    DATABASE_URL: 's',
    OZ_BOOTSTRAP_API_KEY: 's',
    OZ_API_KEY: 's',
    WARP_API_KEY: 's',
    AWS_BEARER_TOKEN_BEDROCK: 's',
    MY_OWN_TOKEN: 's',
  }
  const kept = {
    PATH: '/bin',
    HOME: '/h',
    LC_ALL: 'C',
    https_proxy: 'p',
    NO_PROXY: 'n',
    OZ_CA_FILE: 'c',
    XDG_STATE_HOME: 'x',
    Path: 'C:\\Windows',
    'ProgramFiles(x86)': 'C:\\Program Files (x86)',
  }
  expect(workerEnvironment({ ...secrets, ...kept })).toEqual(kept)
})
