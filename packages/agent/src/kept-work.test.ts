import { mkdirSync, mkdtempSync, readdirSync, rmSync, statSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { afterEach, beforeEach, expect, test } from 'vitest'
import { openKeptWork } from './kept-work.ts'
import { readKeptWork } from './kept-work-reader.ts'

let spool: string
beforeEach(() => {
  spool = mkdtempSync(join(tmpdir(), 'oz-kept-'))
})
afterEach(() => rmSync(spool, { recursive: true, force: true }))

const repository = { dir: 'app', folder: '/w/app', url: 'https://example.com/app.git', base: 'abc', isKept: false }
const workspace = { folder: '/w', toolsFolder: '/w/app', repositories: [repository], found: ['given'] }
const checkpoint = (step: number, data = `{"step":${step}}\n`) => ({
  harness: 'oz',
  format: 'oz-2',
  step,
  takenMessageIds: ['m1'],
  data: Buffer.from(data),
})

test('what was kept last is what a later process finds, byte for byte, and nobody else can read it', () => {
  const kept = openKeptWork(spool)
  kept.keepWorkspace({ workspace, maxBytes: 1000 })
  kept.keepCheckpoint(checkpoint(1))
  kept.keepCheckpoint(checkpoint(2, '\0\n\xff binary\n'))
  const found = readKeptWork(spool)
  expect(found.workspace).toEqual({ workspace, maxBytes: 1000 })
  expect(found.checkpoint).toEqual({ ...checkpoint(2, '\0\n\xff binary\n') })
  const folder = join(spool, 'kept')
  expect(statSync(folder).mode & 0o777).toBe(0o700)
  expect(readdirSync(folder).sort()).toEqual(['checkpoint', 'workspace.json'])
  for (const name of readdirSync(folder)) expect(statSync(join(folder, name)).mode & 0o777).toBe(0o600)
})

test('after everything was saved there is nothing, and it can begin again', () => {
  const kept = openKeptWork(spool)
  kept.keepWorkspace({ workspace, maxBytes: 1000 })
  kept.saved()
  kept.saved()
  expect(readdirSync(spool)).toEqual([])
  expect(readKeptWork(spool)).toEqual({})
  kept.keepCheckpoint(checkpoint(3))
  expect(readKeptWork(spool).checkpoint?.step).toBe(3)
})

test('what cannot be kept is told once and stops nothing', () => {
  writeFileSync(join(spool, 'kept'), 'in the way')
  const problems: unknown[] = []
  const kept = openKeptWork(spool, (error) => problems.push(error))
  kept.keepWorkspace({ workspace, maxBytes: 1000 })
  kept.keepCheckpoint(checkpoint(1))
  expect(problems).toHaveLength(1)
})

test('parts that no agent of this version wrote are as if they were not there', () => {
  mkdirSync(join(spool, 'kept'))
  writeFileSync(join(spool, 'kept', 'workspace.json'), '{"version":2}')
  writeFileSync(join(spool, 'kept', 'checkpoint'), 'no json')
  expect(readKeptWork(spool)).toEqual({ workspace: undefined, checkpoint: undefined })
})

test('a checkpoint of a megabyte is kept in milliseconds', () => {
  const kept = openKeptWork(spool)
  const data = 'x'.repeat(1_000_000)
  const startedAt = performance.now()
  for (let step = 0; step < 20; step++) kept.keepCheckpoint(checkpoint(step, data))
  expect((performance.now() - startedAt) / 20).toBeLessThan(50)
})
