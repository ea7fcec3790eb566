import { cpSync, mkdirSync, renameSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'
import { expect, test } from 'vitest'
import { z } from 'zod'
import { readInstallationId } from './installation.ts'
import { createFolder } from './test-support/worker.ts'

test('a state folder keeps its name, also when it is moved; a copy of it has another', async () => {
  using folder = createFolder()
  const [original, copy, moved] = ['original', 'copy', 'moved'].map((name) => join(folder.path, name)) as [
    string,
    string,
    string,
  ]
  mkdirSync(original)
  const [id, same] = await Promise.all([readInstallationId(original), readInstallationId(original)])
  expect(z.uuid().safeParse(id).success).toBe(true)
  expect(same).toBe(id)
  cpSync(original, copy, { recursive: true, preserveTimestamps: true })
  expect(await readInstallationId(copy)).not.toBe(id)
  renameSync(original, moved)
  expect(await readInstallationId(moved)).toBe(id)
})

test('a folder whose file is empty has a name all the same', async () => {
  using folder = createFolder()
  writeFileSync(join(folder.path, 'installation'), '')
  expect(z.uuid().safeParse(await readInstallationId(folder.path)).success).toBe(true)
})
