import { execFileSync } from 'node:child_process'
import { randomUUID } from 'node:crypto'
import { mkdirSync, mkdtempSync, readdirSync, renameSync, rmSync, symlinkSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { afterEach, beforeEach, expect, test } from 'vitest'
import { claimWorkspace, disownWorkspace, listOwned, ownerOf } from '../workspace-owner.ts'
import { folderId, layFoldersApart, removeWorkspace } from './direct-workspace.ts'

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

test('a workspace that has become another one since is put back, not removed', async () => {
  const workspace = join(folder, 'run')
  mkdirSync(workspace)
  const id = await folderId(workspace)
  renameSync(workspace, join(folder, '.removing-by-the-newer'))
  mkdirSync(workspace)
  writeFileSync(join(workspace, 'new'), '')
  await removeWorkspace(workspace, id)
  expect(readdirSync(workspace)).toEqual(['new'])
  await removeWorkspace(workspace, await folderId(workspace))
  expect(readdirSync(folder)).toEqual(['.removing-by-the-newer'])
})

test('a workspace that a newer execution has claimed stays claimed when an older one disowns it', async () => {
  const [run, older, newer] = [randomUUID(), randomUUID(), randomUUID()]
  await claimWorkspace(folder, run, newer)
  await disownWorkspace(folder, run, older)
  expect(await ownerOf(folder, run)).toBe(newer)
  await disownWorkspace(folder, run, newer)
  expect(await ownerOf(folder, run)).toBeUndefined()
  expect(await listOwned(folder)).toEqual([])
})
