import { type ChildProcess, spawn } from 'node:child_process'
import { randomUUID } from 'node:crypto'
import { once } from 'node:events'
import { mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { afterEach, expect, test } from 'vitest'
import { identifyProcess, isSameProcess } from './process-identity.ts'
import { endProcessTree, findProcesses } from './process-tree.ts'

const markers: string[] = []
afterEach(async () => {
  for (const marker of markers.splice(0)) {
    await endProcessTree({ marker }, 0)
    expect(await findProcesses({ marker })).toEqual([])
  }
})

function newMarker(): string {
  const marker = `OZ_EXECUTION_ID=${randomUUID()}`
  markers.push(marker)
  return marker
}

/** Starts a shell that prints `ready` when its script got that far. */
async function start(script: string, { marker = newMarker(), detached = true } = {}) {
  const [name = '', value = ''] = marker.split('=')
  const env = { PATH: process.env.PATH, [name]: value }
  const child = spawn('bash', ['-c', script], { env, detached, stdio: ['ignore', 'pipe', 'ignore'] })
  await once(child.stdout, 'data')
  return { child, marker, rootPid: child.pid ?? 0 }
}

async function ended(child: ChildProcess): Promise<void> {
  if (child.exitCode === null && child.signalCode === null) await once(child, 'exit')
}

test('a tree is found by its root and ends politely', async () => {
  const { child, rootPid } = await start('sleep 100 & (sleep 100; true) & sh -c "sleep 100; true" & echo ready; wait')
  await expect.poll(async () => (await findProcesses({ rootPid })).length).toBe(6)
  const started = performance.now()
  expect(await endProcessTree({ rootPid }, 5_000)).toEqual({ ended: 6, survivors: [] })
  expect(performance.now() - started).toBeLessThan(2_000)
  await ended(child)
  expect(child.signalCode).toBe('SIGTERM')
})

test('what ignores SIGTERM is killed after the grace time', async () => {
  const { child, rootPid } = await start(`trap '' TERM; echo ready; while :; do sleep 0.05; done`)
  const started = performance.now()
  const { survivors } = await endProcessTree({ rootPid }, 300)
  expect(survivors).toEqual([])
  expect(performance.now() - started).toBeGreaterThanOrEqual(290)
  await ended(child)
  expect(child.signalCode).toBe('SIGKILL')
})

test('a stopped process gets its SIGTERM', async () => {
  const { child, rootPid } = await start('echo ready; kill -STOP $$; sleep 100')
  await endProcessTree({ rootPid }, 5_000)
  await ended(child)
  expect(child.signalCode).toBe('SIGTERM')
})

test('a program with work to do at SIGTERM is asked once', async () => {
  const { child, rootPid } = await start(
    `trap 'echo asked; sleep 0.5; exit 7' TERM; echo ready; while :; do sleep 0.01; done`,
  )
  let output = ''
  child.stdout.on('data', (data) => {
    output += data
  })
  await endProcessTree({ rootPid }, 5_000)
  await ended(child)
  expect({ output, code: child.exitCode }).toEqual({ output: 'asked\n', code: 7 })
})

test('daemons in sessions of their own are found by the marker', async () => {
  const { child, marker } = await start(
    'setsid sh -c "sleep 100 & sleep 100" & (setsid sh -c "(sleep 100 &) ; exec sleep 100" &); sleep 0.2; echo ready',
  )
  await ended(child)
  await expect.poll(async () => (await findProcesses({ marker })).length).toBe(5)
  expect(await endProcessTree({ marker }, 2_000)).toEqual({ ended: 5, survivors: [] })
})

test('a marker is compared as a whole', async () => {
  const { child, marker, rootPid } = await start('echo ready; exec sleep 100')
  expect(await findProcesses({ marker: marker.slice(0, -1) })).toEqual([])
  expect(await findProcesses({ marker: marker.slice(1) })).toEqual([])
  expect(await findProcesses({ marker })).toMatchObject([{ pid: rootPid, command: 'sleep' }])
  await endProcessTree({ marker }, 1_000)
  await ended(child)
})

test('what a root that has ended left in its group is found by its identity', async () => {
  const { child, rootPid } = await start('env -i sleep 100 & echo ready; sleep 0.2')
  const root = identifyProcess(rootPid)
  await ended(child)
  if (!root) throw new Error('the root ended too early')
  expect(isSameProcess(root)).toBe(false)
  expect(await findProcesses({ root })).toMatchObject([{ command: 'sleep', pgid: rootPid }])
  expect(await findProcesses({ root: { ...root, startedAt: 'earlier-boot:1' } })).toEqual([])
  expect(await endProcessTree({ root }, 1_000)).toEqual({ ended: 1, survivors: [] })
})

test('a chain of daemons, each starting the next and ending, does not get away', async () => {
  const { child, marker } = await start(
    'hop() { [ "$1" -gt 0 ] && setsid bash -c "$(declare -f hop); sleep 0.02; hop $(($1 - 1))" & }; hop 500; hop 500; hop 500; echo ready',
  )
  await ended(child)
  await expect.poll(async () => (await findProcesses({ marker })).length).toBeGreaterThan(2)
  expect((await endProcessTree({ marker }, 50)).survivors).toEqual([])
  expect(await findProcesses({ marker })).toEqual([])
})

test('a small fork bomb that ignores SIGTERM comes to rest', async () => {
  const { child, rootPid } = await start(
    `trap '' TERM; bomb() { [ "$1" -gt 0 ] && { bomb $(($1 - 1)) & bomb $(($1 - 1)) & }; while :; do (sleep 0.02 &); sleep 0.02; done; }; echo ready; bomb 5`,
  )
  await expect.poll(async () => (await findProcesses({ rootPid })).length, { timeout: 20_000 }).toBeGreaterThan(60)
  const root = identifyProcess(rootPid)
  expect((await endProcessTree({ rootPid }, 100)).survivors).toEqual([])
  await ended(child)
  expect(await findProcesses({ root })).toEqual([])
})

test('this process and its ancestors are never among the found', async () => {
  for (const rootPid of [process.pid, process.ppid]) {
    const child = spawn('sleep', ['100'])
    const found = (await findProcesses({ rootPid })).map(({ pid }) => pid)
    expect(found).toContain(child.pid)
    for (const spared of [1, process.pid, process.ppid]) expect(found).not.toContain(spared)
    child.kill()
    await once(child, 'exit')
  }
})

test('the processes of a user are found, our own user and root are refused', async () => {
  await expect(findProcesses({ uid: 0 })).rejects.toThrow('uid')
  if (process.getuid?.() !== 0) return
  const uid = 61_234
  const child = spawn('sh', ['-c', 'setsid sleep 100 & sleep 100'], { uid, gid: uid, env: {}, detached: true })
  await expect.poll(async () => (await findProcesses({ uid })).length).toBe(3)
  expect(await endProcessTree({ uid }, 1_000)).toEqual({ ended: 3, survivors: [] })
  await ended(child)
})

test('ending what has ended, or never was, is nothing', async () => {
  expect(await endProcessTree({ rootPid: 2 ** 22 + 1 }, 1_000)).toEqual({ ended: 0, survivors: [] })
  expect(await endProcessTree({ marker: newMarker() }, 1_000)).toEqual({ ended: 0, survivors: [] })
  expect(await endProcessTree({}, 1_000)).toEqual({ ended: 0, survivors: [] })
})

test.skipIf(process.platform === 'win32')(
  'on Windows `taskkill` ends the tree below a pid, and never our own',
  async () => {
    const folder = mkdtempSync(join(tmpdir(), 'oz-taskkill-'))
    try {
      const taskkill = join(folder, 'taskkill')
      writeFileSync(taskkill, `#!/bin/sh\necho "$@" >>${folder}/calls\n[ "$4" = 4711 ]\n`, { mode: 0o755 })
      const end = (rootPid: number) => endProcessTree({ rootPid }, 1_000, { platform: 'win32', taskkill })
      expect(await end(4711)).toEqual({ ended: 1, survivors: [] })
      expect(await end(4712)).toEqual({ ended: 0, survivors: [] })
      expect(await end(process.pid)).toEqual({ ended: 0, survivors: [] })
      expect(readFileSync(join(folder, 'calls'), 'utf8')).toBe('/T /F /PID 4711\n/T /F /PID 4712\n')
    } finally {
      rmSync(folder, { recursive: true })
    }
  },
)

test('two hundred that are ended at once share their looks, and do not hold their process up', async () => {
  const markers = Array.from({ length: 200 }, (_, index) => `OZ_EXECUTION_ID=many-${process.pid}-${index}`)
  let longestMs = 0
  let last = performance.now()
  const looking = setInterval(() => {
    longestMs = Math.max(longestMs, performance.now() - last)
    last = performance.now()
  }, 5)
  try {
    await Promise.all(markers.map((marker) => endProcessTree({ marker }, 0)))
  } finally {
    clearInterval(looking)
  }
  // One look apiece and turn would be 1,000 times all of /proc.
  expect(longestMs).toBeLessThan(1_000)
})
