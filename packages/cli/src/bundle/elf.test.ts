import { existsSync, mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { expect, test } from 'vitest'
import { findInterpreter } from './elf.ts'

/** A header, one entry of each kind given, and the path behind them. */
function program(
  path: string,
  { entries = [1, 3], machine = 62 }: { entries?: number[]; machine?: number } = {},
): Buffer {
  const header = Buffer.alloc(64)
  header.write('\x7fELF', 'latin1')
  header.set([2, 1, 1], 4)
  header.writeUInt16LE(machine, 18)
  header.writeBigUInt64LE(64n, 32)
  header.writeUInt16LE(56, 54)
  header.writeUInt16LE(entries.length, 56)
  const place = Buffer.from(`${path}\0\0\0`)
  const offset = 64 + entries.length * 56
  const table = entries.map((kind) => {
    const entry = Buffer.alloc(56)
    entry.writeUInt32LE(kind, 0)
    entry.writeBigUInt64LE(BigInt(offset), 8)
    entry.writeBigUInt64LE(BigInt(place.length), 32)
    return entry
  })
  return Buffer.concat([header, ...table, place])
}

async function inFile<T>(content: Buffer | string, look: (file: string) => Promise<T>): Promise<T> {
  const folder = mkdtempSync(join(tmpdir(), 'oz-elf-'))
  try {
    writeFileSync(join(folder, 'file'), content)
    return await look(join(folder, 'file'))
  } finally {
    rmSync(folder, { recursive: true })
  }
}

test.each([
  ['of x64', 62],
  ['of arm64', 183],
])('the loader of a program %s is found, with the room that its path has', async (_, machine) => {
  const found = await inFile(program('/lib/ld.so', { machine }), findInterpreter)
  expect(found).toEqual({ offset: 64 + 2 * 56, size: 13, path: '/lib/ld.so' })
})

test.each([
  ['a program without one', program('', { entries: [1, 2] })],
  ['a script', '#!/bin/sh\n'],
  ['an empty file', ''],
  ['a file that ends in its header', program('/lib/ld.so').subarray(0, 80)],
])('in %s there is none', async (_, content) => {
  expect(await inFile(content, findInterpreter)).toBe(undefined)
})

test('on Linux the Node that runs this names its loader where it is found', async (context) => {
  if (process.platform !== 'linux' || !existsSync('/proc/self/exe')) context.skip()
  const found = await findInterpreter(process.execPath)
  const { offset = 0, size = 0, path = '' } = found ?? {}
  expect(existsSync(path)).toBe(true)
  expect(
    readFileSync(process.execPath)
      .subarray(offset, offset + size)
      .toString(),
  ).toMatch(/^\/[^\0]+\0+$/)
})
