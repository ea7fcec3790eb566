/**
 * The folder that holds everything a server keeps: database, keys, logs.
 *
 * Its mode is 0700, and 0711 when root owns it: PostgreSQL refuses to run as root, so it then runs as user 65534 and has to pass
 * through to `postgres/`. What lies in it protects itself: files with secrets are 0600, `postgres/` and `postgres-socket/` 0700.
 * A folder that was there before, with something in it, keeps the mode its owner chose (`--data-dir /tmp` must not close /tmp).
 */
import {
  chmodSync,
  existsSync,
  lstatSync,
  mkdirSync,
  readdirSync,
  realpathSync,
  rmSync,
  statfsSync,
  statSync,
  writeFileSync,
} from 'node:fs'
import { userInfo } from 'node:os'
import { dirname, join, resolve } from 'node:path'
import { AppError } from '@openoz/protocol'

/** Whom PostgreSQL runs as. */
export interface SystemUser {
  uid: number
  gid: number
}

const nobody: SystemUser = { uid: 65534, gid: 65534 }

/** Root cannot run PostgreSQL; 65534 exists as a number on every machine, so no user has to be made. */
export function postgresUser(): SystemUser {
  const uid = process.getuid?.() ?? 0
  return uid === 0 ? nobody : { uid, gid: process.getgid?.() ?? uid }
}

export function isRoot(): boolean {
  return process.getuid?.() === 0
}

/**
 * Makes the folder, or checks the one that is there. Returns its real path, without symbolic links.
 * Throws `data_dir_not_writable`, `data_dir_foreign_owner` or `disk_full`.
 */
export function createDataDir(dataDir: string): string {
  const folder = resolve(dataDir)
  try {
    makeFolder(folder)
    refuseForeignOwner(folder)
    if (readdirSync(folder).length === 0) chmodSync(folder, isRoot() ? 0o711 : 0o700)
    const probe = join(folder, `.write-probe-${process.pid}`)
    writeFileSync(probe, 'x', { mode: 0o600 })
    rmSync(probe)
    return realpathSync(folder)
  } catch (error) {
    throw dataDirError(folder, error)
  }
}

/** Node's own recursive mkdir says ENOENT on a read-only file system. */
function makeFolder(folder: string): void {
  if (existsSync(folder)) return
  makeFolder(dirname(folder))
  try {
    mkdirSync(folder, { mode: isRoot() ? 0o755 : 0o700 })
  } catch (error) {
    if ((error as NodeJS.ErrnoException).code !== 'EEXIST') throw error
  }
}

/** PostgreSQL as another user must be able to reach what is in `folder`. Names the first parent that stops it. */
export function findBarrier(folder: string, user: SystemUser): string | undefined {
  if (!isRoot()) return undefined
  const parents: string[] = []
  for (let path = folder; ; path = dirname(path)) {
    parents.unshift(path)
    if (path === dirname(path)) break
  }
  return parents.find((path) => {
    const { mode, uid, gid } = statSync(path)
    const bit = uid === user.uid ? 0o100 : gid === user.gid ? 0o010 : 0o001
    return (mode & bit) === 0
  })
}

/** Throws when PostgreSQL, as the user that it runs as, could not reach the data folder. */
export function refuseBarrier(dataDir: string, user: SystemUser): void {
  const barrier = findBarrier(dataDir, user)
  if (!barrier) return
  const mode = (statSync(barrier).mode & 0o7777).toString(8).padStart(4, '0')
  throw new AppError('data_dir_not_writable', {
    dataDir,
    problem: `started by root, PostgreSQL runs as user id ${user.uid}, and ${barrier} (mode ${mode}) does not let that user pass; chmod o+x ${barrier}`,
  })
}

/** Turns what the file system said about the data folder into an error for people. An AppError stays what it is. */
export function dataDirError(dataDir: string, error: unknown): unknown {
  if (error instanceof AppError) return error
  const { code, path } = error as NodeJS.ErrnoException
  switch (code) {
    case 'ENOSPC':
    case 'EDQUOT':
      return diskFull(dataDir, error)
    case 'EROFS':
      return notWritable(dataDir, 'its file system is read-only', error)
    case 'EACCES':
    case 'EPERM':
      return notWritable(dataDir, `user ${describeUser()} may not change ${path ?? dataDir}`, error)
    case 'ENOTDIR':
    case 'EEXIST':
      return notWritable(dataDir, `${path ?? dataDir} is not a folder`, error)
    default:
      return error
  }
}

export function diskFull(dataDir: string, cause?: unknown): AppError {
  const free = freeBytes(dataDir)
  const details = {
    what: 'the database',
    folder: dataDir,
    free: free === undefined ? 'an unknown amount' : formatBytes(free),
  }
  return new AppError('disk_full', details, { cause })
}

/** Bytes that a process without privileges could still write there. */
export function freeBytes(folder: string): number | undefined {
  try {
    const { bavail, bsize } = statfsSync(folder)
    return bavail * bsize
  } catch {
    return undefined
  }
}

/** Throws `data_dir_foreign_owner` when the folder belongs to somebody else and this process has no business in it. */
function refuseForeignOwner(folder: string): void {
  const { uid, mode, gid } = statSync(folder)
  if (uid === process.getuid?.()) return
  // A volume of Kubernetes belongs to root and is writable for the pod's group: that is ours as well.
  const groups = process.getgroups?.() ?? []
  if (!isRoot() && ((mode & 0o020 && groups.includes(gid)) || mode & 0o002)) return
  throw foreignOwner(folder, uid)
}

/** Throws when a folder that PostgreSQL owns (its data, its socket's) belongs to anybody but `user`. */
export function refuseOtherOwner(folder: string, user: SystemUser): void {
  const { uid } = lstatSync(folder)
  if (uid !== user.uid) throw foreignOwner(folder, uid)
}

function foreignOwner(folder: string, uid: number): AppError {
  return new AppError('data_dir_foreign_owner', { dataDir: folder, owner: uid, user: describeUser() })
}

function notWritable(dataDir: string, problem: string, cause: unknown): AppError {
  return new AppError('data_dir_not_writable', { dataDir, problem }, { cause })
}

function describeUser(): string {
  try {
    const { uid, username } = userInfo()
    return `${uid} (${username})`
  } catch {
    // In an image without /etc/passwd, or under a number that it does not list.
    return String(process.getuid?.() ?? 'unknown')
  }
}

function formatBytes(bytes: number): string {
  if (bytes < 1e6) return `${Math.floor(bytes / 1e3)} kB`
  return bytes < 1e9 ? `${(bytes / 1e6).toFixed(1)} MB` : `${(bytes / 1e9).toFixed(1)} GB`
}
