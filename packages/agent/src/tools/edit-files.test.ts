import {
  chmodSync,
  existsSync,
  mkdirSync,
  mkdtempSync,
  readFileSync,
  rmSync,
  statSync,
  symlinkSync,
  writeFileSync,
} from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { afterEach, beforeEach, expect, test } from 'vitest'
import { editFiles } from './edit-files.ts'
import type { Edit } from './edit-plan.ts'
import type { ToolCall } from './tool.ts'

let folder: string
beforeEach(() => {
  folder = mkdtempSync(join(tmpdir(), 'oz-edit-'))
  mkdirSync(join(folder, 'repo'))
})
afterEach(() => rmSync(folder, { recursive: true, force: true }))

function edit(...edits: Edit[]) {
  const workspace = { folder, toolsFolder: join(folder, 'repo'), repositories: [] }
  return editFiles.run({ edits }, { workspace, signal: new AbortController().signal } as unknown as ToolCall)
}
const write = (name: string, text: string | Buffer) => writeFileSync(join(folder, 'repo', name), text)
const read = (name: string) => readFileSync(join(folder, 'repo', name), 'utf8')

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
    await edit({ type: 'create', path: 'dangling', content: 'inside' }).catch(() => {})
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
