import { mkdirSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'
import type { AgentPlatform } from '@openoz/protocol'
import { afterEach, beforeEach, expect, test } from 'vitest'
import { createFolder } from '../test-support/worker.ts'
import { bundleHash } from './bundle-file.ts'
import { findBundle } from './find-bundle.ts'

let scratch: ReturnType<typeof createFolder>
beforeEach(() => {
  scratch = createFolder()
})
afterEach(() => scratch[Symbol.dispose]())

function putBundle(name: string, platform: AgentPlatform): string {
  const folder = join(scratch.path, name)
  mkdirSync(folder, { recursive: true })
  const about = { platform, is_patched: true, oz: '1', node: '24', ripgrep: '15', libc: '2.36' }
  const manifest = { version: 1, hash: bundleHash([]), ...about, files: [], licences: [] }
  writeFileSync(join(folder, 'manifest.json'), JSON.stringify(manifest))
  return folder
}

const find = (
  platform: AgentPlatform,
  { configured, env = {} }: { configured?: string; env?: NodeJS.ProcessEnv } = {},
) => findBundle({ platform, configured, env }, [join(scratch.path, 'dist')])

test('beside the program is the bundle for its own CPU, and those for others', async () => {
  const own = putBundle('dist/agent', 'linux/amd64')
  const other = putBundle('dist/agent-linux-arm64', 'linux/arm64')
  expect((await find('linux/amd64')).folder).toBe(own)
  expect((await find('linux/arm64')).folder).toBe(other)
})

test('a bundle that is named is the one to take, in the config file before the variable', async () => {
  putBundle('dist/agent', 'linux/amd64')
  const [first, second] = [putBundle('first', 'linux/amd64'), putBundle('second', 'linux/amd64')]
  expect((await find('linux/amd64', { env: { OZ_AGENT_BUNDLE: second } })).folder).toBe(second)
  expect((await find('linux/amd64', { configured: first, env: { OZ_AGENT_BUNDLE: second } })).folder).toBe(first)
  const gone = find('linux/amd64', { configured: join(scratch.path, 'gone') })
  await expect(gone).rejects.toMatchObject({ code: 'agent_bundle_missing' })
})

test('a folder of bundles is looked through', async () => {
  const other = putBundle('shared/agent-linux-arm64', 'linux/arm64')
  const env = { OZ_AGENT_BUNDLES_DIR: join(scratch.path, 'shared') }
  expect((await find('linux/arm64', { env })).folder).toBe(other)
})

test('a bundle of another CPU is refused with both names', async () => {
  const folder = putBundle('dist/agent', 'linux/amd64')
  await expect(find('linux/arm64')).rejects.toMatchObject({
    code: 'agent_bundle_wrong_platform',
    details: { folder, found: 'linux/amd64', wanted: 'linux/arm64' },
  })
  await expect(find('linux/arm64', { configured: folder })).rejects.toThrow(/linux\/amd64.*linux\/arm64/)
})

test('where there is none the places are named', async () => {
  await expect(find('linux/amd64')).rejects.toThrow(join(scratch.path, 'dist', 'agent'))
})

test('a manifest that cannot be read is not passed over', async () => {
  const folder = putBundle('dist/agent', 'linux/amd64')
  writeFileSync(join(folder, 'manifest.json'), '')
  await expect(find('linux/amd64')).rejects.toMatchObject({ code: 'agent_bundle_broken' })
})
