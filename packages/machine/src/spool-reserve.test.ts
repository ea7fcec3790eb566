import { spawnSync } from 'node:child_process'
import { existsSync, mkdtempSync, readdirSync, readFileSync, rmSync, statSync, truncateSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { afterEach, beforeEach, expect, test } from 'vitest'
import { openSpool } from './spool.ts'

/** A disk of its own. Needs the right to mount, which containers of CI may not have. */
let disk: string
let folder: string
beforeEach(({ skip }) => {
  disk = mkdtempSync(join(tmpdir(), 'oz-disk-'))
  folder = join(disk, 'spool')
  if (spawnSync('mount', ['-t', 'tmpfs', '-o', 'size=4m', 'tmpfs', disk]).status !== 0)
    skip('tmpfs cannot be mounted here: a full disk is not tested')
})
afterEach(() => {
  spawnSync('umount', ['-l', disk])
  rmSync(disk, { recursive: true, force: true })
})

const fill = () => spawnSync('dd', ['if=/dev/zero', `of=${disk}/ballast`, 'bs=4096'])
const event = (text: string) => ({ type: 'notice', data: { level: 'info', text } })
const kilobytes = (count: number) => event('x'.repeat(count * 1024))

test('on a full disk events go on for as long as they are acknowledged', async () => {
  using spool = await openSpool(folder, { keepsRoom: true })
  spool.append([event('before')])
  fill()
  for (let i = 0; i < 40; i++) {
    const n = spool.append([kilobytes(200)])
    expect(spool.isTight).toBe(true)
    expect(spool.pending(n - 1)).toMatchObject([{ n, data: { text: 'x'.repeat(200 * 1024) } }])
    spool.acknowledge(n)
    expect([spool.isTight, spool.sizeBytes]).toEqual([false, 0])
  }
  expect(Number(readFileSync(join(folder, 'acked'), 'utf8'))).toBe(41)
})

test('of a full disk’s last room, half is for the outcome, which the next process reads after a kill', async () => {
  const spool = await openSpool(folder, { keepsRoom: true })
  spool.append([event('before')])
  fill()
  while (true) {
    try {
      spool.append([kilobytes(20)])
    } catch (error) {
      expect(error).toMatchObject({ code: 'disk_full', details: { folder } })
      break
    }
  }
  const last = spool.append([{ type: 'turn_outcome', data: { outcome: 'ERROR' } }], { isFinal: true })
  expect(last).toBeGreaterThan(20)
  spool.acknowledge(3)
  spool.close()

  using next = await openSpool(folder)
  expect([next.lastN, next.ackedN]).toEqual([last, 3])
  expect(next.pending(3, { maxEvents: 1_000 }).map(({ n }) => n)).toEqual(
    Array.from({ length: last - 3 }, (_, i) => i + 4),
  )
  expect(next.pending(last - 1)).toMatchObject([{ type: 'turn_outcome' }])
  next.acknowledge(last)
})

test('once the disk has room again the spool grows as ever, and has its own room anew', async () => {
  // Larger than a disk that is called full.
  spawnSync('mount', ['-o', 'remount,size=24m', disk])
  using spool = await openSpool(folder, { keepsRoom: true })
  fill()
  spool.append([kilobytes(400)])
  expect(() => spool.append([kilobytes(400)])).toThrowError(expect.objectContaining({ code: 'disk_full' }))
  rmSync(join(disk, 'ballast'))
  expect(spool.append([kilobytes(400), kilobytes(400)])).toBe(3)
  expect(spool.isTight).toBe(false)
  expect(existsSync(join(folder, 'reserve'))).toBe(true)
  expect(spool.pending(0).map(({ n }) => n)).toEqual([1, 2, 3])
  spool.acknowledge(3)
  expect(spool.append([event('after')])).toBe(4)
  expect(readdirSync(folder).filter((name) => name.startsWith('events-'))).toHaveLength(1)
})

test('a spool without room from the start says so when there is none', async () => {
  fill()
  truncateSync(join(disk, 'ballast'), statSync(join(disk, 'ballast')).size - 300 * 1024)
  using spool = await openSpool(folder, { keepsRoom: true })
  expect(existsSync(join(folder, 'reserve'))).toBe(false)
  expect(() => spool.append([kilobytes(400)])).toThrowError(expect.objectContaining({ code: 'disk_full' }))
  expect(spool.append([event('small')])).toBe(1)
})
