import { AppError } from '@openoz/protocol'
import { expect, test } from 'vitest'
import { createFolder } from './test-support/worker.ts'
import { readWorkerConfig } from './worker-config.ts'
import { type WorkerFlagValues, workerFlags } from './worker-flags.ts'

const env = { OZ_API_KEY: 'wk-key', SHARED: 'from the worker' }
const direct: WorkerFlagValues = { workerId: 'w', backend: 'direct' }

function read(flags: WorkerFlagValues, yaml?: string, environment: NodeJS.ProcessEnv = env) {
  const withFile = yaml === undefined ? flags : { ...flags, configFile: 'worker.yaml' }
  return readWorkerConfig({ flags: withFile, env: environment, readFile: () => yaml ?? '' })
}

function failure(work: () => unknown): AppError {
  try {
    work()
  } catch (error) {
    if (error instanceof AppError) return error
    throw error
  }
  throw new Error('it did not fail')
}

test('flags win over the file, and the file over defaults', () => {
  const yaml = `
worker_id: from-file
cleanup: false
max_concurrent_tasks: 4
idle_on_complete: 45m
backend:
  direct:
    workspace_root: /srv/oz
    setup_command: make ready
    environment:
      - name: A
        value: file
      - name: B
        value: file
      - name: SHARED
`
  expect(read({}, yaml)).toMatchObject({
    workerId: 'from-file',
    backend: 'direct',
    cleanup: false,
    maxConcurrentTasks: 4,
    idleOnComplete: '45m',
    direct: { workspaceRoot: '/srv/oz', setupCommand: 'make ready' },
    taskEnvironment: { A: 'file', B: 'file', SHARED: 'from the worker' },
  })
  const flags = { workerId: 'from-flag', idleOnComplete: '1h30m', env: ['A=flag=1', 'MISSING'], cleanup: true }
  expect(read(flags, yaml)).toMatchObject({
    workerId: 'from-flag',
    idleOnComplete: '1h30m',
    cleanup: false,
    taskEnvironment: { A: 'flag=1', B: 'file', SHARED: 'from the worker' },
  })
  expect(read(flags, yaml).taskEnvironment).not.toHaveProperty('MISSING')
})

test('a flag resets the limit of the file to 0', () => {
  expect(read({ ...direct, maxConcurrentTasks: '0' }, 'max_concurrent_tasks: 4').maxConcurrentTasks).toBe(0)
  expect(read({ ...direct, maxConcurrentTasks: 0 }, 'max_concurrent_tasks: 4').maxConcurrentTasks).toBe(0)
})

test('address and key come from flag, variable or saved login, in this order', () => {
  const login = { serverUrl: 'http://login', apiKey: 'wk-login' }
  const readWith = (flags: WorkerFlagValues, environment: NodeJS.ProcessEnv) =>
    readWorkerConfig({ flags: { ...direct, ...flags }, env: environment, login })
  expect(readWith({}, {})).toMatchObject({ serverUrl: 'http://login', apiKey: 'wk-login' })
  expect(readWith({}, { WARP_SERVER_ROOT_URL: 'http://warp', WARP_API_KEY: 'wk-warp' })).toMatchObject({
    serverUrl: 'http://warp',
    serverRootUrl: 'http://warp',
    apiKey: 'wk-warp',
  })
  const both = {
    OZ_SERVER_URL: 'http://oz',
    WARP_SERVER_ROOT_URL: 'http://warp',
    OZ_API_KEY: 'wk-oz',
    WARP_API_KEY: 'x',
  }
  expect(readWith({}, both)).toMatchObject({ serverUrl: 'http://oz', apiKey: 'wk-oz' })
  expect(readWith({ serverUrl: 'http://flag', apiKey: 'wk-flag' }, both)).toMatchObject({
    serverUrl: 'http://flag',
    apiKey: 'wk-flag',
  })
  expect(readWith({ serverRootUrl: 'http://root' }, {})).toMatchObject({
    serverUrl: 'http://root',
    serverRootUrl: 'http://root',
  })
})

test.each([
  ['worker_idd: x', 'unknown key worker_idd'],
  ['backend:\n  direct:\n    worksapce_root: /x', 'unknown key backend.direct.worksapce_root'],
  ['log_level: debug', 'unknown key log_level'],
  ['backend:\n  nomad: {}', 'unknown key backend.nomad'],
  ['backend:\n  direct: {}\n  docker: {}', 'at most one backend may be configured'],
  ['backend:\n  direct:\n    environment:\n      - value: x', 'backend.direct.environment[0].name is required'],
  ['backend:\n  direct:\n    environment:\n      - name: A B', 'environment[0].name must not contain whitespace'],
  ['worker_id: a b', 'worker_id must not contain whitespace'],
  ['max_concurrent_tasks: many', 'max_concurrent_tasks must be'],
  ['max_concurrent_tasks: -1', 'max_concurrent_tasks must be 0'],
  ['idle_on_complete: soon', 'idle_on_complete must be a duration'],
  ['api_key: wk-x', 'api_key must not be in a config file'],
  [
    'backend:\n  direct:\n    environment:\n      - name: WARP_API_KEY\n        value: wk-x',
    'WARP_API_KEY must not be in',
  ],
  ['backend:\n  docker:\n    volumez: []', 'unknown key backend.docker.volumez'],
  ['backend:\n  docker:\n    network: "two words"', 'backend.docker.network must be none, isolated'],
  ['backend:\n  docker:\n    network_pool: 10.0.0.0', 'backend.docker.network_pool must be a range'],
  ['backend:\n  docker:\n    dns: [resolver]', 'backend.docker.dns[0] must be an IP address'],
  ['backend:\n  docker:\n    allowed_host_paths: [cache]', 'must be an absolute path'],
  ['backend:\n  docker:\n    pids_limit: -1', 'backend.docker.pids_limit must be 0'],
  ['backend:\n  docker:\n    environment:\n      - name: OZ_API_KEY\n        value: wk-x', 'OZ_API_KEY must not be in'],
  ['- a', 'it must be a map of keys'],
  ['a: [', ''],
])('the config file %j is refused', (yaml, problem) => {
  const error = failure(() => read(direct, yaml))
  expect(error.code).toBe('config_file_invalid')
  expect(error.message).toContain('worker.yaml')
  expect(error.message).toContain(problem)
  expect(error.message).not.toContain('wk-x')
})

test.each<[WorkerFlagValues, string, string]>([
  [{ backend: 'direct' }, 'usage', 'A worker id is required'],
  [{ ...direct, workerId: 'warp-1' }, 'worker_id_reserved', 'warp-1'],
  [{ ...direct, workerId: 'a b' }, 'option_invalid', 'must not contain whitespace'],
  [{ workerId: 'w', backend: 'kubernetes' }, 'backend_not_available', '--backend direct'],
  [{ workerId: 'w', backend: 'nomad' }, 'option_invalid', 'nomad'],
  [{ ...direct, targetDir: '/no/such/folder' }, 'target_dir_invalid', '/no/such/folder'],
  [{ ...direct, maxConcurrentTasks: '-1' }, 'option_invalid', '--max-concurrent-tasks'],
  [{ ...direct, idleOnComplete: 'soon' }, 'option_invalid', '--idle-on-complete'],
  [{ ...direct, idleOnComplete: '1h30' }, 'option_invalid', '--idle-on-complete'],
  [{ ...direct, env: ['=x'] }, 'option_invalid', 'is required'],
  [{ ...direct, env: ['A B=secret'] }, 'option_invalid', 'must not contain whitespace'],
  [{ ...direct, logLevel: 'loud' }, 'option_invalid', 'loud'],
  [{ ...direct, webSocketUrl: 'ftp://x' }, 'option_invalid', '--web-socket-url'],
  [{ ...direct, volumes: ['/a:/b'] }, 'option_invalid', '--volumes'],
  [{ ...direct, configFile: '/no/such/file' }, 'config_file_invalid', 'it does not exist'],
])('the flags %j are refused', (flags, code, words) => {
  const error = failure(() => readWorkerConfig({ flags, env }))
  expect(error.code).toBe(code)
  expect(error.message).toContain(words)
  expect(error.message).not.toContain('secret')
})

test('without a key the worker says how to give one', () => {
  expect(failure(() => read(direct, undefined, {})).code).toBe('not_logged_in')
})

test('nothing said about it is the docker backend, and what the file says of another is left alone', () => {
  const yaml = 'backend:\n  docker:\n    volumes: ["/a:/b"]'
  expect(read({ workerId: 'w' }).backend).toBe('docker')
  expect(read({ workerId: 'w' }, yaml)).toMatchObject({ backend: 'docker', docker: { volumes: [{ target: '/b' }] } })
  expect(read(direct, yaml).backend).toBe('direct')
})

test('the file of a backend that is not there yet is known by its name, unless another is chosen', () => {
  const yaml = 'backend:\n  kubernetes:\n    namespace: agents'
  expect(failure(() => read({ workerId: 'w' }, yaml)).code).toBe('backend_not_available')
  expect(read(direct, yaml).backend).toBe('direct')
})

test('volumes of the command line come behind those of the file, and what is for another backend is refused', () => {
  const yaml = 'backend:\n  docker:\n    volumes: ["/a:/b"]\n    environment: [{ name: A, value: file }]'
  const flags = { workerId: 'w', volumes: ['/c:/d:ro'], env: ['B=flag'] }
  expect(read(flags, yaml)).toMatchObject({
    docker: { volumes: [{ target: '/b' }, { target: '/d', mode: 'ro' }], network: 'isolated' },
    taskEnvironment: { A: 'file', B: 'flag' },
  })
  expect(read(direct)).not.toHaveProperty('docker')
  const docker = { workerId: 'w', backend: 'docker' }
  expect(failure(() => read({ ...docker, targetDir: '/' })).message).toContain('--target-dir')
  expect(failure(() => read({ ...docker, volumes: ['/a'] })).code).toBe('volume_spec_invalid')
})

test('ids are reserved by their exact beginning', () => {
  expect(read({ ...direct, workerId: 'Warp' }).workerId).toBe('Warp')
  expect(failure(() => read({ ...direct, workerId: 'warp' })).code).toBe('worker_id_reserved')
})

test('a target directory is made absolute, and one-shot means one task at a time', () => {
  using folder = createFolder()
  expect(read({ ...direct, targetDir: folder.path, oneShot: true, maxConcurrentTasks: '5' })).toMatchObject({
    direct: { targetDir: folder.path },
    oneShot: true,
    maxConcurrentTasks: 1,
  })
})

test('every flag is in the table once, and says what it does', () => {
  const names = workerFlags.map(({ name }) => name)
  expect(new Set(names).size).toBe(names.length)
  for (const { flag, description } of workerFlags) {
    expect(flag).toMatch(/^(-\w, )?--[a-z-]+/)
    expect(description.length).toBeGreaterThan(15)
  }
})

test('Windows has no direct backend, and is told where there is one', () => {
  const { message } = failure(() => readWorkerConfig({ flags: direct, env, platform: 'win32' }))
  expect(message).toMatch(/--backend direct.*WSL/)
  expect(readWorkerConfig({ flags: direct, env, platform: 'darwin' }).backend).toBe('direct')
})
