import { execFileSync } from 'node:child_process'
import { mkdirSync, mkdtempSync, rmSync, symlinkSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { afterEach, beforeEach, expect, test } from 'vitest'
import { layFoldersApart } from './direct-workspace.ts'

let folder: string

beforeEach(() => {
  folder = mkdtempSync(join(tmpdir(), 'oz-apart-'))
})
afterEach(() => rmSync(folder, { recursive: true, force: true }))

function setsFlag(path: string): boolean {
  try {
    execFileSync('chattr', ['+T', path], { stdio: 'ignore' })
    return true
  } catch {
    return false
  }
}

const flagsOf = (path: string) => execFileSync('lsattr', ['-d', path], { encoding: 'utf8' }).split(' ', 1)[0]

test('a file system that can is told that the folders in a folder have nothing to do with each other', async ({
  skip,
}) => {
  mkdirSync(join(folder, 'probe'))
  if (!setsFlag(join(folder, 'probe'))) skip('this file system does not know the flag')
  mkdirSync(join(folder, 'real'))
  symlinkSync('real', join(folder, 'link'))
  await layFoldersApart(join(folder, 'link'))
  expect(flagsOf(join(folder, 'real'))).toContain('T')
})

test('a folder that cannot be flagged is left as it is', async () => {
  await layFoldersApart(join(folder, 'absent'))
})
