import { existsSync, mkdirSync, mkdtempSync, readdirSync, readFileSync, rmSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { bootClockMs } from '@openoz/machine'
import { afterEach, beforeEach, expect, test } from 'vitest'
import { openLeaseFile } from './lease-file.ts'

let folder: string
let problems: unknown[]
beforeEach(() => {
  folder = mkdtempSync(join(tmpdir(), 'oz-lease-'))
  problems = []
})
afterEach(() => rmSync(folder, { recursive: true, force: true }))

const open = (spool = folder) => openLeaseFile(spool, (error) => problems.push(error))
const read = () => readFileSync(join(folder, 'lease'), 'utf8')

test('one line says in whole milliseconds when the agent must be dead, and nothing else is left beside it', () => {
  open().put(1234567.89)
  expect(read()).toBe('1234567\n')
  expect(readdirSync(folder)).toEqual(['lease'])
})

test('a later deadline is written at most once a second, an earlier one at once', async () => {
  const file = open()
  const start = bootClockMs()
  file.put(10_000)
  file.put(11_000)
  expect(read()).toBe('10000\n')
  file.put(9_000)
  expect(read()).toBe('9000\n')
  const putLater = () => {
    file.put(12_000)
    return read()
  }
  await expect.poll(putLater, { timeout: 5_000 }).toBe('12000\n')
  expect(bootClockMs() - start).toBeGreaterThanOrEqual(990)
})

test('it is gone after the end', () => {
  const file = open()
  file.put(1)
  file.remove()
  file.remove()
  expect(existsSync(join(folder, 'lease'))).toBe(false)
  expect(problems).toEqual([])
})

test('where it cannot be written no old deadline stays, and that is told once', () => {
  const file = open()
  file.put(10_000)
  const temporary = join(folder, 'lease.tmp')
  const blocked = openLeaseFile(join(temporary, 'nowhere'), (error) => problems.push(error))
  blocked.put(1)
  blocked.put(2)
  expect(problems).toHaveLength(1)
  // As with a full disk, for every user: the new file cannot be made.
  mkdirSync(temporary)
  file.put(9_000)
  expect(existsSync(join(folder, 'lease'))).toBe(false)
  expect(problems).toHaveLength(2)
})
