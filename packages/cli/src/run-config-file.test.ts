import { mkdir, writeFile } from 'node:fs/promises'
import { join } from 'node:path'
import { expect, test } from 'vitest'
import { runRequest } from './commands/agent-run-cloud.ts'
import { readRunConfigFile } from './run-config-file.ts'
import { makeTestHome } from './test-support/run-program.ts'

async function read(name: string, text: string) {
  await using home = await makeTestHome()
  await mkdir(home.folder, { recursive: true })
  const file = join(home.folder, name)
  await writeFile(file, text)
  return await readRunConfigFile(file)
}

test('JSON and YAML are read, and the reference’s `host` is the wire’s `worker_host`', async () => {
  const config = { name: 'nightly', model_id: 'm', worker_host: 'build-1' }
  expect(await read('run.json', '{"name":"nightly","model_id":"m","host":"build-1"}')).toEqual(config)
  expect(await read('run.yaml', 'name: nightly\nmodel_id: m\nhost: build-1\n')).toEqual(config)
  expect(await read('run', 'name: nightly\nmodel_id: m\nhost: build-1\n')).toEqual(config)
})

test('an unknown key, a wrong type and a broken file are refused with what is wrong', async () => {
  await expect(read('run.yaml', 'modelid: x')).rejects.toThrow(/run\.yaml is not valid: .*modelid/)
  await expect(read('run.yaml', 'computer_use_enabled: maybe')).rejects.toThrow(/computer_use_enabled/)
  await expect(read('run.json', '{"name":')).rejects.toThrow(/run\.json is not valid/)
  await expect(readRunConfigFile('/nowhere/run.yaml')).rejects.toThrow(/cannot be read \(ENOENT\)/)
})

test('flags win over the file, key by key', () => {
  const flags = { prompt: 'p', repo: [], setupCommand: [], attach: [], metadata: [], model: 'from-flag' }
  expect(runRequest(flags, { name: 'from-file', model_id: 'from-file' }).config).toEqual({
    name: 'from-file',
    model_id: 'from-flag',
  })
  const withRepo = runRequest({ ...flags, repo: ['acme/shop', '/srv/repo'], setupCommand: ['npm ci'] }, {})
  expect(withRepo.config?.environment).toEqual({
    source_repos: [{ url: 'acme/shop' }, { url: 'file:///srv/repo' }],
    setup_commands: ['npm ci'],
  })
  expect(runRequest({ ...flags, vcpus: 2 }, { instance_shape: { vcpus: 1, memory_gb: 4 } }).config).toMatchObject({
    instance_shape: { vcpus: 2, memory_gb: 4 },
  })
  expect(runRequest({ ...flags, vcpus: 0.5, memoryGb: 1 }, {}).config).toMatchObject({
    instance_shape: { vcpus: 0.5, memory_gb: 1 },
  })
  expect(() => runRequest({ ...flags, memoryGb: 1 }, {})).toThrow(/--memory-gb .*both/)
  expect(runRequest({ ...flags, personal: true }, {}).team).toBe(false)
  expect(runRequest({ ...flags, maxAttempts: 2 }, {}).retry).toEqual({ max_attempts: 2 })
  expect(runRequest(flags, {})).not.toHaveProperty('retry')
})

test('what the flags say of the environment replaces all that the file says of it', () => {
  const flags = { prompt: 'p', repo: [], setupCommand: [], attach: [], metadata: [] }
  const environment = { setup_commands: ['make'] }
  const of = (...input: Parameters<typeof runRequest>) => JSON.parse(JSON.stringify(runRequest(...input).config))
  expect(of(flags, { environment_id: 'e' })).toEqual({ environment_id: 'e' })
  expect(of({ ...flags, environment: 'e' }, { environment })).toEqual({ environment_id: 'e' })
  expect(of({ ...flags, environment: false }, { environment_id: 'e' })).toEqual({ environment: {} })
  const withRepo = { environment: { source_repos: [{ url: 'acme/shop' }], setup_commands: [] } }
  expect(of({ ...flags, repo: ['acme/shop'] }, { environment_id: 'e' })).toEqual(withRepo)
  expect(of({ ...flags, repo: ['acme/shop'], environment: false }, { environment })).toEqual(withRepo)
})
