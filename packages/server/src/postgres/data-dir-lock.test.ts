import { spawn } from 'node:child_process'
import { writeFileSync } from 'node:fs'
import { join } from 'node:path'
import { AppError } from '@openoz/protocol'
import { expect, test } from 'vitest'
import { lockDataDir } from './data-dir-lock.ts'
import { identifyProcess } from './process-identity.ts'
import { scratchFolder } from './testing/scratch-folder.ts'
import { serverProcess } from './testing/server-process.ts'

const holdLock = 'await lockDataDir(dataDir); say({ locked: true })'

test('a second server on one folder is refused and told who holds it since when', async () => {
  using folder = scratchFolder()
  await using holder = await serverProcess(folder.path, holdLock)

  const error = await lockDataDir(folder.path).catch((refusal: unknown) => refusal)

  expect(error).toBeInstanceOf(AppError)
  expect(error).toMatchObject({ code: 'data_dir_locked', details: { dataDir: folder.path, pid: holder.pid } })
  const { since } = (error as AppError).details
  expect(Date.now() - Date.parse(String(since))).toBeLessThan(30_000)
  expect((error as AppError).message).toContain(`process id ${holder.pid}, since ${since}`)
})

test('the same process cannot take the lock twice, and a refusal does not loosen it', async () => {
  using folder = scratchFolder()
  const lock = await lockDataDir(folder.path)
  await expect(lockDataDir(folder.path)).rejects.toMatchObject({ details: { pid: process.pid } })
  await using other = await serverProcess(folder.path, holdLock)
  expect(other.said).toMatchObject({ code: 'data_dir_locked' })
  lock.release()
  lock.release()
  const again = await lockDataDir(folder.path)
  again.release()
})

test('the lock of a server that was killed is free at once', async () => {
  using folder = scratchFolder()
  await using holder = await serverProcess(folder.path, holdLock)
  await holder.kill('SIGKILL')
  const lock = await lockDataDir(folder.path)
  lock.release()
})

test('a note that names a living process which is no server any more keeps nobody out', async () => {
  using folder = scratchFolder()
  const stranger = spawn('sleep', ['60'])
  const identity = identifyProcess(stranger.pid ?? 0)
  for (const startedAt of ['1', identity?.startedAt]) {
    writeFileSync(
      join(folder.path, 'server.pid'),
      JSON.stringify({ pid: identity?.pid, startedAt, since: '2026-01-01T00:00:00Z' }),
    )
    const lock = await lockDataDir(folder.path)
    lock.release()
  }
  stranger.kill('SIGKILL')
})

test('of eight servers that race for a folder whose server was killed exactly one wins', async () => {
  using folder = scratchFolder()
  await using dead = await serverProcess(folder.path, holdLock)
  await dead.kill('SIGKILL')

  const racers = await Promise.all(Array.from({ length: 8 }, () => serverProcess(folder.path, holdLock)))
  try {
    const winners = racers.filter((racer) => racer.said.locked)
    const refused = racers.filter((racer) => racer.said.code === 'data_dir_locked')
    expect(winners).toHaveLength(1)
    expect(refused).toHaveLength(7)
    for (const { said } of refused) expect(said.message).toContain(`process id ${winners[0]?.pid},`)
  } finally {
    for (const racer of racers) await racer[Symbol.asyncDispose]()
  }
})
