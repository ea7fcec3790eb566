import { spawn } from 'node:child_process'
import { once } from 'node:events'
import {
  appendFileSync,
  existsSync,
  mkdtempSync,
  readdirSync,
  readFileSync,
  rmSync,
  statSync,
  symlinkSync,
  truncateSync,
  writeFileSync,
} from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { afterEach, expect, test } from 'vitest'
import { openSpool, type Spool, type SpoolOptions } from './spool.ts'

const folders: string[] = []
const spools: Spool[] = []
afterEach(() => {
  for (const spool of spools.splice(0)) spool.close()
  for (const folder of folders.splice(0)) rmSync(folder, { recursive: true })
})

function newFolder(): string {
  const parent = mkdtempSync(join(tmpdir(), 'spool-'))
  folders.push(parent)
  return join(parent, 'spool')
}

async function open(folder = newFolder(), options?: SpoolOptions): Promise<Spool> {
  const spool = await openSpool(folder, options)
  spools.push(spool)
  return spool
}

const notice = (text: string) => ({ type: 'notice', data: { text } })
const segments = (spool: Spool) => readdirSync(spool.folder).filter((name) => name.startsWith('events-'))
const numbers = (spool: Spool, afterN = 0) => spool.pending(afterN, { maxEvents: 10_000 }).map(({ n }) => n)

test('events are numbered from 1 and come back as they were', async () => {
  const spool = await open()
  const text = 'NUL \0, lone \ud800 and \udc00, \u2028, \u{1f600}, "\\\n'
  expect(spool.append([{ type: 'notice', at: '2026-01-01T00:00:00Z', data: { text, deep: [{ text }] } }])).toBe(1)
  expect(spool.append([notice('b'), notice('c')])).toBe(3)
  expect(spool.pending(0)).toMatchObject([
    { n: 1, type: 'notice', at: '2026-01-01T00:00:00Z', data: { text, deep: [{ text }] } },
    { n: 2, data: { text: 'b' } },
    { n: 3, data: { text: 'c' } },
  ])
  expect(statSync(spool.folder).mode & 0o777).toBe(0o700)
  for (const name of readdirSync(spool.folder)) expect(statSync(join(spool.folder, name)).mode & 0o777).toBe(0o600)
})

test('a spool that is opened again goes on where it was', async () => {
  const folder = newFolder()
  let spool = await open(folder, { limitSegmentBytes: 200 })
  for (let i = 1; i <= 20; i++) spool.append([notice(`event ${i}`)])
  spool.acknowledge(7)
  const { sizeBytes } = spool
  spool.close()
  spool = await open(folder, { limitSegmentBytes: 200 })
  expect([spool.ackedN, spool.lastN, spool.sizeBytes]).toEqual([7, 20, sizeBytes])
  expect(numbers(spool, 7)).toEqual([8, 9, 10, 11, 12, 13, 14, 15, 16, 17, 18, 19, 20])
  expect(spool.append([notice('more')])).toBe(21)
  spool.acknowledge(21)
  spool.close()
  spool = await open(folder)
  expect([spool.ackedN, spool.lastN, spool.sizeBytes]).toEqual([21, 21, 0])
  expect(spool.append([notice('and more')])).toBe(22)
})

test('pending keeps to its limits, across segments, but always gives one', async () => {
  const spool = await open(undefined, { limitSegmentBytes: 300 })
  for (let i = 1; i <= 30; i++) spool.append([notice('x'.repeat(50))])
  expect(segments(spool).length).toBeGreaterThan(5)
  expect(spool.pending(3, { maxEvents: 7 }).map(({ n }) => n)).toEqual([4, 5, 6, 7, 8, 9, 10])
  const oneBytes = spool.sizeBytes / 30
  expect(spool.pending(0, { maxBytes: 5.5 * oneBytes })).toHaveLength(5)
  expect(spool.pending(0, { maxBytes: 1 })).toHaveLength(1)
  expect(spool.pending(30)).toEqual([])
})

test('acknowledged segments are deleted, and the space is free again', async () => {
  const spool = await open(undefined, { limitSegmentBytes: 300, maxBytes: 1_000 })
  while (!spool.isFull) spool.append([notice('x'.repeat(50))])
  expect(() => spool.append([notice('one too many')])).toThrowError(expect.objectContaining({ code: 'spool_full' }))
  expect(spool.append([notice('the outcome')], { isFinal: true })).toBe(spool.lastN)
  const before = segments(spool).length
  spool.acknowledge(spool.lastN - 2)
  expect(segments(spool).length).toBeLessThan(before)
  expect(spool.isFull).toBe(false)
  spool.acknowledge(spool.lastN)
  expect(spool.sizeBytes).toBe(0)
  expect(segments(spool).length).toBeLessThanOrEqual(1)
  spool.acknowledge(3)
  expect(spool.ackedN).toBe(spool.lastN)
})

test('who waits for room goes on when there is some, or gives up by its signal', async () => {
  const spool = await open(undefined, { maxBytes: 100 })
  await spool.waitForRoom()
  spool.append([notice('x'.repeat(200))])
  let hasRoom = false
  const waiting = spool.waitForRoom().then(() => {
    hasRoom = true
  })
  await expect(spool.waitForRoom(AbortSignal.timeout(20))).rejects.toMatchObject({ name: 'TimeoutError' })
  expect(hasRoom).toBe(false)
  spool.acknowledge(1)
  await waiting
  const forEvents = spool.waitForEvents(1)
  spool.append([notice('next')])
  await forEvents
  const forEver = spool.waitForAcknowledged(99)
  spool.close()
  await expect(forEver).rejects.toThrow('closed')
})

test('an acknowledgement of events that this disk has lost moves the numbering past them', async () => {
  const folder = newFolder()
  let spool = await open(folder)
  spool.append([notice('a'), notice('b')])
  spool.acknowledge(5)
  expect(spool.append([notice('c')])).toBe(6)
  expect(numbers(spool, 5)).toEqual([6])
  spool.close()
  spool = await open(folder)
  expect([spool.ackedN, spool.lastN]).toEqual([5, 6])
})

test('a line that was half written is dropped, wherever it was cut', async () => {
  const folder = newFolder()
  const first = await open(folder)
  first.append([notice('one'), notice('zwölf \u{1f600}')])
  const [name = ''] = segments(first)
  first.close()
  const file = join(folder, name)
  const whole = readFileSync(file)
  const endOfFirst = whole.indexOf('\n') + 1
  for (let size = endOfFirst; size <= whole.length; size++) {
    writeFileSync(file, whole.subarray(0, size))
    const spool = await open(folder)
    const survives = size === whole.length
    expect(spool.lastN, `cut at ${size}`).toBe(survives ? 2 : 1)
    expect(spool.append([notice('next')])).toBe(survives ? 3 : 2)
    expect(spool.pending(0).map(({ data }) => data.text)).toContain('next')
    spool.close()
  }
})

test('zeros or garbage at the end are cut off, a spoiled line in the middle keeps its number', async () => {
  const folder = newFolder()
  let spool = await open(folder)
  spool.append([notice('one'), notice('two'), notice('three')])
  const file = join(folder, segments(spool)[0] ?? '')
  spool.close()
  appendFileSync(file, `${'\0'.repeat(100)}\n{"n":5`)
  const text = readFileSync(file, 'utf8')
  writeFileSync(file, text.replace('"two"', '"t\0o '))
  spool = await open(folder)
  expect(spool.pending(0)).toMatchObject([
    { n: 1, type: 'notice' },
    { n: 2, type: 'event_invalid' },
    { n: 3, type: 'notice' },
  ])
  expect(spool.append([notice('four')])).toBe(4)
})

test('a lost or broken file of acknowledgements costs only sending again', async () => {
  const folder = newFolder()
  let spool = await open(folder, { limitSegmentBytes: 100 })
  for (let i = 0; i < 10; i++) spool.append([notice('x'.repeat(100))])
  spool.acknowledge(6)
  spool.close()
  truncateSync(join(folder, 'acked'))
  spool = await open(folder)
  expect([spool.ackedN, spool.lastN]).toEqual([6, 10])
})

test('an event that fits into no batch is kept as invalid', async () => {
  const spool = await open()
  spool.append([notice('x'.repeat(5_000_000)), notice('small')])
  expect(spool.pending(0)).toMatchObject([{ n: 1, type: 'event_invalid', data: { original_type: 'notice' } }, { n: 2 }])
})

function writer(folder: string) {
  const script = `
    import { openSpool } from ${JSON.stringify(join(import.meta.dirname, 'spool.ts'))}
    const spool = await openSpool(${JSON.stringify(folder)}, { limitSegmentBytes: 20_000 })
    for (;;) {
      const n = spool.append([{ type: 'notice', data: { text: 'x'.repeat(Math.random() * 2000) } }, { type: 'notice', data: {} }])
      process.stdout.write(n + '\\n')
      if (n % 20 === 0) await new Promise(setImmediate)
    }`
  return spawn(process.execPath, ['--input-type=module', '-e', script], { stdio: ['ignore', 'pipe', 'inherit'] })
}

test('what was appended survives kill -9, without holes, and the lock does not', async () => {
  const folder = newFolder()
  let last = 0
  for (let round = 0; round < 5; round++) {
    const child = writer(folder)
    let output = ''
    child.stdout.on('data', (data) => {
      output += data
    })
    await expect.poll(() => output.length, { interval: 5 }).toBeGreaterThan(500 * (round + 1))
    await expect(openSpool(folder)).rejects.toMatchObject({ code: 'spool_in_use', details: { pid: child.pid } })
    child.kill('SIGKILL')
    await once(child, 'close')
    const reported = Number(output.slice(0, output.lastIndexOf('\n')).split('\n').at(-1))
    const spool = await open(folder, { maxBytes: 1e9 })
    expect(reported).toBeGreaterThan(last)
    expect(spool.lastN).toBeGreaterThanOrEqual(reported)
    last = spool.lastN
    const found = spool.pending(0, { maxEvents: 1e9 })
    expect(found.map(({ n }) => n)).toEqual(Array.from({ length: last }, (_, i) => i + 1))
    expect(found.every(({ type }) => type === 'notice')).toBe(true)
    spool.close()
  }
})

test('of several who open a folder at once one gets it, again and again', async () => {
  const folder = newFolder()
  const script = `
    import { openSpool } from ${JSON.stringify(join(import.meta.dirname, 'spool.ts'))}
    process.stdout.write('ready')
    for await (const _ of process.stdin) {
      try {
        const spool = await openSpool(${JSON.stringify(folder)})
        process.stdout.write('got')
      } catch (error) { process.stdout.write(error.code) }
    }`
  for (let round = 0; round < 4; round++) {
    const children = Array.from({ length: 4 }, () =>
      spawn(process.execPath, ['--input-type=module', '-e', script], { stdio: ['pipe', 'pipe', 'inherit'] }),
    )
    await Promise.all(children.map((child) => once(child.stdout, 'data')))
    const answers = await Promise.all(
      children.map(async (child) => {
        const answered = once(child.stdout, 'data')
        child.stdin.write('go')
        return String((await answered)[0])
      }),
    )
    expect(answers.sort()).toEqual(['got', 'spool_in_use', 'spool_in_use', 'spool_in_use'])
    for (const child of children) child.kill('SIGKILL')
    await Promise.all(children.map((child) => once(child, 'close')))
  }
})

test('an owner in another PID namespace is believed to be gone only when the caller says so', async () => {
  const folder = newFolder()
  const spool = await open(folder)
  spool.append([notice('a')])
  spool.close()
  const holder = { owner: { pid: 7, startedAt: 'boot:1' }, namespace: 'pid:[1]' }
  writeFileSync(join(folder, 'lock-9'), JSON.stringify(holder))
  await expect(openSpool(folder)).rejects.toMatchObject({ code: 'spool_in_use' })
  const drained = await open(folder, { ownerIsGone: true })
  expect(drained.lastN).toBe(1)
  await expect(openSpool(folder, { ownerIsGone: true })).rejects.toMatchObject({ code: 'spool_in_use' })
})

test('a link in a spool is followed neither for reading nor for writing', async () => {
  const folder = newFolder()
  const first = await open(folder)
  first.append([notice('one'), notice('two')])
  first.close()
  const outside = join(folder, '..', 'outside')
  writeFileSync(outside, '2\n')
  symlinkSync(outside, join(folder, 'acked'))
  symlinkSync(outside, join(folder, '.acked.tmp'))
  const spool = await open(folder)
  expect([spool.ackedN, spool.lastN]).toEqual([0, 2])
  spool.acknowledge(1)
  spool.close()
  expect(readFileSync(outside, 'utf8')).toBe('2\n')
  expect(readFileSync(join(folder, 'acked'), 'utf8')).toBe('1\n')

  const victim = join(folder, '..', 'victim')
  writeFileSync(victim, 'not an event')
  rmSync(join(folder, segments(first)[0] ?? ''))
  symlinkSync(victim, join(folder, 'events-000000000001.jsonl'))
  await expect(openSpool(folder)).rejects.toMatchObject({ code: 'ELOOP' })
  expect(readFileSync(victim, 'utf8')).toBe('not an event')
})

test.each([
  [
    'is larger than any spool would make it',
    (file: string) => truncateSync(file, 3_000_000_000),
    'is the limit of a segment',
  ],
  [
    'holds lines that cannot be events',
    (file: string) => writeFileSync(file, '\n'.repeat(1_000_000)),
    'does not hold events',
  ],
])('a segment that %s is not read into memory', async (_what, make, words) => {
  const folder = newFolder()
  const spool = await open(folder)
  spool.append([notice('one')])
  const file = join(folder, segments(spool)[0] ?? '')
  spool.close()
  make(file)
  const before = process.memoryUsage().rss
  await expect(openSpool(folder)).rejects.toThrow(words)
  expect(process.memoryUsage().rss - before).toBeLessThan(100_000_000)
  // The lock was given back.
  rmSync(file)
  expect((await open(folder)).lastN).toBe(0)
  expect(existsSync(file)).toBe(false)
})

test('a segment as large as its last event can make it is read again', async () => {
  const folder = newFolder()
  const big = 'x'.repeat(4_000_000)
  const spool = await open(folder)
  for (let i = 0; i < 3; i++) spool.append([notice(big)])
  expect(segments(spool)).toHaveLength(2)
  spool.close()
  expect((await open(folder)).lastN).toBe(3)
})
