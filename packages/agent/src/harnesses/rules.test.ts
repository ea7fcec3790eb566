import { mkdirSync, mkdtempSync, rmSync, symlinkSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { dirname, join } from 'node:path'
import { afterEach, beforeEach, expect, test } from 'vitest'
import { startHarnessFixture, turn } from '../../../../test/support/harness-fixture.ts'
import type { Workspace } from '../workspace/prepare.ts'
import { nestedRules, rootRules } from './rules.ts'

const { signal } = new AbortController()

let folder: string
let workspace: Workspace

beforeEach(() => {
  folder = mkdtempSync(join(tmpdir(), 'oz-rules-'))
  workspace = {
    folder,
    toolsFolder: join(folder, 'repo'),
    repositories: [{ dir: 'repo', folder: join(folder, 'repo'), base: null }],
  } as unknown as Workspace
  write('repo/AGENTS.md', 'root rules')
  write('repo/a/AGENTS.md', 'rules of a')
  write('repo/a/b/CLAUDE.md', 'rules of b')
  write('repo/a/b/file.txt', 'x')
  write('outside/AGENTS.md', 'secrets of the machine')
})
afterEach(() => rmSync(folder, { recursive: true, force: true }))

function write(path: string, text: string): void {
  mkdirSync(dirname(join(folder, path)), { recursive: true })
  writeFileSync(join(folder, path), text)
}

test('rules of the root are read once where one is a link to the other, and none from outside', async () => {
  symlinkSync('AGENTS.md', join(folder, 'repo/CLAUDE.md'))
  symlinkSync('../outside/AGENTS.md', join(folder, 'repo/WARP.md'))
  expect(await rootRules(workspace)).toEqual(['# Rules of the repository repo, from AGENTS.md\n\nroot rules'])
  const folderAlone = { ...workspace, repositories: [] }
  expect(await rootRules(folderAlone)).toEqual(['# Rules of this folder, from AGENTS.md\n\nroot rules'])
})

test('rules of the folders that a call leads into are given, outermost first, once', async () => {
  const input = { files: [{ path: 'a/b/file.txt' }, { path: 'a/new/thing.txt' }] }
  const rules = await nestedRules(input, { workspace, shown: [], signal })
  expect(rules?.text).toBe(
    'Rules for a, from a/AGENTS.md:\nrules of a\n\nRules for a/b, from a/b/CLAUDE.md:\nrules of b',
  )
  expect(await nestedRules(input, { workspace, shown: rules?.files ?? [], signal })).toBeUndefined()
  expect(await nestedRules({ path: 'a' }, { workspace, shown: [], signal })).toMatchObject({
    text: expect.stringContaining('rules of a'),
  })
})

test('paths that lead nowhere, or out of the repository, have no rules', async () => {
  symlinkSync('../outside', join(folder, 'repo/link'))
  mkdirSync(join(folder, 'repo/c'))
  symlinkSync('../../outside/AGENTS.md', join(folder, 'repo/c/AGENTS.md'))
  for (const path of ['../outside/x', 'link/x', 'c/x', '/etc/passwd', 'file', '', '\0'])
    expect(await nestedRules({ path }, { workspace, shown: [], signal })).toBeUndefined()
  expect(await nestedRules('a/b', { workspace, shown: [], signal })).toBeUndefined()
})

test('a path is followed no further than it exists, and not when the work is stopped', async () => {
  const start = performance.now()
  for (const path of [`a/${'b/c/'.repeat(1_000)}x`, `a/${'x/'.repeat(500_000)}x`, 'a/b/'.repeat(1_000)])
    await nestedRules({ files: Array(20).fill({ path }) }, { workspace, shown: [], signal })
  expect(performance.now() - start).toBeLessThan(2_000)
  const deep = await nestedRules({ path: 'a/b/new/new/x' }, { workspace, shown: [], signal })
  expect(deep?.text).toContain('rules of b')
  expect(await nestedRules({ path: 'a' }, { workspace, shown: [], signal: AbortSignal.abort() })).toBeUndefined()
})

test('arguments that no tool took lead nowhere', async () => {
  const refused = { toolCalls: [{ name: 'read_files', arguments: { path: 'a/b/file.txt' } }] }
  await using oz = await startHarnessFixture({ steps: [refused, { text: 'Done.' }] })
  const session = await oz.open({ workspace })
  expect(await session.prompt(turn('read'), signal)).toMatchObject({ outcome: 'SUCCEEDED' })
  expect(JSON.stringify(oz.model.requests[1]?.body)).not.toContain('rules of a')
})

test('a long rules file is cut, and a folder of that name is none', async () => {
  write('repo/long/AGENTS.md', 'é'.repeat(100_000))
  mkdirSync(join(folder, 'repo/dir/AGENTS.md'), { recursive: true })
  const rules = await nestedRules({ paths: ['long/x', 'dir/x'] }, { workspace, shown: [], signal })
  expect(rules?.text.length).toBeLessThan(13_000)
  expect(rules?.text).toMatch(/é\n\[cut here; the rest is in the file\]$/)
})

test('the model gets nested rules with the first result that needs them', async () => {
  const read = { toolCalls: [{ name: 'read_files', arguments: { files: [{ path: 'a/b/file.txt' }] } }] }
  await using oz = await startHarnessFixture({ steps: [read, read, { text: 'Done.' }] })
  const session = await oz.open({ workspace })
  expect(await session.prompt(turn('read'), new AbortController().signal)).toMatchObject({ outcome: 'SUCCEEDED' })
  const [, second, third] = oz.model.requests.map(({ body }) => JSON.stringify(body))
  expect(second?.split('rules of b').length).toBe(2)
  expect(third?.split('rules of b').length).toBe(2)
  expect(second).toContain('root rules')
})
