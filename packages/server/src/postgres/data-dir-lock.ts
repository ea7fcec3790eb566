/**
 * One server per data folder.
 *
 * The lock is the kernel's own on `server.lock`, taken through SQLite (`begin exclusive` on an empty database). It ends with the
 * process, however the process ends, so there is no stale lock to judge and no moment in which two starters can both take one
 * over; it also holds between containers that share a volume, where process ids mean nothing. `server.pid` beside it is only for
 * people: who holds the lock, and since when.
 *
 * Nothing else may open `server.lock`: in POSIX, closing any descriptor of a file drops the process's locks on it.
 *
 * The lock is about servers. A PostgreSQL that outlived its server holds none, and the next server adopts it.
 */
import { chmodSync, readFileSync, renameSync, rmSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'
import { DatabaseSync } from 'node:sqlite'
import { setTimeout as sleep } from 'node:timers/promises'
import { AppError } from '@openoz/protocol'
import { dataDirError } from './data-dir.ts'
import { identifyProcess } from './process-identity.ts'

export interface DataDirLock {
  /** Safe to call twice. */
  release(): void
}

interface Holder {
  pid: number
  /** ISO 8601. */
  since: string
  startedAt: string
}

const sqliteBusy = 5

/** The winner takes the lock some microseconds before it has written its name. */
const holderKnownWithinMs = 500

/** Locks that this process holds. SQLite gives a lock back when its connection is garbage collected. */
const held = new Set<DatabaseSync>()

/** Takes the folder for this process, or throws `data_dir_locked` with the holder's process id and since when. The folder exists. */
export async function lockDataDir(dataDir: string): Promise<DataDirLock> {
  const file = join(dataDir, 'server.lock')
  const giveUpAt = Date.now() + holderKnownWithinMs
  for (;;) {
    const lock = tryLock(dataDir, file)
    if (lock) return lock
    const holder = readHolder(dataDir)
    if (holder && identifyProcess(holder.pid)?.startedAt === holder.startedAt) throw lockedBy(dataDir, holder)
    // The holder is in another container, or has not written its name yet.
    if (Date.now() > giveUpAt) throw lockedBy(dataDir, holder)
    await sleep(10)
  }
}

function tryLock(dataDir: string, file: string): DataDirLock | undefined {
  let database: DatabaseSync | undefined
  try {
    const opened = new DatabaseSync(file, { timeout: 0 })
    database = opened
    opened.exec('begin exclusive')
    held.add(opened)
    chmodSync(file, 0o600)
    writeHolder(dataDir)
    return {
      release() {
        if (!held.delete(opened)) return
        rmSync(holderFile(dataDir), { force: true })
        opened.close()
      },
    }
  } catch (error) {
    if (database) {
      held.delete(database)
      database.close()
    }
    if ((error as { errcode?: number }).errcode === sqliteBusy) return undefined
    throw dataDirError(dataDir, error)
  }
}

function holderFile(dataDir: string): string {
  return join(dataDir, 'server.pid')
}

function writeHolder(dataDir: string): void {
  const startedAt = identifyProcess(process.pid)?.startedAt ?? ''
  const holder: Holder = { pid: process.pid, since: new Date().toISOString(), startedAt }
  const draft = `${holderFile(dataDir)}.new`
  writeFileSync(draft, JSON.stringify(holder), { mode: 0o600 })
  renameSync(draft, holderFile(dataDir))
}

function readHolder(dataDir: string): Holder | undefined {
  try {
    return JSON.parse(readFileSync(holderFile(dataDir), 'utf8'))
  } catch {
    return undefined
  }
}

function lockedBy(dataDir: string, holder: Holder | undefined): AppError {
  return new AppError('data_dir_locked', {
    dataDir,
    pid: holder?.pid ?? 'unknown',
    since: holder?.since ?? 'an unknown time',
  })
}
