import { existsSync, mkdirSync, readdirSync, readFileSync, renameSync, rmSync } from 'node:fs'
import { dirname, join } from 'node:path'
import { afterEach, beforeEach, expect, test } from 'vitest'
import { git, makeRepository } from '../../../../test/support/agent-fixture.ts'
import { startRoundTrip, write } from '../../../../test/support/workspace-round-trip.ts'
import type { Workspace } from './prepare.ts'

let trip: ReturnType<typeof startRoundTrip>
beforeEach(() => {
  trip = startRoundTrip()
})
afterEach(() => trip[Symbol.dispose]())

const read = (...path: string[]) => readFileSync(join(...path), 'utf8')

test('repositories that the run made come back as such: inside of another, beside it, without a commit', async () => {
  const { workspace, after, at, saved } = await trip.roundTrip((work) => {
    makeRepository(join(work, 'vendor/lib'), { 'x.txt': 'x' })
    git(work, 'init', '-q', '-b', 'trunk', 'empty')
    write(join(work, 'empty/y.txt'), 'y')
    write(join(work, 'new.txt'), 'new')
    makeRepository(join(dirname(work), 'tool'), { 'tool.txt': 'tool' })
    write(join(dirname(work), 'tool/uncommitted.txt'), 'u')
  })
  expect(saved.leftOut).toEqual([])
  expect(saved.repositories.map(({ dir }) => dir).sort()).toEqual([
    'origin',
    'origin/empty',
    'origin/vendor/lib',
    'tool',
  ])
  expect(git(join(after, 'vendor/lib'), 'log', '-1', '--format=%s')).toBe('Begin')
  expect(git(join(after, 'empty'), 'symbolic-ref', 'HEAD')).toBe('refs/heads/trunk')
  expect(read(after, 'empty/y.txt')).toBe('y')
  expect(read(after, 'new.txt')).toBe('new')
  expect(git(at('tool'), 'status', '--porcelain')).toBe('?? uncommitted.txt')
  expect(readdirSync(at('.')).sort()).toEqual(['origin', 'tool'])
  // What came back is saved again, whoever made it.
  expect((await trip.save(workspace)).repositories.map(({ dir }) => dir).sort()).toHaveLength(4)
})

test('a repository whose .git was deleted keeps its files, as a change of what it began from', async () => {
  const { after, saved, notes, workspace } = await trip.roundTrip((work) => {
    rmSync(join(work, '.git'), { recursive: true })
    rmSync(join(work, 'b.txt'))
    write(join(work, 'new.txt'), 'new')
    write(join(work, 'ignored'), 'i')
  })
  expect(saved.leftOut).toEqual([expect.stringMatching(/^origin: its .git folder is gone/)])
  expect(notes).toEqual(['origin: its files are as they were, without the commits that were made of them.'])
  expect(git(after, 'branch', '--show-current')).toBe('oz/run-1')
  expect(git(after, 'status', '--porcelain')).toBe(' D b.txt\n?? new.txt')
  expect(workspace.repositories[0]?.base).toBe(git(trip.origin, 'rev-parse', 'HEAD'))
})

test('a repository that was made anew in the place of its clone comes back with its own history', async () => {
  const { after, saved } = await trip.roundTrip((work) => {
    rmSync(join(work, '.git'), { recursive: true })
    git(work, 'init', '-q', '-b', 'fresh')
    git(work, 'add', '.')
    git(work, '-c', 'user.name=a', '-c', 'user.email=a@b', 'commit', '-qm', 'All anew')
  })
  expect(saved.repositories[0]).toMatchObject({ base: null, branch: 'fresh', commits: 1 })
  expect(git(after, 'log', '--format=%s')).toBe('All anew')
})

test('a repository that was removed is said to be gone, and one that was renamed comes back under its name', async () => {
  const { at, saved } = await trip.roundTrip((work) => renameSync(work, join(dirname(work), 'renamed')))
  expect(saved.leftOut).toEqual(['origin: its folder is gone'])
  expect(read(at('renamed'), 'a.txt')).toBe('one\n')
})

test('files outside of any repository come back, and make no repository of their folder', async () => {
  const workspace = await trip.begin([])
  write(join(workspace.folder, 'report.md'), '# Report')
  write(join(workspace.folder, 'data/.gitignore'), '*')
  write(join(workspace.folder, 'data/numbers.csv'), '1,2')
  const saved = await trip.save(workspace)
  expect(saved.leftOut).toEqual([])
  expect(saved.repositories).toMatchObject([{ dir: '.', base: null, head: null, branch: null, files_changed: 3 }])
  expect(existsSync(join(workspace.folder, '.git'))).toBe(false)

  const { at, notes, workspace: next } = await trip.restore(saved, [])
  expect(notes).toEqual(['Files outside of repositories: they are back.'])
  expect(readdirSync(at('.')).sort()).toEqual(['data', 'report.md'])
  expect(read(at('data/numbers.csv'))).toBe('1,2')
  expect((await trip.save(next)).repositories).toMatchObject([{ dir: '.', files_changed: 3 }])
})

test('an empty workspace that stayed empty has nothing to save', async () => {
  expect(await trip.save(await trip.begin([]))).toEqual({ repositories: [], leftOut: [] })
  const withFolder = await trip.begin([])
  mkdirSync(join(withFolder.folder, 'empty'))
  expect(await trip.save(withFolder)).toEqual({ repositories: [], leftOut: [] })
})

test('what was in the workspace before the run is not saved with it', async () => {
  const at = join(trip.folder, 'given')
  write(join(at, 'private/notes.txt'), 'not the run’s')
  const workspace: Workspace = { folder: at, toolsFolder: at, repositories: [], found: ['private'] }
  write(join(at, 'report.md'), '# Report')
  const saved = await trip.save(workspace)
  expect(saved.repositories).toMatchObject([{ dir: '.', files_changed: 1 }])
})

test('a workspace that became a repository itself comes back as one', async () => {
  const workspace = await trip.begin([])
  git(workspace.folder, 'init', '-q', '-b', 'main')
  write(join(workspace.folder, 'a.txt'), 'a')
  git(workspace.folder, 'add', '.')
  git(workspace.folder, '-c', 'user.name=a', '-c', 'user.email=a@b', 'commit', '-qm', 'First')
  write(join(workspace.folder, 'b.txt'), 'b')
  const { at } = await trip.restore(await trip.save(workspace), [])
  expect(git(at('.'), 'log', '--format=%s')).toBe('First')
  expect(git(at('.'), 'status', '--porcelain')).toBe('?? b.txt')
})

test('a path that leads out of the workspace is not followed when work is put back', async () => {
  const workspace = await trip.begin([])
  write(join(workspace.folder, 'x'), 'x')
  const saved = await trip.save(workspace)
  const [first] = saved.repositories
  if (!first) throw new Error('nothing was saved')
  const dirs = ['../outside', '/tmp/outside', 'a/../../outside', '.git']
  const evil = { leftOut: [], repositories: dirs.map((dir) => ({ ...first, dir })) }
  const { notes } = await trip.restore(evil, [])
  expect(notes).toHaveLength(4)
  expect(existsSync(join(trip.folder, 'outside'))).toBe(false)
})

test('a bare repository in the workspace comes back with its commits, as files', async () => {
  const workspace = await trip.begin([])
  const mirror = join(workspace.folder, 'mirror')
  git(workspace.folder, 'clone', '-q', '--bare', trip.origin, 'mirror')
  git(workspace.folder, 'init', '-q', '--bare', 'empty.git')
  const saved = await trip.save(workspace)
  expect(saved.leftOut).toEqual([])
  const tip = git(mirror, 'rev-parse', 'HEAD')
  const { at } = await trip.restore(saved, [])
  expect(git(at('mirror'), 'rev-parse', '--is-bare-repository')).toBe('true')
  expect(git(at('mirror'), 'rev-parse', 'HEAD')).toBe(tip)
  expect(git(at('mirror'), 'fsck', '--connectivity-only')).toBe('')
  expect(git(at('empty.git'), 'rev-parse', '--is-bare-repository')).toBe('true')

  const { after } = await trip.roundTrip((work) => void git(work, 'clone', '-q', '--bare', trip.origin, 'inside.git'))
  expect(git(join(after, 'inside.git'), 'rev-parse', 'HEAD')).toBe(tip)
})

test('a workspace that is a bare repository is left as it is, and what the run puts beside it is saved', async () => {
  const folder = join(trip.folder, 'bare')
  git(trip.folder, 'clone', '-q', '--bare', trip.origin, 'bare')
  const workspace: Workspace = { folder, toolsFolder: folder, repositories: [], found: readdirSync(folder) }
  expect(await trip.save(workspace)).toEqual({ repositories: [], leftOut: [] })
  write(join(folder, 'report.md'), '# Report')
  const before = git(folder, 'rev-parse', 'HEAD')
  expect((await trip.save(workspace)).repositories).toMatchObject([{ dir: '.', base: null, files_changed: 1 }])
  expect(git(folder, 'rev-parse', 'HEAD')).toBe(before)
})

test('in a folder that outlives its executions, what the run made stays its work', async () => {
  const at = join(trip.folder, 'fixed')
  write(join(at, 'private.txt'), 'not the run’s')
  const workspace = await trip.begin([], { at })
  write(join(at, 'report.md'), '# Report')
  write(join(at, 'data/numbers.csv'), '1,2')
  makeRepository(join(at, 'tools/one'), { 'tool.txt': 'tool' })
  const saved = await trip.save(workspace)
  const dirs = ['.', 'tools/one']
  expect(saved.repositories.map(({ dir }) => dir).sort()).toEqual(dirs)

  for (let execution = 2; execution <= 3; execution++) {
    const { workspace: next } = await trip.restore(saved, [], { at })
    expect(next.found).toEqual(['private.txt'])
    const again = await trip.save(next)
    expect(again.repositories.map(({ dir }) => dir).sort()).toEqual(dirs)
    expect(again.repositories.find(({ dir }) => dir === '.')).toMatchObject({ files_changed: 2 })
  }
})
