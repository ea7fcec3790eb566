import {
  chmodSync,
  chownSync,
  mkdirSync,
  mkdtempSync,
  readdirSync,
  readFileSync,
  rmSync,
  statSync,
  writeFileSync,
} from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { afterAll, expect, test } from 'vitest'
import { readPrivateFile, writePrivateFile } from './private-file.ts'

const folder = mkdtempSync(join(tmpdir(), 'private-'))
afterAll(() => rmSync(folder, { recursive: true }))

test('a private file is readable for its owner only, also when it replaces one that was not', async () => {
  const file = join(folder, 'new/key')
  await writePrivateFile(file, 'one')
  chmodSync(file, 0o644)
  await writePrivateFile(file, 'two')
  expect(statSync(file).mode & 0o777).toBe(0o600)
  expect(statSync(join(folder, 'new')).mode & 0o777).toBe(0o700)
  expect(await readPrivateFile(file)).toBe('two')
  expect(readdirSync(join(folder, 'new'))).toEqual(['key'])
})

test('an exclusive write leaves an existing file alone', async () => {
  const file = join(folder, 'once')
  await writePrivateFile(file, 'first', { exclusive: true })
  await expect(writePrivateFile(file, 'second', { exclusive: true })).rejects.toMatchObject({ code: 'EEXIST' })
  expect(readFileSync(file, 'utf8')).toBe('first')
  expect(readdirSync(folder).filter((name) => name.includes('.tmp'))).toEqual([])
})

test('a write that fails leaves the old content and no temporary file', async () => {
  const file = join(folder, 'a-folder')
  mkdirSync(file)
  await expect(writePrivateFile(file, 'x')).rejects.toThrow()
  expect(readdirSync(folder).filter((name) => name.includes('.tmp'))).toEqual([])
})

test.each([0o640, 0o604, 0o620, 0o602, 0o644])('a secret in a file of mode %o is refused', async (mode) => {
  const file = join(folder, 'exposed')
  writeFileSync(file, 'x')
  chmodSync(file, mode)
  await expect(readPrivateFile(file)).rejects.toMatchObject({ code: 'private_file_exposed', details: { file } })
})

test('a secret in a file of another user is refused', async () => {
  if (process.getuid?.() !== 0) return
  const file = join(folder, 'foreign')
  writeFileSync(file, 'x', { mode: 0o600 })
  chownSync(file, 61_234, 61_234)
  await expect(readPrivateFile(file)).rejects.toMatchObject({ code: 'private_file_exposed' })
})
