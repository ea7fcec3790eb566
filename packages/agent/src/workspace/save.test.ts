import {
  copyFileSync,
  existsSync,
  mkdirSync,
  mkdtempSync,
  readFileSync,
  rmSync,
  statSync,
  utimesSync,
  writeFileSync,
} from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { afterEach, beforeEach, expect, test } from 'vitest'
import { git, makeRepository } from '../../../../test/support/agent-fixture.ts'
import type { Repository } from './clone.ts'
import { restoreWorkspace } from './restore.ts'
import { saveWorkspace } from './save.ts'

let folder: string
let repository: Repository
const env = { PATH: process.env.PATH, HOME: '/nonexistent' }
const signal = new AbortController().signal

beforeEach(() => {
  folder = mkdtempSync(join(tmpdir(), 'oz-save-test-'))
  makeRepository(join(folder, 'origin'), { 'a.txt': 'one\n', 'b.txt': 'two\n', '.gitignore': 'ignored\n' })
  mkdirSync(join(folder, 'blobs'))
  repository = clone('work')
})
afterEach(() => rmSync(folder, { recursive: true, force: true }))

function clone(name: string): Repository {
  git(folder, 'clone', '-q', 'origin', name)
  git(join(folder, name), 'checkout', '-q', '-b', 'oz/run')
  return { dir: 'work', folder: join(folder, name), base: git(join(folder, name), 'rev-parse', 'HEAD'), isKept: false }
}

let blobs = 0
function save(options: { maxBytes?: number; repositories?: Repository[]; commandTimeoutMs?: number } = {}) {
  const { maxBytes = 10_000_000, repositories = [repository], commandTimeoutMs } = options
  const store = async (file: string) => {
    const id = `blob-${++blobs}`
    copyFileSync(file, join(folder, 'blobs', id))
    return id
  }
  return saveWorkspace({ repositories, env, maxBytes, commandTimeoutMs, signal, store })
}

function restore(saved: Awaited<ReturnType<typeof save>>, into: Repository, timeoutMs = 20_000) {
  const download = async (id: string, file: string) => copyFileSync(join(folder, 'blobs', id), file)
  return restoreWorkspace({ saved: saved.repositories, repositories: [into], env, timeoutMs, signal, download })
}

const write = (name: string, text: string) => writeFileSync(join(repository.folder, name), text)
const work = (...args: string[]) => git(repository.folder, ...args)

test('commits, staged, unstaged, deleted, untracked and binary work all come back in a fresh clone as they were', async () => {
  write('a.txt', 'committed\n')
  work('commit', '-qam', 'Work')
  write('a.txt', 'staged\n')
  work('add', 'a.txt')
  write('a.txt', 'unstaged\n')
  rmSync(join(repository.folder, 'b.txt'))
  write('new file.bin', '\0\u0001binary')
  write('ignored', 'stays here')
  const before = work('status', '--porcelain')

  const saved = await save()
  expect(work('status', '--porcelain')).toBe(before)
  expect(saved.leftOut).toEqual([])
  expect(saved.repositories[0]).toMatchObject({
    branch: 'oz/run',
    base: repository.base,
    head: work('rev-parse', 'HEAD'),
    commits: 1,
    files_changed: 3,
    uncommitted: true,
  })

  const fresh = clone('fresh')
  const { notes, repositories } = await restore(saved, fresh)
  expect(notes).toEqual(['work: back at branch oz/run with 1 new commit, with what was not committed.'])
  expect(repositories[0]?.base).toBe(repository.base)
  expect(git(fresh.folder, 'rev-parse', 'HEAD')).toBe(work('rev-parse', 'HEAD'))
  expect(git(fresh.folder, 'branch', '--show-current')).toBe('oz/run')
  expect(git(fresh.folder, 'status', '--porcelain')).toBe(' M a.txt\n D b.txt\n?? "new file.bin"')
  expect(readFileSync(join(fresh.folder, 'a.txt'), 'utf8')).toBe('unstaged\n')
  expect(readFileSync(join(fresh.folder, 'new file.bin'), 'utf8')).toBe('\0\u0001binary')
  expect(existsSync(join(fresh.folder, 'ignored'))).toBe(false)
  expect(git(fresh.folder, 'for-each-ref', 'refs/oz')).toBe('')

  const diff = join(folder, 'blobs', saved.repositories[0]?.diff_blob_id ?? '')
  const applied = clone('applied')
  git(applied.folder, 'apply', '--index', diff)
  expect(readFileSync(join(applied.folder, 'a.txt'), 'utf8')).toBe('unstaged\n')
})

test('an untouched repository needs no bundle', async () => {
  const { repositories, leftOut } = await save()
  expect(repositories[0]).toMatchObject({ bundle_blob_id: null, diff_blob_id: null, commits: 0, uncommitted: false })
  expect(leftOut).toEqual([])
})

test('only uncommitted work makes a bundle with the worktree alone', async () => {
  write('new.txt', 'new')
  const saved = await save()
  expect(saved.repositories[0]).toMatchObject({ commits: 0, uncommitted: true, head: repository.base })
  const fresh = clone('fresh')
  await restore(saved, fresh)
  expect(git(fresh.folder, 'status', '--porcelain')).toBe('?? new.txt')
})

test('what does not fit is left out by name, largest first, and the rest is saved', async () => {
  write('small.txt', 'small')
  write('huge.bin', 'x'.repeat(300_000))
  const { repositories, leftOut } = await save({ maxBytes: 100_000 })
  expect(leftOut).toEqual(['work/huge.bin: a file of 0.3 MB, too large to be saved'])
  expect(repositories[0]).toMatchObject({ files_changed: 1, uncommitted: true })
  expect(repositories[0]?.bundle_blob_id).not.toBe(null)
})

test('commits that are too large are named, and a later attempt is told that they are gone', async () => {
  writeFileSync(join(repository.folder, 'huge.bin'), crypto.getRandomValues(new Uint8Array(60_000)))
  work('add', '--all')
  work('commit', '-qm', 'Huge')
  const saved = await save({ maxBytes: 10_000 })
  expect(saved.repositories[0]).toMatchObject({ commits: 1, bundle_blob_id: null })
  expect(saved.leftOut[0]).toMatch(/^work\/its commits and changes \(.* is the limit of a saved workspace\)$/)
  const { notes } = await restore(saved, clone('fresh'))
  expect(notes[0]).toMatch(/could not be put back/)
})

test('a branch that was moved back, rewritten or left is saved where it stands', async () => {
  write('a.txt', 'two\n')
  work('commit', '-qam', 'Second')
  const second = { ...repository, base: work('rev-parse', 'HEAD') }
  work('reset', '-q', '--hard', 'HEAD~1')
  const [back] = (await save({ repositories: [second] })).repositories
  expect(back).toMatchObject({ head: repository.base, commits: 0, bundle_blob_id: null, uncommitted: false })

  work('checkout', '-q', '--detach')
  write('a.txt', 'detached\n')
  work('commit', '-qam', 'Detached')
  const saved = await save()
  expect(saved.repositories[0]).toMatchObject({ branch: null, commits: 1 })
  const fresh = clone('fresh')
  await restore(saved, fresh)
  expect(git(fresh.folder, 'log', '-1', '--format=%s')).toBe('Detached')
})

test('an empty repository that the run filled comes back whole', async () => {
  const empty = join(folder, 'empty')
  git(folder, 'init', '-q', '-b', 'oz/run', empty)
  writeFileSync(join(empty, 'first.txt'), 'first')
  const saved = await save({ repositories: [{ dir: 'work', folder: empty, base: null, isKept: false }] })
  expect(saved.repositories[0]).toMatchObject({ base: null, head: null, uncommitted: true, files_changed: 1 })
  git(folder, 'init', '-q', '-b', 'oz/run', 'empty2')
  const { notes } = await restore(saved, { dir: 'work', folder: join(folder, 'empty2'), base: null, isKept: false })
  expect(notes[0]).toMatch(/back at/)
  expect(readFileSync(join(folder, 'empty2', 'first.txt'), 'utf8')).toBe('first')
  expect(git(join(folder, 'empty2'), 'status', '--porcelain')).toBe('?? first.txt')
})

test('a change of the same size in the second of the checkout is seen', async () => {
  const file = join(repository.folder, 'a.txt')
  const second = 1_700_000_000
  work('config', 'core.trustctime', 'false')
  utimesSync(file, second, second)
  work('update-index', '--refresh')
  utimesSync(join(repository.folder, '.git', 'index'), second, second)
  write('a.txt', 'two\n')
  utimesSync(file, second, second)
  expect((await save()).repositories[0]).toMatchObject({ uncommitted: true, files_changed: 1 })
})

test('hooks and locks of the repository do not matter', async () => {
  writeFileSync(join(repository.folder, '.git', 'hooks', 'pre-commit'), '#!/bin/sh\nexit 1\n', { mode: 0o755 })
  writeFileSync(join(repository.folder, '.git', 'index.lock'), '')
  write('a.txt', 'changed\n')
  const { repositories, leftOut } = await save()
  expect(leftOut).toEqual([])
  expect(repositories[0]).toMatchObject({ files_changed: 1 })
  expect(statSync(join(repository.folder, '.git', 'index.lock')).size).toBe(0)
})

test('a filter that hangs leaves its repository out, with the reason, and the others are saved', async () => {
  const other = { ...clone('other'), dir: 'other' }
  work('config', 'filter.stuck.clean', 'sleep 30')
  write('.gitattributes', '*.txt filter=stuck\n')
  write('a.txt', 'changed\n')
  writeFileSync(join(other.folder, 'a.txt'), 'changed too\n')

  const saved = await save({ repositories: [repository, other], commandTimeoutMs: 500 })
  expect(saved.leftOut).toEqual([expect.stringMatching(/^work: it could not be saved \(git \w+ was still running/)])
  expect(saved.repositories).toMatchObject([{ dir: 'other', uncommitted: true, bundle_blob_id: expect.any(String) }])
}, 15_000)

test('a filter that hangs while work is put back is ended and named', async () => {
  write('.gitattributes', '*.txt filter=stuck\n')
  write('a.txt', 'changed\n')
  const saved = await save()
  const fresh = clone('fresh')
  git(fresh.folder, 'config', 'filter.stuck.smudge', 'sleep 30')

  await expect(restore(saved, fresh, 1_000)).rejects.toMatchObject({
    code: 'workspace_restore_failed',
    message: expect.stringMatching(/\(work\).* git checkout was still running after 1000 ms/),
  })
}, 15_000)

test('a bundle that cannot be read, and one that cannot be downloaded, end the attempt in words of their own', async () => {
  write('a.txt', 'changed\n')
  const saved = await save()
  const file = join(folder, 'blobs', String(saved.repositories[0]?.bundle_blob_id))
  const bundle = readFileSync(file)
  writeFileSync(file, 'no bundle')
  await expect(restore(saved, clone('second'))).rejects.toMatchObject({ code: 'workspace_restore_failed' })
  rmSync(file)
  const third = clone('third')
  await expect(restore(saved, third)).rejects.toMatchObject({ code: 'workspace_download_failed' })
  writeFileSync(file, bundle)
  expect((await restore(saved, third)).notes).toEqual([expect.stringContaining('back at branch oz/run')])
})

test('a file system monitor of the repository is not started', async () => {
  const monitor = join(folder, 'monitor')
  writeFileSync(monitor, `#!/bin/sh\ntouch ${folder}/started\n`, { mode: 0o755 })
  work('config', 'core.fsmonitor', monitor)
  write('a.txt', 'changed\n')
  expect((await save()).leftOut).toEqual([])
  expect(existsSync(join(folder, 'started'))).toBe(false)
})
