import { execFileSync } from 'node:child_process'
import { mkdirSync, mkdtempSync, readdirSync, readFileSync, rmSync, statSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { createMasker } from '@openoz/machine'
import { afterEach, beforeEach, expect, test } from 'vitest'
import { createCommandOutput } from './command-output.ts'

const before = process.env.TMPDIR
let folder: string
beforeEach(() => {
  folder = mkdtempSync(join(tmpdir(), 'oz-out-'))
  process.env.TMPDIR = folder
})
afterEach(() => {
  if (before === undefined) delete process.env.TMPDIR
  else process.env.TMPDIR = before
  rmSync(folder, { recursive: true, force: true })
})

function open({ maxBytes = 10_000_000, scratchFolder }: { maxBytes?: number; scratchFolder?: string } = {}) {
  return createCommandOutput({ masking: createMasker([]).stream('x'), onText: () => {}, maxBytes, scratchFolder })
}

test('what was read is not read again; the file has all of it', async () => {
  const output = await open()
  output.push(Buffer.from('a'.repeat(20_000)))
  expect(output.takeNew()).toBe('a'.repeat(20_000))
  expect(output.hasNew).toBe(false)
  expect(output.file()).toBe(undefined)
  output.push(Buffer.from('b'.repeat(20_000)))
  output.end()
  expect(output.takeNew()).toBe('b'.repeat(20_000))
  expect(readFileSync(output.file() ?? '', 'utf8')).toBe('a'.repeat(20_000) + 'b'.repeat(20_000))
  await output.dispose()
  expect(readdirSync(folder)).toEqual([])
})

test('the file lies in the task’s own folder where there is one', async () => {
  const scratchFolder = join(folder, 'task')
  mkdirSync(scratchFolder)
  const output = await open({ scratchFolder })
  output.push(Buffer.from('a'.repeat(40_000)))
  output.end()
  expect(output.file()).toMatch(new RegExp(`^${scratchFolder}/oz-output-`))
  expect(readdirSync(folder)).toEqual(['task'])
  await output.dispose()
  expect(readdirSync(scratchFolder)).toEqual([])
})

test('a file that reaches its limit says that it is cut, and is no longer than that', async () => {
  const output = await open({ maxBytes: 40_060 })
  for (let i = 0; i < 5; i++) output.push(Buffer.from('a'.repeat(10_000)))
  output.end()
  expect(readFileSync(output.file() ?? '', 'utf8')).toMatch(
    /^a{40000}\n\[Cut here: the output is longer than 40060 bytes\.\]\n$/,
  )
  expect(statSync(output.file() ?? '').size).toBeLessThanOrEqual(40_060)
  await output.dispose()
})

test('without a place for the file the output is taken all the same', async () => {
  process.env.TMPDIR = join(folder, 'missing')
  const output = await open()
  output.push(Buffer.from('a'.repeat(40_000)))
  output.end()
  expect(output.takeNew()).toContain('[… 10000 characters are left out here …]')
  expect(output.file()).toBe(undefined)
  await output.dispose()
})

test('a disk that fills up costs the file, which gives its room back', async ({ skip }) => {
  try {
    execFileSync('mount', ['-t', 'tmpfs', '-o', 'size=256k', 'tmpfs', folder], { stdio: 'ignore' })
  } catch {
    skip('tmpfs cannot be mounted here')
  }
  try {
    const output = await open()
    for (let i = 0; i < 20; i++) output.push(Buffer.from('a'.repeat(50_000)))
    output.end()
    expect(output.takeNew()).toContain('[… 970000 characters are left out here …]')
    expect(output.file()).toBe(undefined)
    expect(readdirSync(folder)).toEqual([])
    await output.dispose()
  } finally {
    execFileSync('umount', ['-l', folder])
  }
})
