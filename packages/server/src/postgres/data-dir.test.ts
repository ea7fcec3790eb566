import { chmodSync, chownSync, mkdirSync, statSync, symlinkSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'
import { describe, expect, test } from 'vitest'
import { createDataDir } from './data-dir.ts'
import { canMount, fillDisk, isRoot, scratchFolder, tinyDisk } from './testing/scratch-folder.ts'
import { serverProcess } from './testing/server-process.ts'

const ownMode = isRoot ? 0o711 : 0o700

function modeOf(path: string): number {
  return statSync(path).mode & 0o7777
}

function codeOf(act: () => unknown): { code?: string; message?: string } {
  try {
    act()
  } catch (error) {
    return error as { code: string; message: string }
  }
  return {}
}

test('a new data folder is closed to others, except that root lets PostgreSQL pass through', () => {
  using folder = scratchFolder()
  const path = createDataDir(join(folder.path, 'a', 'data'))
  expect(modeOf(path)).toBe(ownMode)
})

test('an empty folder gets the mode, one with something in it keeps its own', () => {
  using folder = scratchFolder()
  const empty = join(folder.path, 'empty')
  mkdirSync(empty)
  chmodSync(empty, 0o755)
  createDataDir(empty)
  expect(modeOf(empty)).toBe(ownMode)

  const used = join(folder.path, 'used')
  mkdirSync(used)
  chmodSync(used, 0o755)
  writeFileSync(join(used, 'file'), '')
  createDataDir(used)
  expect(modeOf(used)).toBe(0o755)
})

test('the path that is returned has no symbolic links, so that it can be compared', () => {
  using folder = scratchFolder()
  symlinkSync(folder.path, join(folder.path, 'link'))
  expect(createDataDir(join(folder.path, 'link', 'data'))).toBe(join(folder.path, 'data'))
})

test('a file in the place of the folder is named', () => {
  using folder = scratchFolder()
  const file = join(folder.path, 'file')
  writeFileSync(file, '')
  expect(codeOf(() => createDataDir(file))).toMatchObject({
    code: 'data_dir_not_writable',
    message: expect.stringContaining('is not a folder'),
  })
})

describe.skipIf(!isRoot)('as root (skipped: needs root to give folders away)', () => {
  test('the folder of another user is refused with both users named', async () => {
    using folder = scratchFolder()
    const path = join(folder.path, 'data')
    mkdirSync(path)
    chownSync(path, 1234, 1234)
    expect(codeOf(() => createDataDir(path))).toMatchObject({
      code: 'data_dir_foreign_owner',
      message: expect.stringMatching(/belongs to user id 1234; this process runs as 0/),
    })

    chownSync(path, 0, 0)
    await using server = await serverProcess(path, 'await startEmbeddedPostgres({ dataDir, log })', {
      uid: 1234,
      gid: 1234,
    })
    expect(server.said).toMatchObject({
      code: 'data_dir_foreign_owner',
      message: expect.stringMatching(/belongs to user id 0; this process runs as 1234/),
    })
  })
})

describe.skipIf(!canMount)('on a disk of its own (skipped: needs root and the right to mount)', () => {
  test('a read-only file system is named as such', () => {
    using disk = tinyDisk(1)
    disk.remount('ro')
    expect(codeOf(() => createDataDir(join(disk.path, 'data')))).toMatchObject({
      code: 'data_dir_not_writable',
      message: expect.stringContaining('file system is read-only'),
    })
    expect(codeOf(() => createDataDir(disk.path))).toMatchObject({ code: 'data_dir_not_writable' })
    disk.remount('rw')
  })

  test('a full disk is named with what is left', () => {
    using disk = tinyDisk(1)
    fillDisk(disk.path, 0)
    expect(codeOf(() => createDataDir(disk.path))).toMatchObject({
      code: 'disk_full',
      message: expect.stringContaining(`${disk.path} (0 kB free)`),
    })
  })
})
