import { existsSync, linkSync, mkdirSync, readdirSync, symlinkSync, truncateSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'
import { createDialer, openSpool } from '@openoz/machine'
import { pino } from 'pino'
import { expect, test } from 'vitest'
import { deliverSpool } from './spool-delivery.ts'
import { startControlPlane } from './test-support/control-plane.ts'
import { createFolder } from './test-support/worker.ts'

async function deliver(folder: string, serverUrl: string, timeoutMs = 5_000) {
  const lines: string[] = []
  const dialer = createDialer({ serverUrl, env: {} })
  try {
    const log = pino({ level: 'debug' }, { write: (line: string) => lines.push(line) })
    const result = await deliverSpool({ folder, token: 'et-test', dialer, log, timeoutMs })
    return { result, log: lines.join('') }
  } finally {
    await dialer.close()
  }
}

test('what no spool would have written is removed, and the events beside it are delivered', async () => {
  using folder = createFolder()
  await using cp = await startControlPlane()
  const path = join(folder.path, 'spool')
  {
    using spool = await openSpool(path)
    spool.append([{ type: 'notice', data: { level: 'info', text: 'true' } }])
  }
  mkdirSync(join(path, 'saved-workspace'))
  mkdirSync(join(path, 'folder', 'deep'), { recursive: true })
  for (const name of ['note', 'events-7.jsonl', 'lock-99999999999999999999']) writeFileSync(join(path, name), '{}\n')
  writeFileSync(join(path, 'events-000000000002.jsonl'), '')
  truncateSync(join(path, 'events-000000000002.jsonl'), 3_000_000_000)
  writeFileSync(join(folder.path, 'victim'), 'untouched')
  symlinkSync(join(folder.path, 'victim'), join(path, 'events-000000000003.jsonl'))
  linkSync(join(folder.path, 'victim'), join(path, 'events-000000000004.jsonl'))
  const before = process.memoryUsage().rss

  expect((await deliver(path, cp.url)).result).toBe('delivered')
  expect(process.memoryUsage().rss - before).toBeLessThan(200_000_000)
  expect(cp.state.events.flatMap(({ batch }) => batch.events)).toMatchObject([{ n: 1, data: { text: 'true' } }])
  const left = readdirSync(path).filter((name) => !/^(events-000000000001\.jsonl|acked|lock-\d)$/.test(name))
  expect(left).toEqual(['saved-workspace'])
})

test('a copy of work that is in the spool goes with its delivery, and not before', async () => {
  using folder = createFolder()
  await using cp = await startControlPlane()
  {
    using spool = await openSpool(folder.path)
    spool.append([{ type: 'notice', data: { level: 'info', text: 'true' } }])
  }
  const copy = join(folder.path, 'saved-workspace.spooled')
  mkdirSync(copy)
  writeFileSync(join(copy, 'saved.json'), '{}')
  cp.state.takesEvents = false
  expect((await deliver(folder.path, cp.url, 500)).result).toBe('kept')
  expect(existsSync(join(copy, 'saved.json'))).toBe(true)
  cp.state.takesEvents = true
  expect((await deliver(folder.path, cp.url)).result).toBe('delivered')
  expect(existsSync(copy)).toBe(false)
})

test('more files than a spool has are not opened', async () => {
  using folder = createFolder()
  await using cp = await startControlPlane()
  const event = JSON.stringify({
    n: 1,
    type: 'notice',
    at: new Date().toISOString(),
    data: { level: 'info', text: 'x' },
  })
  for (let first = 1; first <= 2_000; first++) {
    writeFileSync(join(folder.path, `events-${String(first).padStart(12, '0')}.jsonl`), `${event}\n`)
  }
  expect((await deliver(folder.path, cp.url)).result).toBe('delivered')
  expect(cp.state.events.flatMap(({ batch }) => batch.events)).toHaveLength(256)
})

test('a spool that cannot be read is given up, and the log says so', async () => {
  using folder = createFolder()
  await using cp = await startControlPlane()
  writeFileSync(join(folder.path, 'events-000000000001.jsonl'), '\n'.repeat(100_000))
  const { result, log } = await deliver(folder.path, cp.url)
  expect(result).toBe('unreadable')
  expect(log).toContain('they are given up')
})
