import { execFileSync } from 'node:child_process'
import {
  chmodSync,
  existsSync,
  lstatSync,
  mkdirSync,
  readdirSync,
  readFileSync,
  readlinkSync,
  rmSync,
  statSync,
  symlinkSync,
  writeFileSync,
} from 'node:fs'
import { join } from 'node:path'
import { afterEach, beforeEach, expect, test } from 'vitest'
import { git, makeRepository } from '../../../../test/support/agent-fixture.ts'
import { startRoundTrip, write } from '../../../../test/support/workspace-round-trip.ts'

let trip: ReturnType<typeof startRoundTrip>
beforeEach(() => {
  trip = startRoundTrip()
})
afterEach(() => trip[Symbol.dispose]())

const read = (...path: string[]) => readFileSync(join(...path), 'utf8')

test('modes, symlinks, deletions, staged, untracked and large files and a rename of case come back', async () => {
  const large = Buffer.from(Array.from({ length: 4_000_000 }, (_, i) => (i * i) % 251))
  const { saved, before, after } = await trip.roundTrip((work) => {
    write(join(work, 'bin/run.sh'), '#!/bin/sh\n')
    chmodSync(join(work, 'bin/run.sh'), 0o755)
    symlinkSync('bin/run.sh', join(work, 'link'))
    symlinkSync('/nowhere/at/all', join(work, 'dangling'))
    git(work, 'mv', 'a.txt', 'A.txt')
    rmSync(join(work, 'b.txt'))
    write(join(work, 'staged.txt'), 'staged')
    writeFileSync(join(work, 'large.bin'), large)
    git(work, 'add', 'staged.txt')
    write(join(work, 'odd name\n"ünïcode".txt'), 'odd')
  })
  expect(saved.leftOut).toEqual([])
  expect(statSync(join(after, 'bin/run.sh')).mode & 0o111).toBe(0o111)
  expect(readlinkSync(join(after, 'link'))).toBe('bin/run.sh')
  expect(readlinkSync(join(after, 'dangling'))).toBe('/nowhere/at/all')
  expect(readdirSync(after).sort()).toEqual(readdirSync(before).sort())
  expect(read(after, 'A.txt')).toBe('one\n')
  expect(readFileSync(join(after, 'large.bin')).equals(large)).toBe(true)
})

test('a file that became a folder, and a folder that became a file, come back', async () => {
  const { after } = await trip.roundTrip((work) => {
    rmSync(join(work, 'a.txt'))
    write(join(work, 'a.txt/inside'), 'x')
    rmSync(join(work, 'b.txt'))
    symlinkSync('a.txt', join(work, 'b.txt'))
  })
  expect(read(after, 'a.txt/inside')).toBe('x')
  expect(lstatSync(join(after, 'b.txt')).isSymbolicLink()).toBe(true)
})

test('work on other branches, tags and in the stash comes back beside the branch that was left last', async () => {
  const { after, saved } = await trip.roundTrip((work) => {
    git(work, 'checkout', '-q', '-b', 'side')
    write(join(work, 'side.txt'), 'side')
    git(work, 'add', '.')
    git(work, 'commit', '-qm', 'Side')
    git(work, 'tag', 'v-side')
    git(work, 'checkout', '-q', 'oz/run-1')
    write(join(work, 'a.txt'), 'stashed\n')
    git(work, 'stash', '-q')
    git(work, 'checkout', '-q', '-b', 'last')
  })
  expect(saved.repositories[0]).toMatchObject({ branch: 'last', uncommitted: false, commits: 0 })
  expect(git(after, 'branch', '--show-current')).toBe('last')
  expect(git(after, 'log', '-1', '--format=%s', 'side')).toBe('Side')
  expect(git(after, 'rev-parse', 'v-side')).toBe(git(after, 'rev-parse', 'side'))
  git(after, 'stash', 'pop', '-q')
  expect(read(after, 'a.txt')).toBe('stashed\n')
  expect(git(after, 'for-each-ref', 'refs/oz')).toBe('')
})

test('in the middle of a rebase commits and files are saved, and that it was under way is said', async () => {
  const { after, saved } = await trip.roundTrip((work) => {
    write(join(work, 'a.txt'), 'mine\n')
    git(work, 'commit', '-qam', 'Mine')
    git(work, 'checkout', '-q', '-b', 'other', 'HEAD~1')
    write(join(work, 'a.txt'), 'theirs\n')
    git(work, 'commit', '-qam', 'Theirs')
    git(work, 'checkout', '-q', 'oz/run-1')
    expect(() => git(work, 'rebase', 'other')).toThrow()
  })
  expect(saved.leftOut).toEqual([expect.stringContaining('origin/the state of a rebase under way')])
  expect(read(after, 'a.txt')).toContain('<<<<<<<')
  expect(git(after, 'log', '-1', '--format=%s', 'oz/run-1')).toBe('Mine')
  expect(git(after, 'log', '-1', '--format=%s', 'HEAD')).toBe('Theirs')
})

test('a bare and a shallow repository are sources like others', async () => {
  git(trip.folder, 'clone', '-q', '--bare', trip.origin, 'bare.git')
  for (let i = 0; i < 3; i++) git(trip.origin, 'commit', '-q', '--allow-empty', '-m', `Commit ${i}`)
  git(trip.folder, 'clone', '-q', '--depth=1', `file://${trip.origin}`, 'shallow')
  for (const name of ['bare.git', 'shallow']) {
    const { after, saved, notes } = await trip.roundTrip(
      (work) => {
        write(join(work, 'a.txt'), 'committed\n')
        git(work, 'commit', '-qam', 'Work')
        write(join(work, 'new.txt'), 'new')
      },
      { source: `file://${join(trip.folder, name)}` },
    )
    expect(saved).toMatchObject({ leftOut: [], repositories: [{ commits: 1, uncommitted: true }] })
    expect(notes).toEqual([
      'origin: back at branch oz/run-1 with 1 new commit, with what was not committed'.concat('.'),
    ])
    expect(read(after, 'a.txt')).toBe('committed\n')
    expect(read(after, 'new.txt')).toBe('new')
  }
})

test('pointers of Git LFS stay pointers where there is no Git LFS', async () => {
  const pointer = `version https://git-lfs.github.com/spec/v1\noid sha256:${'ab'.repeat(32)}\nsize 5\n`
  write(join(trip.origin, '.gitattributes'), '*.bin filter=lfs diff=lfs merge=lfs -text\n')
  write(join(trip.origin, 'old.bin'), pointer)
  git(trip.origin, 'add', '.')
  git(trip.origin, 'commit', '-qm', 'LFS')
  const { after, saved } = await trip.roundTrip((work) => {
    write(join(work, 'new.bin'), pointer)
    write(join(work, 'a.txt'), 'changed\n')
  })
  expect(saved.leftOut).toEqual([])
  expect(read(after, 'old.bin')).toBe(pointer)
  expect(read(after, 'new.bin')).toBe(pointer)
})

test('a submodule keeps its new pointer, and commits and files that exist nowhere else', async () => {
  const library = makeRepository(join(trip.folder, 'library'), { 'lib.txt': 'lib\n' })
  git(trip.origin, '-c', 'protocol.file.allow=always', 'submodule', '--quiet', 'add', `file://${library}`, 'lib')
  git(trip.origin, 'commit', '-qm', 'Submodule')

  const untouched = await trip.roundTrip((work) => write(join(work, 'a.txt'), 'changed\n'))
  expect(untouched.saved.repositories.map(({ dir }) => dir)).toEqual(['origin'])
  expect(git(untouched.after, 'status', '--porcelain')).toBe(' M a.txt')

  const { after, saved, notes } = await trip.roundTrip((work) => {
    git(work, '-c', 'protocol.file.allow=always', 'submodule', '--quiet', 'update', '--init')
    const lib = join(work, 'lib')
    write(join(lib, 'lib.txt'), 'new\n')
    git(lib, '-c', 'user.name=a', '-c', 'user.email=a@b', 'commit', '-qam', 'In the submodule')
    git(work, 'commit', '-qam', 'New pointer')
    write(join(lib, 'dirty.txt'), 'dirty')
  })
  expect(saved.leftOut).toEqual([])
  expect(saved.repositories.map(({ dir }) => dir)).toEqual(['origin', 'origin/lib'])
  expect(notes).toHaveLength(2)
  expect(git(after, 'log', '-1', '--format=%s')).toBe('New pointer')
  expect(git(join(after, 'lib'), 'rev-parse', 'HEAD')).toBe(git(after, 'rev-parse', 'HEAD:lib'))
  expect(read(after, 'lib/dirty.txt')).toBe('dirty')
  expect(read(after, 'lib/lib.txt')).toBe('new\n')
})

test('where not everything fits, what is large is named and left out, and commits come before the rest', async () => {
  const random = (bytes: number) => Buffer.from(crypto.getRandomValues(new Uint8Array(bytes)))
  const { after, saved } = await trip.roundTrip(
    (work) => {
      write(join(work, 'a.txt'), 'committed\n')
      git(work, 'commit', '-qam', 'Work')
      writeFileSync(join(work, 'dump.bin'), random(60_000))
      for (let i = 0; i < 40; i++) {
        mkdirSync(join(work, `cache/${i}`), { recursive: true })
        writeFileSync(join(work, `cache/${i}/data`), random(2_000))
      }
      writeFileSync(join(work, 'staged.bin'), random(55_000))
      git(work, 'add', 'staged.bin')
      write(join(work, 'b.txt'), 'changed\n')
    },
    { maxBytes: 50_000 },
  )
  expect(saved.leftOut.map((text) => text.split(':')[0]).sort()).toEqual([
    'origin/cache',
    'origin/dump.bin',
    'origin/staged.bin',
  ])
  expect(git(after, 'log', '-1', '--format=%s')).toBe('Work')
  expect(read(after, 'b.txt')).toBe('changed\n')
  expect(existsSync(join(after, 'dump.bin'))).toBe(false)
})

test('commits that fit are saved where they do not fit together with what is uncommitted', async () => {
  const random = (bytes: number) => Buffer.from(crypto.getRandomValues(new Uint8Array(bytes)))
  const { after, saved, notes } = await trip.roundTrip(
    (work) => {
      writeFileSync(join(work, 'committed.bin'), random(30_000))
      git(work, 'add', '.')
      git(work, 'commit', '-qm', 'Work')
      writeFileSync(join(work, 'new.bin'), random(24_000))
    },
    { maxBytes: 50_000 },
  )
  expect(saved.leftOut).toEqual([
    expect.stringMatching(/^origin\/its uncommitted changes \(.* is the limit of a saved workspace\)$/),
    expect.stringMatching(/^origin\/its diff/),
  ])
  expect(notes[0]).toContain('with 1 new commit; what was not committed was too large to be saved')
  expect(statSync(join(after, 'committed.bin')).size).toBe(30_000)
  expect(git(after, 'status', '--porcelain')).toBe('')
})

test('of a hundred thousand files only what changed is saved, in seconds', { timeout: 180_000 }, async () => {
  const many = join(trip.folder, 'many.git')
  git(trip.folder, 'init', '-q', '--bare', '-b', 'main', many)
  const files = Array.from({ length: 100_000 }, (_, i) => `M 644 inline d${i % 1_000}/f${i}\ndata <<E\n${i}\nE\n`)
  const commit = 'commit refs/heads/main\ncommitter a <a@b> 0 +0000\ndata <<E\nMany\nE\n'
  execFileSync('git', ['fast-import', '--quiet'], { cwd: many, input: `${commit}${files.join('')}\n` })
  const workspace = await trip.begin([{ url: `file://${many}`, dir: 'many' }])
  const work = join(workspace.folder, 'many')
  write(join(work, 'd1/f1'), 'changed')
  write(join(work, 'd1/new'), 'new')
  const startedAt = performance.now()
  const saved = await trip.save(workspace)
  expect(performance.now() - startedAt).toBeLessThan(30_000)
  expect(saved.repositories).toMatchObject([{ files_changed: 2, uncommitted: true }])
  expect(statSync(join(trip.folder, 'blobs', saved.repositories[0]?.bundle_blob_id ?? '')).size).toBeLessThan(1_000_000)
})
