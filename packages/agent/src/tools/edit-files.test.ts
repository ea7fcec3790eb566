import { execFileSync } from 'node:child_process'
import {
  chmodSync,
  existsSync,
  mkdirSync,
  mkdtempSync,
  readdirSync,
  readFileSync,
  readlinkSync,
  rmSync,
  statSync,
  symlinkSync,
  truncateSync,
  writeFileSync,
} from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { afterEach, beforeEach, expect, test } from 'vitest'
import { asNobody, makeToolWorkspace } from '../../../../test/support/tool-workspace.ts'
import type { Edit } from './edit.ts'
import { editFiles } from './edit-files.ts'
import { readFiles } from './read-files.ts'

let work: ReturnType<typeof makeToolWorkspace>
let folder: string
beforeEach(() => {
  work = makeToolWorkspace()
  folder = work.folder
})
afterEach(() => work[Symbol.dispose]())

const edit = (...edits: Edit[]) => work.call(editFiles, { edits })
const write = (name: string, text: string | Buffer) => work.write(name, text)
const read = (name: string) => work.read(name)
const inRepo = (name: string) => join(folder, 'repo', name)

test('edits of several files are applied in order, and the diff shows them', async () => {
  write('a.txt', 'one\ntwo\n')
  write('old.txt', 'stays\n')
  write('gone.txt', 'bye\n')
  const { result, content } = await edit(
    { type: 'replace', path: 'a.txt', old_text: 'two', new_text: 'three' },
    { type: 'replace', path: 'a.txt', old_text: 'three', new_text: 'four $& $1' },
    { type: 'create', path: 'new/deep.txt', content: 'new\n' },
    { type: 'move', path: 'old.txt', new_path: 'moved.txt' },
    { type: 'delete', path: 'gone.txt' },
  )
  expect(read('a.txt')).toBe('one\nfour $& $1\n')
  expect(read('new/deep.txt')).toBe('new\n')
  expect(read('moved.txt')).toBe('stays\n')
  expect(existsSync(join(folder, 'repo', 'old.txt'))).toBe(false)
  expect(existsSync(join(folder, 'repo', 'gone.txt'))).toBe(false)
  expect(result.diff).toContain('--- a/a.txt\n+++ b/a.txt\n@@ -1,2 +1,2 @@\n one\n-two\n+four $& $1\n')
  expect(result.diff).toContain('--- /dev/null\n+++ b/new/deep.txt')
  expect(content).toContainEqual({ type: 'diff', path: 'a.txt', oldText: 'one\ntwo\n', newText: 'one\nfour $& $1\n' })
})

test('when one edit does not fit nothing is written', async () => {
  write('a.txt', 'one\n')
  await expect(
    edit(
      { type: 'replace', path: 'a.txt', old_text: 'one', new_text: 'two' },
      { type: 'create', path: 'b.txt', content: '' },
      { type: 'replace', path: 'a.txt', old_text: 'absent', new_text: '' },
    ),
  ).rejects.toThrow(/^Edit 3 of 3: old_text is not in a.txt.* Nothing was written\.$/)
  expect(read('a.txt')).toBe('one\n')
  expect(existsSync(join(folder, 'repo', 'b.txt'))).toBe(false)
})

test('a text that occurs several times needs replace_all', async () => {
  write('a.txt', 'x x x')
  const replace = { type: 'replace', path: 'a.txt', old_text: 'x', new_text: 'y' } as const
  await expect(edit(replace)).rejects.toThrow('old_text is 3 times in a.txt')
  await edit({ ...replace, replace_all: true })
  expect(read('a.txt')).toBe('y y y')
})

test('a wrong indentation is pointed out', async () => {
  write('a.txt', 'a\n\tif (x) {\n\t}\n')
  const replace = { type: 'replace', path: 'a.txt', old_text: '  if (x) {\n  }', new_text: '' } as const
  await expect(edit(replace)).rejects.toThrow('Line 2 begins the same text with other whitespace')
})

test('line ends, byte order mark and mode stay as they were', async () => {
  write('dos.txt', '\uFEFFone\r\ntwo\r\n')
  chmodSync(join(folder, 'repo', 'dos.txt'), 0o755)
  await edit({ type: 'replace', path: 'dos.txt', old_text: 'one\ntwo', new_text: 'one\nand\ntwo' })
  expect(read('dos.txt')).toBe('\uFEFFone\r\nand\r\ntwo\r\n')
  expect(statSync(join(folder, 'repo', 'dos.txt')).mode & 0o777).toBe(0o755)
})

test('nothing outside of the workspace is touched, also not through links', async () => {
  const outside = mkdtempSync(join(tmpdir(), 'oz-outside-'))
  try {
    symlinkSync(outside, join(folder, 'repo', 'link'))
    symlinkSync(join(outside, 'new.txt'), join(folder, 'repo', 'dangling'))
    const paths = ['../../x', '/etc/x', 'link/x', join(outside, 'x')]
    for (const path of paths) {
      await expect(edit({ type: 'create', path, content: '' })).rejects.toThrow('outside of the workspace')
    }
    await expect(edit({ type: 'create', path: 'dangling', content: '' })).rejects.toThrow('does not exist. Delete the')
    expect(existsSync(join(outside, 'new.txt'))).toBe(false)
    await edit({ type: 'create', path: '../beside.txt', content: 'in the workspace' })
    expect(readFileSync(join(folder, 'beside.txt'), 'utf8')).toBe('in the workspace')
  } finally {
    rmSync(outside, { recursive: true })
  }
})

test('a link inside the workspace stays a link, and its target changes', async () => {
  write('target.txt', 'one')
  symlinkSync('target.txt', join(folder, 'repo', 'link.txt'))
  await edit({ type: 'replace', path: 'link.txt', old_text: 'one', new_text: 'two' })
  expect(read('target.txt')).toBe('two')
})

test('binary files, folders and files that exist already are refused', async () => {
  write('image.png', Buffer.from([0x89, 0x50, 0, 1]))
  write('latin1.txt', Buffer.from([0xe9, 0x20]))
  write('here.txt', '')
  mkdirSync(join(folder, 'repo', 'sub'))
  await expect(edit({ type: 'replace', path: 'image.png', old_text: 'P', new_text: '' })).rejects.toThrow(
    'no text file',
  )
  await expect(edit({ type: 'replace', path: 'latin1.txt', old_text: ' ', new_text: '' })).rejects.toThrow(
    'no text file',
  )
  await expect(edit({ type: 'delete', path: 'sub' })).rejects.toThrow('is a folder')
  await expect(edit({ type: 'create', path: 'here.txt', content: '' })).rejects.toThrow('exists already')
  await expect(edit({ type: 'delete', path: 'absent' })).rejects.toThrow('does not exist')
  await expect(edit({ type: 'create', path: 'here.txt/x', content: '' })).rejects.toThrow(
    'a part of this path is a file',
  )
})

test('what a file was read or written as is what it must still be', async () => {
  write('a.ts', 'const a=1\n')
  const replace = { type: 'replace', path: 'a.ts', old_text: '1', new_text: '2' } as const
  await work.call(readFiles, { files: [{ path: 'a.ts' }] })
  await edit(replace)
  await edit({ ...replace, old_text: '2', new_text: '1' })
  write('a.ts', 'const a = 1\n') // as a formatter does
  const changed = 'a.ts has changed since you read it; read it again'
  await expect(edit(replace)).rejects.toThrow(changed)
  await expect(edit({ type: 'create', path: 'a.ts', content: '', overwrite: true })).rejects.toThrow(changed)
  await expect(edit({ type: 'delete', path: 'a.ts' })).rejects.toThrow(changed)
  await expect(edit({ type: 'move', path: './../repo/a.ts', new_path: 'b.ts' })).rejects.toThrow('has changed')
  await work.call(readFiles, { files: [{ path: 'a.ts', lines: [{ start: 1, end: 1 }] }] })
  await edit(replace, { type: 'move', path: 'a.ts', new_path: 'b.ts' })
  write('b.ts', 'other\n')
  await expect(edit({ type: 'delete', path: 'b.ts' })).rejects.toThrow('has changed')
  write('never-read.ts', 'x\n')
  await edit({ type: 'replace', path: 'never-read.ts', old_text: 'x', new_text: 'y' })
})

test('a moved file that was read is still known in its new place', async () => {
  write('a.ts', 'one\n')
  await work.call(readFiles, { files: [{ path: 'a.ts' }] })
  await edit({ type: 'move', path: 'a.ts', new_path: 'b.ts' })
  write('b.ts', 'two\n')
  await expect(edit({ type: 'delete', path: 'b.ts' })).rejects.toThrow('has changed')
  write('a.ts', 'somebody else’s\n')
  await edit({ type: 'delete', path: 'a.ts' })
})

test('what git keeps for itself is not touched, by whatever name', async () => {
  write('.git/hooks/pre-commit', 'x')
  write('sub/.git', 'gitdir: elsewhere\n')
  write('elsewhere/config', 'x')
  symlinkSync('.git/hooks', inRepo('hooks'))
  mkdirSync(inRepo('other'))
  symlinkSync('../elsewhere', inRepo('other/.git'))
  const refused: Edit[] = [
    { type: 'replace', path: '.git/hooks/pre-commit', old_text: 'x', new_text: 'y' },
    { type: 'create', path: '.git/new', content: '' },
    { type: 'create', path: '.GIT/new', content: '' },
    { type: 'create', path: 'fresh/.git', content: 'gitdir: /x' },
    { type: 'create', path: 'hooks/post-checkout', content: '' },
    { type: 'delete', path: 'hooks/pre-commit' },
    { type: 'create', path: 'sub/.git', content: '', overwrite: true },
    { type: 'delete', path: 'sub/.git' },
    { type: 'move', path: 'sub/.git', new_path: 'x' },
    { type: 'move', path: 'elsewhere/config', new_path: '.git/config' },
    { type: 'create', path: 'other/.git/config', content: '', overwrite: true },
    { type: 'delete', path: 'other/.git' },
  ]
  for (const one of refused) await expect(edit(one), JSON.stringify(one)).rejects.toThrow('belongs to git itself')
  await edit(
    { type: 'create', path: '.gitignore', content: 'dist\n' },
    { type: 'create', path: 'a.git/x', content: '' },
  )
  await edit({ type: 'delete', path: 'hooks' })
  expect(readdirSync(inRepo('.git/hooks'))).toEqual(['pre-commit'])
})

test('files of any kind and size are moved and deleted, as they are', async () => {
  write('large.bin', '')
  truncateSync(inRepo('large.bin'), 200 * 1024 * 1024)
  write('image.png', Buffer.from([0x89, 0x50, 0, 1]))
  symlinkSync('nowhere', inRepo('link'))
  const { ino } = statSync(inRepo('large.bin'))
  const { result } = await edit(
    { type: 'move', path: 'large.bin', new_path: 'deep/large.bin' },
    { type: 'delete', path: 'image.png' },
    { type: 'move', path: 'link', new_path: 'moved-link' },
  )
  expect(statSync(inRepo('deep/large.bin')).ino).toBe(ino)
  expect(readlinkSync(inRepo('moved-link'))).toBe('nowhere')
  expect(readdirSync(inRepo('.')).sort()).toEqual(['deep', 'moved-link'])
  expect(result.diff).toContain('rename from large.bin\nrename to deep/large.bin\n')
  const replace = { type: 'replace', path: 'deep/large.bin', old_text: 'a', new_text: 'b' } as const
  await expect(edit(replace)).rejects.toThrow('too large to be edited (209715200 bytes); use a command')
})

test('a name is changed in its case only, and two files change places', async () => {
  write('Readme.md', 'one\n')
  await edit({ type: 'move', path: 'Readme.md', new_path: 'README.md' })
  write('b', 'two\n')
  await edit(
    { type: 'move', path: 'README.md', new_path: 't' },
    { type: 'move', path: 'b', new_path: 'README.md' },
    { type: 'move', path: 't', new_path: 'b' },
  )
  expect([readdirSync(inRepo('.')).sort(), read('README.md'), read('b')]).toEqual([
    ['README.md', 'b'],
    'two\n',
    'one\n',
  ])
})

test('a link is moved or deleted itself; what it leads to stays', async () => {
  write('target.txt', 'one')
  symlinkSync('target.txt', inRepo('link.txt'))
  await edit({ type: 'delete', path: 'link.txt' }, { type: 'create', path: 'link.txt', content: 'a file now' })
  expect([read('target.txt'), read('link.txt')]).toEqual(['one', 'a file now'])
})

test('forty edits and a megabyte at once', async () => {
  write('a.txt', Array.from({ length: 40 }, (_, i) => `line ${i};\n`).join(''))
  const edits = Array.from({ length: 40 }, (_, i) => {
    return { type: 'replace', path: 'a.txt', old_text: `line ${i};`, new_text: `row ${i};` } as const
  })
  await edit(...edits, { type: 'create', path: 'large.txt', content: 'x'.repeat(1_000_000) })
  expect(read('a.txt')).toBe(Array.from({ length: 40 }, (_, i) => `row ${i};\n`).join(''))
  expect(read('large.txt').length).toBe(1_000_000)
  const lines = (word: string) => Array.from({ length: 50_000 }, () => `${word} ${Math.random()}\n`).join('')
  write('rewritten.txt', lines('a'))
  const { result } = await edit({ type: 'create', path: 'rewritten.txt', content: lines('b'), overwrite: true })
  expect(String(result.diff).length).toBeLessThan(21_000)
})

test('an empty file and one without a last line end stay what they are', async () => {
  write('empty.txt', '')
  write('short.txt', 'one\ntwo')
  const fill = { type: 'replace', path: 'empty.txt', old_text: 'x', new_text: 'y' } as const
  await expect(edit(fill)).rejects.toThrow('old_text is not in empty.txt')
  const { result } = await edit({ type: 'replace', path: 'short.txt', old_text: 'two', new_text: 'three' })
  expect(read('short.txt')).toBe('one\nthree')
  expect(result.diff).toContain('\\ No newline at end of file')
})

test('arguments that do not fit their type are named', () => {
  const problem = (one: object) => editFiles.input.safeParse({ edits: [one] }).error?.issues[0]
  expect(problem({ type: 'create', path: 'a' })).toMatchObject({ path: ['edits', 0, 'content'] })
  expect(problem({ type: 'replace', path: 'a', old_text: '', new_text: '' })?.path).toEqual(['edits', 0, 'old_text'])
  expect(problem({ type: 'create', path: 'a\0b', content: '' })?.message).toContain('NUL')
  expect(problem({ type: 'chmod', path: 'a' })?.path).toEqual(['edits', 0, 'type'])
})

test('what may not be read or written is said in words, and nothing is left behind', async ({ skip }) => {
  if (process.getuid?.() !== 0) skip('as root the files of somebody else can be made')
  write('secret.txt', 'x')
  chmodSync(inRepo('secret.txt'), 0o600)
  const replace = { type: 'replace', path: 'secret.txt', old_text: 'x', new_text: 'y' } as const
  await asNobody(async () => {
    await expect(edit(replace)).rejects.toThrow('secret.txt: permission denied. Nothing was written.')
    await expect(edit({ type: 'create', path: 'new/a.txt', content: '' })).rejects.toThrow(
      /new.*: permission denied\. Nothing was written\.$/,
    )
  })
  expect(readdirSync(inRepo('.'))).toEqual(['secret.txt'])
})

test('a full disk leaves everything as it was', async ({ skip }) => {
  try {
    execFileSync('mount', ['-t', 'tmpfs', '-o', 'size=1m', 'tmpfs', inRepo('.')], { stdio: 'ignore' })
  } catch {
    skip('tmpfs cannot be mounted here')
  }
  try {
    write('a.txt', 'one')
    const edits = [
      { type: 'replace', path: 'a.txt', old_text: 'one', new_text: 'two' },
      { type: 'create', path: 'sub/large.txt', content: 'x'.repeat(2_000_000) },
    ] as const
    await expect(edit(...edits)).rejects.toThrow('No space is left for the edited files')
    expect([readdirSync(inRepo('.')), read('a.txt')]).toEqual([['a.txt'], 'one'])
  } finally {
    execFileSync('umount', ['-l', inRepo('.')])
  }
})

/** A file whose name the system does not let go of. `undefined`: that cannot be had here. */
function pinFile(name: string): Disposable | undefined {
  const target = inRepo(name)
  const source = join(folder, 'mounted')
  try {
    writeFileSync(source, readFileSync(target))
    execFileSync('mount', ['--bind', source, target], { stdio: 'ignore' })
  } catch {
    return undefined
  }
  return { [Symbol.dispose]: () => void execFileSync('umount', ['-l', target]) }
}

test('a file that is a mount point is written where it is', async ({ skip }) => {
  for (const name of ['a.txt', 'b.txt', 'c.txt']) write(name, 'old\n')
  using pinned = pinFile('b.txt')
  if (!pinned) return skip('files cannot be mounted here')
  const { result } = await edit(
    ...['a.txt', 'b.txt', 'c.txt'].map(
      (path) => ({ type: 'create', path, content: 'new\n', overwrite: true }) as const,
    ),
  )
  expect(['a.txt', 'b.txt', 'c.txt'].map(read)).toEqual(['new\n', 'new\n', 'new\n'])
  expect(readFileSync(join(folder, 'mounted'), 'utf8')).toBe('new\n')
  expect(result.diff).toContain('+++ b/b.txt')
  expect(readdirSync(inRepo('.')).sort()).toEqual(['a.txt', 'b.txt', 'c.txt'])
})

test('when a name cannot be changed after others were, those are put back and nothing is left behind', async ({
  skip,
}) => {
  for (const name of ['a.txt', 'b.txt', 'c.txt', 'd.txt']) write(name, 'old\n')
  chmodSync(inRepo('a.txt'), 0o751)
  const { ino } = statSync(inRepo('a.txt'))
  using pinned = pinFile('d.txt')
  if (!pinned) return skip('files cannot be mounted here')
  await expect(
    edit(
      { type: 'create', path: 'a.txt', content: 'new\n', overwrite: true },
      { type: 'create', path: 'fresh/file.txt', content: 'new\n' },
      { type: 'move', path: 'b.txt', new_path: 'moved.txt' },
      { type: 'delete', path: 'c.txt' },
      { type: 'delete', path: 'd.txt' },
    ),
  ).rejects.toThrow(/d\.txt: the system uses it, for example as a mount point\. Nothing was written\.$/)
  expect(['a.txt', 'b.txt', 'c.txt', 'd.txt'].map(read)).toEqual(['old\n', 'old\n', 'old\n', 'old\n'])
  expect(readdirSync(inRepo('.')).sort()).toEqual(['a.txt', 'b.txt', 'c.txt', 'd.txt'])
  expect(statSync(inRepo('a.txt'))).toMatchObject({ ino, mode: 0o100751 })
})

test('a file of 200 MB is overwritten without being read', async () => {
  write('large.bin', '')
  truncateSync(inRepo('large.bin'), 200 * 1024 * 1024)
  const before = process.memoryUsage().rss
  const { result } = await edit({ type: 'create', path: 'large.bin', content: 'small\n', overwrite: true })
  expect(process.memoryUsage().rss - before).toBeLessThan(50_000_000)
  expect(read('large.bin')).toBe('small\n')
  expect(result.diff).toContain('[No text before.]')
  expect(readdirSync(inRepo('.'))).toEqual(['large.bin'])
})

test('a text that is nowhere is said to be so in time, however long and empty the file is', async () => {
  write('blank.txt', `x${'\n'.repeat(200_000)}x`)
  const start = performance.now()
  const replace = { type: 'replace', path: 'blank.txt', old_text: `${'\n'.repeat(50_000)}z`, new_text: '' } as const
  await expect(edit(replace)).rejects.toThrow('old_text is not in blank.txt')
  expect(performance.now() - start).toBeLessThan(1_000)
})

test('a bare repository in the workspace belongs to git, whatever its name', async () => {
  execFileSync('git', ['init', '-q', '--bare', inRepo('mirror')])
  execFileSync('git', ['init', '-q', '--separate-git-dir', inRepo('elsewhere'), inRepo('sub')])
  symlinkSync('mirror/hooks', inRepo('hooks'))
  write('mirror-notes/HEAD', 'a file of this name alone means nothing\n')
  for (const path of ['mirror/hooks/post-receive', 'mirror/config', 'elsewhere/hooks/pre-commit', 'hooks/update']) {
    const create = { type: 'create', path, content: '#!/bin/sh\n', overwrite: true } as const
    await expect(edit(create), path).rejects.toThrow('belongs to git itself')
  }
  await edit({ type: 'create', path: 'mirror-notes/hooks/x', content: '' })
})
