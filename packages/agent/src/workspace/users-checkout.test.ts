import { mkdirSync, mkdtempSync, readdirSync, readFileSync, rmSync, truncateSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { afterEach, beforeEach, expect, test } from 'vitest'
import { git, makeRepository } from '../../../../test/support/agent-fixture.ts'
import type { Repository } from './clone.ts'
import { gitEnvironment } from './git.ts'
import { prepareRepositories, type Workspace } from './prepare.ts'
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
    keepIn: folder,
  })
}

/** A local run's workspace, and the notices of its preparation. */
async function prepare(at: string): Promise<Workspace & { notices: string[] }> {
  const notices: string[] = []
  const workspace = await prepareRepositories({
    sources: [],
    folder: at,
    runId: 'run',
    env,
    timeoutMs: 20_000,
    signal: new AbortController().signal,
    sink: { emit: (event) => void notices.push(JSON.stringify(event)), ready: async () => {} },
    mask: (text) => text,
    checkout: { maxBytes, keepIn: folder },
  })
  return { ...workspace, notices }
}

function save(repository: Repository): Promise<SavedState & { files: string[] }> {
  return saveAll({ repositories: [repository], folder: repository.folder })
}

async function saveAll(
  workspace: Pick<Workspace, 'repositories' | 'folder' | 'found' | 'folderStart'>,
): Promise<SavedState & { files: string[] }> {
  const files: string[] = []
  const state = await saveWorkspace({
    ...workspace,
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

test.each([
  ['stashes it', false],
  ['stashes it and brings it back', true],
])('what was not committed before stays on the machine, also when the run %s', async (_how, isBack) => {
  const checkout = makeRepository(join(folder, 'c'), { 'a.txt': 'a\n' })
  writeFileSync(join(checkout, 'a.txt'), 'own edit\n')
  writeFileSync(join(checkout, '.env.local'), 'TOKEN=1\n')
  const found = await look(checkout)
  git(checkout, 'stash', '-q', '-u')
  if (isBack) git(checkout, 'stash', 'apply', '-q')
  writeFileSync(join(checkout, 'made.txt'), 'run\n')
  const { repositories, leftOut, files } = await save(found as Repository)
  expect(repositories).toMatchObject([{ files_changed: 1, bundle_blob_id: expect.any(String) }])
  expect(leftOut).toEqual([expect.stringContaining('stash')])
  git(checkout, 'fetch', '-q', files[0] ?? '', '+refs/*:refs/r/*')
  expect(git(checkout, 'for-each-ref', '--format=%(refname)', 'refs/r')).toBe('refs/r/oz/worktree')
  expect(git(checkout, 'ls-tree', '-r', '--name-only', 'refs/r/oz/worktree').split('\n')).toEqual(['a.txt', 'made.txt'])
  expect(git(checkout, 'show', 'refs/r/oz/worktree:a.txt')).toBe('a')
  expect(readFileSync(files[1] ?? '', 'utf8').match(/^diff --git .*|^[-+]\w.*/gm)).toEqual([
    'diff --git a/made.txt b/made.txt',
    '+run',
  ])
})

test.each(['false', 'true'])(
  'looking and saving write nothing into the repository (core.splitIndex=%s)',
  async (split) => {
    const checkout = makeRepository(join(folder, 'c'), { 'a.txt': 'a\n', 'b.txt': 'b\n' })
    git(checkout, 'config', 'core.splitIndex', split)
    git(checkout, 'update-index', split === 'true' ? '--split-index' : '--no-split-index')
    git(checkout, 'config', 'splitIndex.maxPercentChange', '0')
    writeFileSync(join(checkout, 'own.txt'), 'own\n')
    const before = readdirSync(join(checkout, '.git'), { recursive: true }).toSorted()
    const found = await look(checkout)
    writeFileSync(join(checkout, 'a.txt'), 'run\n')
    writeFileSync(join(checkout, 'made.txt'), 'made\n')
    const { repositories, files, leftOut } = await save(found as Repository)
    expect(readdirSync(join(checkout, '.git'), { recursive: true }).toSorted()).toEqual(before)
    expect(leftOut).toEqual([])
    expect(repositories).toMatchObject([{ files_changed: 2, uncommitted: true }])
    git(checkout, 'fetch', '-q', files[0] ?? '', '+refs/*:refs/r/*')
    expect(git(checkout, 'show', 'refs/r/oz/worktree:made.txt')).toBe('made')
  },
)

test('branches and tags that the run makes out of stashes stay on the machine, its other branches do not', async () => {
  const checkout = makeRepository(join(folder, 'c'), { 'a.txt': 'a\n' })
  const stash = (text: string) => {
    writeFileSync(join(checkout, 'a.txt'), `${text}\n`)
    git(checkout, 'stash', '-q')
  }
  stash('older')
  stash('old')
  writeFileSync(join(checkout, 'a.txt'), 'own edit\n')
  const found = await look(checkout)
  git(checkout, 'stash', '-q')
  for (const [name, entry] of Object.entries({ edit: 0, old: 1, older: 2 }))
    git(checkout, 'branch', name, `stash@{${entry}}`)
  git(checkout, 'stash', 'drop', '-q')
  git(checkout, 'checkout', '-q', '-b', 'further', 'edit')
  git(checkout, 'commit', '-q', '--allow-empty', '-m', 'Upon the stash')
  git(checkout, 'tag', '-m', 'annotated', 'marked', 'older')
  git(checkout, 'checkout', '-q', '-b', 'good', 'main')
  writeFileSync(join(checkout, 'made.txt'), 'run\n')
  git(checkout, 'add', 'made.txt')
  git(checkout, 'commit', '-q', '-m', 'Made')
  git(checkout, 'checkout', '-q', '-b', 'merged', 'main')
  git(checkout, 'merge', '-q', '--no-ff', '--no-edit', 'good')
  git(checkout, 'checkout', '-q', 'main')
  const { files, leftOut } = await save(found as Repository)
  const left = ['branch edit', 'branch further', 'branch older', 'tag marked']
  expect(leftOut).toEqual(left.map((what) => expect.stringMatching(`^the ${what}, made out of a stash`)))
  const bundled = git(checkout, 'bundle', 'list-heads', files[0] ?? '')
    .split('\n')
    .map((line) => line.split(' ')[1])
  expect(bundled).toEqual(['refs/heads/good', 'refs/heads/merged'])
})

test('a merge that was under way before is no news, one that the run began is', async () => {
  const checkout = makeRepository(join(folder, 'c'), { 'a.txt': 'a\n' })
  writeFileSync(join(checkout, '.git', 'MERGE_HEAD'), `${git(checkout, 'rev-parse', 'HEAD')}\n`)
  const found = await look(checkout)
  writeFileSync(join(checkout, 'a.txt'), 'run\n')
  expect((await save(found as Repository)).leftOut).toEqual([])
  writeFileSync(join(checkout, '.git', 'REVERT_HEAD'), `${git(checkout, 'rev-parse', 'HEAD')}\n`)
  expect((await save(found as Repository)).leftOut).toEqual([expect.stringContaining('revert')])
})

test('in a folder without git, what the run changes and removes is saved, and the rest stays', async () => {
  const plain = join(folder, 'plain')
  mkdirSync(join(plain, 'deep'), { recursive: true })
  for (const name of ['exist.txt', 'deep/own.txt', 'gone.txt', '.env']) writeFileSync(join(plain, name), 'own\n')
  writeFileSync(join(plain, 'large.bin'), Buffer.alloc(2 * maxBytes))
  const inner = makeRepository(join(plain, 'inner'), { 'i.txt': 'i\n' })
  const workspace = await prepare(plain)
  expect(await saveAll(workspace)).toEqual({ repositories: [], leftOut: [], files: [] })
  writeFileSync(join(plain, 'exist.txt'), 'run\n')
  writeFileSync(join(plain, 'deep', 'made.txt'), 'made\n')
  writeFileSync(join(inner, 'i.txt'), 'person\n')
  rmSync(join(plain, 'gone.txt'))
  const { repositories, leftOut, files } = await saveAll(workspace)
  expect(leftOut).toEqual([])
  expect(repositories).toMatchObject([{ dir: '.', base: null, files_changed: 3, insertions: 2, deletions: 2 }])
  const there = makeRepository(join(folder, 'there'), { 'x.txt': 'x\n' })
  git(there, 'fetch', '-q', files[0] ?? '', '+refs/*:refs/r/*')
  const names = git(there, 'ls-tree', '-r', '--name-only', 'refs/r/oz/worktree').split('\n')
  expect(names).toEqual(['deep/made.txt', 'exist.txt'])
  expect(readFileSync(files[1] ?? '', 'utf8').match(/^diff --git a\/\S+/gm)).toHaveLength(3)
  rmSync(join(plain, 'deep', 'made.txt'))
  writeFileSync(join(plain, 'exist.txt'), 'own\n')
  expect(await saveAll(workspace)).toMatchObject({ repositories: [{ files_changed: 1, bundle_blob_id: null }] })
})

test('a folder without git that holds too much is said to be, and only new files of its top are saved', async () => {
  const plain = join(folder, 'plain')
  mkdirSync(plain)
  writeFileSync(join(plain, 'disk.img'), '')
  truncateSync(join(plain, 'disk.img'), 600_000_000)
  const workspace = await prepare(plain)
  expect(workspace.notices).toEqual([expect.stringContaining('will not be saved')])
  writeFileSync(join(plain, 'made.txt'), 'made\n')
  expect((await saveAll(workspace)).repositories).toMatchObject([{ dir: '.', files_changed: 1 }])
})

test('of a checkout that could not be looked at, nothing is saved, what the run makes neither', async () => {
  const checkout = makeRepository(join(folder, 'c'), { 'a.txt': 'a\n' })
  writeFileSync(join(checkout, '.git', 'index'), 'broken')
  const workspace = await prepare(checkout)
  expect(workspace.notices).toEqual([expect.stringContaining('will not be saved')])
  writeFileSync(join(checkout, '.env'), 'TOKEN=1\n')
  expect(await saveAll(workspace)).toEqual({ repositories: [], leftOut: [], files: [] })
})
