import { execFileSync } from 'node:child_process'
import { mkdtempSync, rmSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { Readable } from 'node:stream'
import { pack } from 'tar-stream'
import { expect, test } from 'vitest'
import { readTar, type TarLimits, tarOf } from './tar-text.ts'

const limits: TarLimits = { maxBytes: 1_000_000, maxEntries: 100 }

test('what is packed is read again, with its modes and owners', async () => {
  const long = `spool/${'a'.repeat(200)}`
  const archive = await tarOf([
    { name: 'spool', type: 'directory', mode: 0o700, uid: 1234, gid: 5 },
    { name: 'spool/token', mode: 0o600, uid: 1234, body: 'sécret' },
    { name: long, body: Buffer.alloc(70_000, 1) },
  ])
  const entries = await collect(readTar(pieces(archive, 700), limits), async ({ body, ...entry }) => ({
    ...entry,
    text: entry.size < 100 ? await textOf(body) : undefined,
  }))
  expect(entries).toEqual([
    { name: 'spool', type: 'directory', mode: 0o700, uid: 1234, gid: 5, size: 0, text: '' },
    { name: 'spool/token', type: 'file', mode: 0o600, uid: 1234, gid: 0, size: 7, text: 'sécret' },
    { name: long, type: 'file', mode: 0o600, uid: 0, gid: 0, size: 70_000, text: undefined },
  ])
})

test('the same entries are the same bytes, and tar understands them', async () => {
  const entries = [{ name: 'a', body: 'one' }]
  const archive = await tarOf(entries)
  expect(archive.equals(await tarOf(entries))).toBe(true)
  expect(execFileSync('tar', ['-tf', '-'], { input: archive }).toString()).toBe('a\n')
})

test('links are told and not followed', async () => {
  const folder = mkdtempSync(join(tmpdir(), 'oz-tar-'))
  try {
    execFileSync('sh', ['-c', 'ln -s /etc/passwd link; mkfifo pipe; echo x >file'], { cwd: folder })
    const archive = execFileSync('tar', ['-C', folder, '-cf', '-', '.'])
    const entries = await collect(readTar(pieces(archive), limits), ({ name, type }) => `${name} ${type}`)
    expect(entries.toSorted()).toEqual(['file file', 'link other', 'pipe other'])
  } finally {
    rmSync(folder, { recursive: true })
  }
})

test.each(['../up', '/etc/passwd', 'spool/../../up', 'spool/..'])(
  'an archive with the name %s is refused',
  async (name) => {
    const archive = pack()
    archive.entry({ name }, 'x')
    archive.finalize()
    const reading = readAll(Buffer.concat(await collect(archive as unknown as AsyncIterable<Buffer>)))
    await expect(reading).rejects.toThrow('leads out of it')
  },
)

test('an archive that is larger than wanted is refused, however it says so', async () => {
  const archive = await tarOf([{ name: 'large', body: Buffer.alloc(5_000) }])
  await expect(readAll(archive, { maxBytes: 4_000, maxEntries: 9 })).rejects.toThrow('larger than 4000 bytes')
  const many = await tarOf(Array.from({ length: 5 }, (_, index) => ({ name: `f${index}` })))
  await expect(readAll(many, { maxBytes: 1e6, maxEntries: 4 })).rejects.toThrow('more than 4 entries')
})

test('an archive without end is not read further than its limit', async () => {
  async function* endless() {
    yield (await tarOf([{ name: 'x', body: Buffer.alloc(512) }])).subarray(0, 1024)
    for (;;) yield Buffer.alloc(10_000, 7)
  }
  await expect(collect(readTar(endless(), limits))).rejects.toThrow()
})

test('what is no archive, or only half of one, is an error', async () => {
  await expect(readAll(Buffer.alloc(2_000, 'garbage '))).rejects.toThrow(/tar/i)
  const archive = await tarOf([{ name: 'x', body: Buffer.alloc(3_000) }])
  await expect(readAll(archive.subarray(0, 1_500))).rejects.toThrow()
})

test('leaving in the middle closes the source', async () => {
  const archive = await tarOf(Array.from({ length: 200 }, (_, index) => ({ name: `f${index}`, body: 'x' })))
  let isClosed = false
  const source = Readable.from(pieces(archive, 512)).once('close', () => {
    isClosed = true
  })
  for await (const { name } of readTar(source, { ...limits, maxEntries: 1_000 })) if (name === 'f2') break
  await expect.poll(() => isClosed).toBe(true)
})

async function readAll(archive: Buffer, readLimits = limits) {
  return collect(readTar(pieces(archive), readLimits), async ({ body }) => textOf(body))
}

async function* pieces(buffer: Buffer, size = 65_536): AsyncGenerator<Buffer> {
  for (let at = 0; at < buffer.length; at += size) yield buffer.subarray(at, at + size)
}

async function textOf(body: AsyncIterable<Buffer>): Promise<string> {
  return Buffer.concat(await collect(body)).toString('utf8')
}

async function collect<T, R = T>(items: AsyncIterable<T>, map?: (item: T) => R | Promise<R>): Promise<R[]> {
  const collected: R[] = []
  for await (const item of items) collected.push(map ? await map(item) : (item as unknown as R))
  return collected
}
