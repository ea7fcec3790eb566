/** The folder of PostgreSQL's unix socket: private (0700) and owned by whom PostgreSQL runs as. */
import {
  chmodSync,
  chownSync,
  lstatSync,
  mkdirSync,
  mkdtempSync,
  readFileSync,
  rmdirSync,
  rmSync,
  writeFileSync,
} from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { findBarrier, isRoot, refuseOtherOwner, type SystemUser } from './data-dir.ts'

/** Part of the socket's name; nothing listens on this port. */
export const socketPort = 5432
export const socketName = `.s.PGSQL.${socketPort}`

/** `sun_path` has 108 bytes on Linux and 104 on macOS, the last one for the closing NUL. */
const maxSocketPathBytes = process.platform === 'linux' ? 107 : 103

/**
 * `postgres-socket` in the data folder. Where that path is too long for a socket: a short folder for temporary files, remembered
 * in the data folder.
 */
export function prepareSocketDir(dataDir: string, user: SystemUser): string {
  const usual = join(dataDir, 'postgres-socket')
  if (!isTooLong(usual)) {
    mkdirSync(usual, { recursive: true })
    return makePrivate(usual, user)
  }
  const remembered = readMemo(dataDir)
  if (remembered && isPrivate(remembered, user)) return remembered
  // TMPDIR itself may be long, or closed to the user that root runs PostgreSQL as.
  const parent =
    [tmpdir(), '/tmp'].find((folder) => !isTooLong(join(folder, 'openoz-123456')) && !findBarrier(folder, user)) ??
    '/tmp'
  const folder = makePrivate(mkdtempSync(join(parent, 'openoz-')), user)
  writeFileSync(memoFile(dataDir), folder, { mode: 0o600 })
  return folder
}

/** Removes the short folder, if there is one. PostgreSQL itself has removed the socket. */
export function removeShortSocketDir(dataDir: string): void {
  const folder = readMemo(dataDir)
  if (!folder) return
  try {
    rmdirSync(folder)
    rmSync(memoFile(dataDir))
  } catch {
    // Something is left in it: the next start uses it again.
  }
}

function isTooLong(folder: string): boolean {
  return Buffer.byteLength(join(folder, socketName)) > maxSocketPathBytes
}

function makePrivate(folder: string, user: SystemUser): string {
  if (isRoot()) chownSync(folder, user.uid, user.gid)
  refuseOtherOwner(folder, user)
  chmodSync(folder, 0o700)
  return folder
}

/** Anybody may make folders where temporary files lie, also one with the name that we remember. */
function isPrivate(folder: string, user: SystemUser): boolean {
  const found = lstatSync(folder, { throwIfNoEntry: false })
  return found?.isDirectory() === true && found.uid === user.uid && (found.mode & 0o077) === 0
}

function memoFile(dataDir: string): string {
  return join(dataDir, 'postgres-socket-dir')
}

function readMemo(dataDir: string): string | undefined {
  try {
    return readFileSync(memoFile(dataDir), 'utf8').trim() || undefined
  } catch {
    return undefined
  }
}
