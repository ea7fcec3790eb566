import { randomBytes } from 'node:crypto'
import { readFileSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'
import { describe, expect, onTestFinished, test } from 'vitest'
import { scratchFolder } from '../postgres/testing/scratch-folder.ts'
import { openBackup, sealBackup } from './backup-file.ts'
import type { InstallationKey } from './installation-key.ts'

const key: InstallationKey = { file: 'master.key', masterKey: randomBytes(32), check: Buffer.alloc(0) }
const about = { made_at: '2026-05-01T00:00:00.000Z', version: '0.1.0', schema: 1 }

/** Three frames and a bit. */
const plain = randomBytes(3 * 64 * 1024 + 1000)

async function* inPieces(bytes: Buffer, size = 10_000): AsyncGenerator<Buffer> {
  for (let at = 0; at < bytes.length; at += size) yield bytes.subarray(at, at + size)
}

async function sealed(bytes: Buffer): Promise<Buffer> {
  const parts: Buffer[] = []
  for await (const part of sealBackup(about, key.masterKey).seal(inPieces(bytes))) parts.push(part)
  return Buffer.concat(parts)
}

function fileOf(content: Buffer): string {
  const folder = scratchFolder()
  onTestFinished(() => folder[Symbol.dispose]())
  const file = join(folder.path, 'backup')
  writeFileSync(file, content)
  return file
}

async function opened(content: Buffer, withKey = key): Promise<Buffer> {
  await using backup = await openBackup(fileOf(content), withKey)
  const parts: Buffer[] = []
  for await (const part of backup.plain()) parts.push(part)
  return Buffer.concat(parts)
}

test.each([0, 1, 64 * 1024, 64 * 1024 + 1, plain.length])('%i bytes come back as they were', async (length) => {
  expect(await opened(await sealed(plain.subarray(0, length)))).toEqual(plain.subarray(0, length))
})

test('two files of the same bytes under the same key have nothing in common', async () => {
  const [one, other] = [await sealed(plain), await sealed(plain)]
  const begin = one.indexOf('\n') + 5
  for (let at = begin; at < one.length - 32; at += 32) expect(other.includes(one.subarray(at, at + 32))).toBe(false)
})

test('another master key is told apart from damage', async () => {
  const other = { ...key, file: 'other.key', masterKey: randomBytes(32) }
  await expect(opened(await sealed(plain), other)).rejects.toMatchObject({
    code: 'backup_wrong_key',
    message: expect.stringContaining('other.key'),
  })
})

describe('what is not as it was written is refused', () => {
  const incomplete = { code: 'backup_incomplete' }

  test('cut off anywhere', async () => {
    const whole = await sealed(plain)
    const line = whole.indexOf('\n') + 1
    const frame = 4 + 64 * 1024 + 16
    const ends = [0, 1, line - 1, line, line + 3, line + 4, line + frame, line + 3 * frame, whole.length - 1]
    for (const end of ends) await expect(opened(whole.subarray(0, end)), `${end}`).rejects.toMatchObject(incomplete)
  })

  test('one bit changed in any region of it', async () => {
    const whole = await sealed(plain)
    const line = whole.indexOf('\n') + 1
    const frame = 4 + 64 * 1024 + 16
    const inLine = ['openoz', '"format":1', 'made_at', '"version":"', '"schema":', '"salt":"', '"key_check":"']
    const places = [
      ...inLine.map((text) => whole.indexOf(text) + text.length - 1),
      whole.indexOf('} ') + 5,
      line - 1,
      ...[0, 3, 4, 1000, frame - 1].flatMap((at) => [line + at, line + frame + at]),
      whole.length - 17,
      whole.length - 1,
    ]
    for (const at of places) {
      const damaged = Buffer.from(whole)
      damaged.writeUInt8(damaged.readUInt8(at) ^ 1, at)
      await expect(opened(damaged), `${at}`).rejects.toMatchObject(incomplete)
    }
  })

  test('frames left out, exchanged, doubled, or of another file', async () => {
    const whole = await sealed(plain)
    const line = whole.indexOf('\n') + 1
    const frame = 4 + 64 * 1024 + 16
    const [head, a, b, rest] = [0, line, line + frame, line + 2 * frame].map((from, index, starts) =>
      whole.subarray(from, starts[index + 1]),
    ) as [Buffer, Buffer, Buffer, Buffer]
    const other = await sealed(plain)
    const changed = [
      [head, b, rest],
      [head, b, a, rest],
      [head, a, a, b, rest],
      [head, rest],
      [head, a, b, rest, Buffer.from('x')],
      [head, a, b, rest, rest],
      [head, a, other.subarray(line + frame)],
      [other.subarray(0, line), a, b, rest],
    ]
    for (const parts of changed) await expect(opened(Buffer.concat(parts))).rejects.toMatchObject(incomplete)
  })

  test('something else', async () => {
    for (const content of ['', 'PGDMP', '{}\n', 'openoz-backup {} x\n', readFileSync(import.meta.filename, 'utf8')])
      await expect(opened(Buffer.from(content))).rejects.toMatchObject(incomplete)
  })
})

test('a file that is not there, and a format of a later version', async () => {
  await expect(openBackup('/nowhere/backup', key)).rejects.toMatchObject({ code: 'backup_unreadable' })
  const { createHash } = await import('node:crypto')
  const json = JSON.stringify({ format: 2, version: '9.0.0', cipher: 'another' })
  const line = `openoz-backup ${json} ${createHash('sha256').update(json).digest('hex')}\n`
  await expect(opened(Buffer.from(line))).rejects.toMatchObject({
    code: 'backup_too_new',
    message: expect.stringContaining('9.0.0'),
  })
})
