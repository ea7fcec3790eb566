import { mkdirSync, mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { afterEach, beforeEach, expect, test } from 'vitest'
import { git, makeRepository } from '../../../../test/support/agent-fixture.ts'
import type { Repository } from './clone.ts'
import { gitEnvironment } from './git.ts'
import { type SavedState, saveWorkspace } from './save.ts'
import { findCheckout, isTooWide } from './users-checkout.ts'

let folder: string
let home: string | undefined
const env = { PATH: process.env.PATH, HOME: tmpdir(), GIT_CONFIG_GLOBAL: '/dev/null' }
const maxBytes = 1_000_000

beforeEach(() => {
  folder = mkdtempSync(join(tmpdir(), 'oz-checkout-'))
  home = process.env.HOME
})

afterEach(() => {
  process.env.HOME = home
  rmSync(folder, { recursive: true, force: true })
})

function look(at: string): Promise<Repository | undefined> {
  return findCheckout({
    folder: at,
    runId: 'run',
    git: { env: gitEnvironment(env) },
    sink: { emit: () => {}, ready: async () => {} },
    maxBytes,
  })
}

async function save(repository: Repository): Promise<SavedState & { files: string[] }> {
  const files: string[] = []
  const state = await saveWorkspace({
    repositories: [repository],
    folder: repository.folder,
    env,
    maxBytes,
    signal: new AbortController().signal,
    store: async (file) => {
      const kept = join(folder, `stored-${files.length}`)
      writeFileSync(kept, readFileSync(file))
      files.push(kept)
      return crypto.randomUUID()
    },
  })
  return { ...state, files }
}

test('a checkout in which the run did nothing has nothing to save, whatever lay in it', async () => {
  const checkout = makeRepository(join(folder, 'c'), { 'a.txt': 'a\n', '.gitignore': 'ignored\n' })
  writeFileSync(join(checkout, 'a.txt'), 'edited\n')
  writeFileSync(join(checkout, 'large.bin'), Buffer.alloc(2 * maxBytes))
  git(checkout, 'branch', 'other')
  const found = await look(checkout)
  if (!found) throw new Error('it was not found')
  const before = git(checkout, 'for-each-ref')
  expect(await save(found)).toMatchObject({
    repositories: [{ files_changed: 0, commits: 0, uncommitted: false, bundle_blob_id: null, diff_blob_id: null }],
    leftOut: [],
    files: [],
  })
  expect(git(checkout, 'for-each-ref')).toBe(before)
  expect(git(checkout, 'status', '--short')).toBe(' M a.txt\n?? large.bin')
})

test('a file of the person’s that the run changed is saved as the run left it, the others are not', async () => {
  const checkout = makeRepository(join(folder, 'c'), { 'a.txt': 'a\n', 'b.txt': 'b\n', 'd.txt': 'd\n' })
  writeFileSync(join(checkout, 'a.txt'), 'own\n')
  writeFileSync(join(checkout, 'b.txt'), 'own\n')
  const found = await look(checkout)
  if (!found) throw new Error('it was not found')
  writeFileSync(join(checkout, 'a.txt'), 'own\nrun\n')
  rmSync(join(checkout, 'd.txt'))
  const { repositories, files } = await save(found)
  expect(repositories).toMatchObject([{ files_changed: 2, insertions: 1, deletions: 1, uncommitted: true }])
  const clone = join(folder, 'clone')
  git(folder, 'clone', '-q', `file://${checkout}`, clone)
  git(clone, 'fetch', '-q', files[0] ?? '', '+refs/*:refs/r/*')
  expect(git(clone, 'show', 'refs/r/oz/worktree:a.txt')).toBe('own\nrun')
  expect(git(clone, 'show', 'refs/r/oz/worktree:b.txt')).toBe('b')
  expect(git(clone, 'ls-tree', '--name-only', 'refs/r/oz/worktree').split('\n')).toEqual(['a.txt', 'b.txt'])
  expect(readFileSync(files[1] ?? '', 'utf8')).not.toContain('b.txt')
})

test.each([
  ['a shallow clone', ['--depth=1']],
  ['a partial clone', ['--filter=blob:none']],
])('%s is saved as every other one', async (_name, how) => {
  const origin = makeRepository(join(folder, 'origin'), { 'a.txt': 'a\n' })
  writeFileSync(join(origin, 'b.txt'), 'b\n')
  git(origin, 'add', '.')
  git(origin, 'commit', '-qm', 'More')
  git(origin, 'config', 'uploadpack.allowFilter', 'true')
  const checkout = join(folder, 'c')
  git(folder, 'clone', '-q', ...how, `file://${origin}`, checkout)
  const found = await look(checkout)
  if (!found) throw new Error('it was not found')
  writeFileSync(join(checkout, 'a.txt'), 'run\n')
  git(checkout, 'commit', '-qam', 'Run')
  const { repositories, files, leftOut } = await save(found)
  expect(leftOut).toEqual([])
  expect(repositories).toMatchObject([{ commits: 1, files_changed: 1, bundle_blob_id: expect.any(String) }])
  git(origin, 'fetch', '-q', files[0] ?? '', '+refs/*:refs/r/*')
  expect(git(origin, 'show', 'refs/r/oz/head:a.txt')).toBe('run')
})

test('a linked worktree, a repository without commits and a folder far inside are checkouts too', async () => {
  const main = makeRepository(join(folder, 'c'), { 'a.txt': 'a\n' })
  git(main, 'worktree', 'add', '-q', join(folder, 'linked'))
  const linked = await look(join(folder, 'linked'))
  writeFileSync(join(folder, 'linked', 'new.txt'), 'n\n')
  expect((await save(linked as Repository)).repositories).toMatchObject([{ branch: 'linked', files_changed: 1 }])

  const young = join(folder, 'young', 'deep', 'er')
  mkdirSync(young, { recursive: true })
  git(join(folder, 'young'), 'init', '-q', '-b', 'main')
  writeFileSync(join(folder, 'young', 'own.txt'), 'own\n')
  const found = await look(young)
  expect(found).toMatchObject({ dir: '.', folder: join(folder, 'young'), base: null })
  writeFileSync(join(young, 'new.txt'), 'n\n')
  const { repositories, files } = await save(found as Repository)
  expect(repositories).toMatchObject([{ files_changed: 1, head: null }])
  git(main, 'fetch', '-q', files[0] ?? '', '+refs/*:refs/r/*')
  expect(git(main, 'ls-tree', '-r', '--name-only', 'refs/r/oz/worktree')).toBe('deep/er/new.txt')
})

test('a home folder is never looked through, and a folder without git is no problem', async () => {
  process.env.HOME = makeRepository(join(folder, 'home'), { '.profile': '' })
  expect(await isTooWide(process.env.HOME)).toBe(true)
  expect(await isTooWide('/')).toBe(true)
  expect(await look(process.env.HOME)).toBeUndefined()
  mkdirSync(join(folder, 'plain'))
  expect(await look(join(folder, 'plain'))).toBeUndefined()
})
