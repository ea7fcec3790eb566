import { workerFlags } from '@openoz/worker'
import { expect, test } from 'vitest'
import { type ServerFlag, serverFlags } from '../../packages/server/src/config.ts'
import { availableBackendNames } from '../../packages/worker/src/backends/backend.ts'
import { parseConfigFile } from '../../packages/worker/src/config-file.ts'
import { dockerBlock } from '../../packages/worker/src/docker-options.ts'
import { read, repositoryFiles } from './documents.ts'

const page = read('docs/configuration.md')

test('every flag and variable of the control plane is in docs/configuration.md', () => {
  const options = Object.values<ServerFlag>(serverFlags).flatMap(({ flag, env }) => [flag, env])
  expect(missing(options.filter((name) => name !== null))).toEqual([])
})

test('every flag, variable and config key of the worker is in docs/configuration.md', () => {
  const options = workerFlags.flatMap(({ flag, env = [], configKey }) => [flag, ...env, configKey])
  expect(missing(options.filter((name) => name !== undefined))).toEqual([])
})

test('docs/configuration.md explains the keys that the config file takes, and no others', () => {
  const explained = [...configFileSection().matchAll(/^\| `([^`]+)` \|/gm)].map((match) => match[1] ?? '')
  const ofDocker = availableBackendNames.includes('docker') ? Object.keys(dockerBlock.shape) : []
  const keys = [...configFileKeys(), 'backend', ...ofDocker.map((name) => `backend.docker.${name}`)]
  expect(explained.toSorted()).toEqual(keys.toSorted())
})

test('the config file in docs/configuration.md is valid', () => {
  const [, yaml = ''] = /```yaml\n([\s\S]*?)```/.exec(configFileSection()) ?? []
  expect(parseConfigFile(yaml, 'example.yaml')).toMatchObject({ worker_id: 'build-1', backend: { direct: {} } })
})

test('every variable of ours that a program reads is in docs/configuration.md', () => {
  const sources = repositoryFiles().filter((path) => /^packages\/[^/]+\/src\/.*(?<!\.test)\.ts$/.test(path))
  const used = sources
    .filter((path) => !/\/(testing|test-support)\//.test(path))
    .flatMap((path) =>
      [...read(path).matchAll(/(?:env\.|')((?:OZ|WARP|OTEL)_[A-Z_]*[A-Z])\b/g)].map((match) => match[1] ?? ''),
    )
  expect(missing([...new Set(used)].filter((name) => !internalNames.has(name)))).toEqual([])
})

/** Error codes of Node's kind, and what the build puts in. */
const internalNames = new Set(['OZ_PROXY', 'OZ_VERSION'])

/** Which of these the page does not show as code, alone or with a value behind it. */
function missing(names: string[]): string[] {
  return names.filter((name) => !page.includes(`\`${name}\``) && !page.includes(`\`${name} `))
}

function configFileSection(): string {
  return (page.split('\n### Config file\n')[1] ?? '').split('\n### ')[0] ?? ''
}

/** The keys of the interface that says what the parser returns: `backend.direct.oz_path`, … */
function configFileKeys(): string[] {
  const [, body = ''] =
    /export interface ConfigFile \{\n([\s\S]*?)\n\}/.exec(read('packages/worker/src/config-file.ts')) ?? []
  const keys = [...body.matchAll(/^( +)(\w+)\?:/gm)].map(([, indent = '', name = '']) => ({
    depth: indent.length / 2,
    name,
  }))
  const prefixes = ['', 'backend.', 'backend.direct.']
  return keys
    .filter(({ depth, name }) => (depth === 1 && name !== 'backend') || depth === 3)
    .map(({ depth, name }) => `${prefixes[depth - 1]}${name}`)
}
