import { linkSync, readdirSync, readlinkSync, renameSync, unlinkSync } from 'node:fs'
import { join } from 'node:path'
import { readSmallFile, writeNewFile } from './plain-file.ts'
import { identifyProcess, isSameProcess, type ProcessIdentity } from './process-identity.ts'

/**
 * One owner per folder, also across `kill -9`, which Node offers no file lock for.
 *
 * The folder holds `lock-1`, `lock-2`, …; the highest one says who owns the folder: a process, or nobody after a release. Taking over from
 * number k means to create number k+1, which the file system allows to one of several that try. The highest number is never
 * removed, so numbers only grow, and whoever looked too early fails to create or sees a higher number afterwards and withdraws.
 *
 * Where processes cannot be identified (Windows) nobody is ever seen to hold it.
 *
 * An owner in another PID namespace (an agent in a container) cannot be looked up by pid; `ownerIsGone` says that the caller knows.
 */
export interface FolderLock {
  release(): void
}

interface Holder {
  owner: ProcessIdentity | undefined
  /** PID namespace of the owner; empty where the platform has none. */
  namespace: string
}

const maxLockBytes = 1024

/** Whether files of the lock have such names. */
export function isLockName(name: string): boolean {
  return /^lock-\d{1,9}$/.test(name) || name.startsWith('.lock.')
}

/** Returns the lock, or who has it. Throws what the file system throws. */
export function lockFolder(
  folder: string,
  { ownerIsGone = false }: { ownerIsGone?: boolean } = {},
): FolderLock | { heldBy: number } {
  const namespace = pidNamespace()
  for (;;) {
    const highest = highestLock(folder)
    const holder = highest === 0 ? undefined : readHolder(lockFile(folder, highest))
    if (holder?.owner && mayBeAlive(holder, namespace, ownerIsGone)) return { heldBy: holder.owner.pid }
    const mine = highest + 1
    if (!createLock(folder, mine, { owner: identifyProcess(process.pid), namespace })) continue
    if (highestLock(folder) !== mine) {
      unlinkSync(lockFile(folder, mine))
      continue
    }
    for (const number of lockNumbers(folder)) if (number < mine) removeIfThere(lockFile(folder, number))
    return { release: () => replaceLock(folder, mine, { owner: undefined, namespace }) }
  }
}

function mayBeAlive({ owner, namespace }: Holder, ours: string, ownerIsGone: boolean): boolean {
  if (owner === undefined) return false
  return namespace === ours ? isSameProcess(owner) : !ownerIsGone
}

function lockFile(folder: string, number: number): string {
  return join(folder, `lock-${number}`)
}

function lockNumbers(folder: string): number[] {
  return readdirSync(folder).flatMap((name) => {
    const [, number] = /^lock-(\d{1,12})$/.exec(name) ?? []
    return number === undefined ? [] : [Number(number)]
  })
}

function highestLock(folder: string): number {
  return Math.max(0, ...lockNumbers(folder))
}

/** undefined: the file went away, or was never whole; then somebody may take over. */
function readHolder(file: string): Holder | undefined {
  try {
    // For a moment of its making it has two names.
    return JSON.parse(readSmallFile(file, maxLockBytes, { mayBeLinked: true }) ?? '') as Holder
  } catch {
    return undefined
  }
}

/** A link makes name and content appear together; false when the name is taken. */
function createLock(folder: string, number: number, holder: Holder): boolean {
  const temporary = writeTemporary(folder, holder)
  try {
    linkSync(temporary, lockFile(folder, number))
    return true
  } catch (error) {
    if (error instanceof Error && 'code' in error && error.code === 'EEXIST') return false
    throw error
  } finally {
    removeIfThere(temporary)
  }
}

function replaceLock(folder: string, number: number, holder: Holder): void {
  try {
    renameSync(writeTemporary(folder, holder), lockFile(folder, number))
  } catch {
    // The folder may be gone already, and a lock whose owner has ended is free anyway.
  }
}

function writeTemporary(folder: string, holder: Holder): string {
  const temporary = join(folder, `.lock.${process.pid}.${Math.random().toString(36).slice(2)}`)
  writeNewFile(temporary, JSON.stringify(holder))
  return temporary
}

function removeIfThere(file: string): void {
  try {
    unlinkSync(file)
  } catch {
    // Somebody else was quicker.
  }
}

function pidNamespace(): string {
  try {
    return readlinkSync('/proc/self/ns/pid')
  } catch {
    return ''
  }
}
