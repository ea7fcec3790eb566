import { spawn } from 'node:child_process'
import { once } from 'node:events'
import { copyFileSync, mkdtempSync, rmSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { expect, test } from 'vitest'
import {
  identifyProcess,
  isFromEarlierBoot,
  isSameProcess,
  parseProcessStat,
  readProcessStat,
} from './process-identity.ts'
import { listProcesses, parsePs } from './process-list.ts'

test('a process is the same while it runs, and not after its end', async () => {
  const child = spawn('sleep', ['60'])
  const identity = identifyProcess(child.pid ?? 0)
  expect(identity).toMatchObject({ pid: child.pid })
  if (!identity) return
  expect(isSameProcess(JSON.parse(JSON.stringify(identity)))).toBe(true)
  expect(isSameProcess({ ...identity, startedAt: `${identity.startedAt}0` })).toBe(false)
  expect(isFromEarlierBoot(identity)).toBe(false)
  expect(isFromEarlierBoot({ ...identity, startedAt: 'another-boot:1' })).toBe(true)
  child.kill()
  await once(child, 'exit')
  expect(isSameProcess(identity)).toBe(false)
  expect(identifyProcess(child.pid ?? 0)).toBeUndefined()
})

test('a process that has ended but was not reaped has ended', async () => {
  // The shell starts a child and then becomes a program that never asks for its children.
  const parent = spawn('sh', ['-c', 'sleep 0.01 & echo $!; exec sleep 60'])
  const [line] = await once(parent.stdout, 'data')
  const pid = Number(line)
  await expect.poll(() => readProcessStat(pid)?.state).toBe('Z')
  expect(identifyProcess(pid)).toBeUndefined()
  parent.kill()
  await once(parent, 'exit')
})

test('pids that mean groups, or nothing, identify nothing', () => {
  for (const pid of [0, -1, Number.NaN, 1.5, 2 ** 40]) expect(identifyProcess(pid)).toBeUndefined()
})

test.each(['a b', 'a) R 1 (b', ') (', '(', 'x\ny'])('a program named %j is read right', async (name) => {
  const folder = mkdtempSync(join(tmpdir(), 'names-'))
  const file = join(folder, name)
  copyFileSync('/bin/sleep', file)
  const child = spawn(file, ['60'])
  await once(child, 'spawn')
  await expect.poll(() => readProcessStat(child.pid ?? 0)?.command).toBe(name)
  expect(readProcessStat(child.pid ?? 0)).toMatchObject({ pid: child.pid, ppid: process.pid })
  expect(identifyProcess(child.pid ?? 0)?.startedAt).toMatch(/^[0-9a-f-]{36}:\d+$/)
  child.kill()
  await once(child, 'exit')
  rmSync(folder, { recursive: true })
})

test('what is no stat line is nothing', () => {
  for (const text of ['', '1', '1 (', '1 )x(', '1 (x) R 1']) expect(parseProcessStat(text)).toBeUndefined()
})

test('the process table of macOS is read', () => {
  const text =
    '    1     0     1 Ss   Mon Nov 23 05:53:01 2026 launchd\n  412   410   410 Z    Tue Dec  1 05:53:01 2026 (sh)\n  413   410   410 S+   Tue Dec  1 15:53:01 2026 my tool\n'
  expect(parsePs(text)).toEqual([
    { pid: 1, ppid: 0, pgid: 1, sid: 0, startedAt: 'Mon Nov 23 05:53:01 2026', command: 'launchd' },
    { pid: 413, ppid: 410, pgid: 410, sid: 0, startedAt: 'Tue Dec  1 15:53:01 2026', command: 'my tool' },
  ])
})

test.skipIf(process.platform === 'win32')(
  'macOS: `ps` tells the same start in every time zone and to every caller',
  async () => {
    const { TZ } = process.env
    const first = identifyProcess(process.pid, 'darwin')
    process.env.TZ = 'Asia/Tokyo'
    try {
      expect(identifyProcess(process.pid, 'darwin')).toEqual(first)
      const listed = (await listProcesses('darwin')).find(({ pid }) => pid === process.pid)
      expect(listed).toMatchObject({ ...first, ppid: process.ppid })
    } finally {
      if (TZ === undefined) delete process.env.TZ
      else process.env.TZ = TZ
    }
  },
)

test('Windows tells no start times: nobody is identified, and nobody listed', async () => {
  expect(identifyProcess(process.pid, 'win32')).toBeUndefined()
  expect(await listProcesses('win32')).toEqual([])
})
