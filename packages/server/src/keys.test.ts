import { chmodSync, mkdirSync, readdirSync, readFileSync, statSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'
import { expect, test } from 'vitest'
import { readServerOptions } from './config.ts'
import { openServerKeys } from './keys.ts'
import { scratchFolder } from './postgres/testing/scratch-folder.ts'

const optionsFor = (dataDir: string) => readServerOptions({ listen: '127.0.0.1:0', dataDir }, {})

test('both keys are made once, for their owner alone, and nothing else is left in the folder', async () => {
  using folder = scratchFolder()
  const first = await openServerKeys(optionsFor(folder.path))
  expect(readdirSync(folder.path).sort()).toEqual(['admin-api-key', 'master.key'])
  for (const name of readdirSync(folder.path)) expect(statSync(join(folder.path, name)).mode & 0o777).toBe(0o600)
  expect(first.adminApiKey).toMatch(/^wk-\S{43}$/)
  expect(await openServerKeys(optionsFor(folder.path))).toEqual(first)
})

test('starters that race go on with the same keys', async () => {
  using folder = scratchFolder()
  const all = await Promise.all(Array.from({ length: 8 }, () => openServerKeys(optionsFor(folder.path))))
  for (const keys of all) expect(keys).toEqual(all[0])
  expect(readFileSync(join(folder.path, 'admin-api-key'), 'utf8')).toBe(`${all[0]?.adminApiKey}\n`)
  expect(readdirSync(folder.path)).toHaveLength(2)
})

test.each([
  ['master.key', '', 'master_key_invalid', 'it is empty'],
  ['master.key', 'no base64 at all, but long enough to hold it?!', 'master_key_invalid', 'it is not base64'],
  ['master.key', 'c2hvcnQ=', 'master_key_invalid', 'it holds 5 bytes instead of 32'],
  ['admin-api-key', '', 'admin_key_invalid', 'it is empty'],
  ['admin-api-key', 'wk-short', 'admin_key_invalid', 'it does not hold one key that begins with wk-'],
  ['admin-api-key', 'wk-0123456789abcdef\nwk-fedcba9876543210', 'admin_key_invalid', 'it does not hold one key'],
])('the file %s with %j is refused by its name, as %s', async (name, text, code, problem) => {
  using folder = scratchFolder()
  const file = join(folder.path, name)
  writeFileSync(file, text, { mode: 0o600 })
  const error = await openServerKeys(optionsFor(folder.path)).catch((caught: unknown) => caught)
  expect(error).toMatchObject({ code, message: expect.stringContaining(`${file} `) })
  expect((error as Error).message).toContain(problem)
})

test('a key file that cannot be read, or that others can, is named', async () => {
  using folder = scratchFolder()
  const file = join(folder.path, 'admin-api-key')
  mkdirSync(file, { mode: 0o700 })
  await expect(openServerKeys(optionsFor(folder.path))).rejects.toMatchObject({ code: 'admin_key_invalid' })
  chmodSync(file, 0o755)
  await expect(openServerKeys(optionsFor(folder.path))).rejects.toMatchObject({ code: 'private_file_exposed' })
})
