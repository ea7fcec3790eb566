import { randomBytes } from 'node:crypto'
import { chmod, chown, copyFile, link, lstat, mkdir, readlink, rename, rm, symlink, writeFile } from 'node:fs/promises'
import { basename, dirname, join } from 'node:path'
import { isDiskFull } from '@openoz/machine'
import type { PlannedFile } from './edit-plan.ts'
import { errorCode, fileFailure } from './file-failure.ts'
import { encodeText } from './text-file.ts'

/** One name that changes, and the way back. */
interface Step {
  path: string
  /** What it shall be; undefined: it shall be gone. */
  next: string | undefined
  /** What it was, under another name; undefined: nothing was there. */
  before: string | undefined
  /** `in_place`: the name could not be given to another file, so the file itself gets the content. */
  state: 'waiting' | 'renamed' | 'in_place'
}

/**
 * Changes all names or none: every new content is on the disk under another name before the first name is changed, and every old one until the last
 * has been, so that what cannot be changed (a full disk, a folder that may not be written, a locked file) leaves everything as it was. A file that
 * is moved stays the same file, with all that the system knows of it. Rejects with what was in the way, in words for the model, or with the error
 * of a full disk.
 */
export async function writeFiles(files: readonly PlannedFile[]): Promise<void> {
  const steps: Step[] = []
  const made: string[] = []
  let current = ''
  try {
    for (const { path, change } of files) {
      if (change.kind === 'remove') continue
      current = path
      const folder = await mkdir(dirname(path), { recursive: true })
      if (folder !== undefined) made.push(folder)
      const step: Step = { path, next: temporaryName(path), before: undefined, state: 'waiting' }
      steps.push(step)
      await prepare(step, change)
    }
    for (const { path, change } of files) {
      if (change.kind !== 'remove') continue
      steps.push({ path, next: undefined, before: temporaryName(path), state: 'waiting' })
    }
    for (const step of steps) {
      current = step.path
      await perform(step)
    }
  } catch (error) {
    const stuck = await undo(steps)
    const needed = new Set(stuck.map(({ before }) => before))
    await removeAll(steps.flatMap(({ next, before }) => [next, needed.has(before) ? undefined : before]))
    if (stuck.length === 0) await removeAll(made.reverse())
    throw failure(error, { current, steps, stuck })
  }
  await removeAll(steps.flatMap(({ next, before }) => [next, before]))
}

function temporaryName(path: string): string {
  return join(dirname(path), `.${basename(path).slice(0, 60)}.${randomBytes(6).toString('hex')}.tmp`)
}

async function prepare(step: Step, change: PlannedFile['change'] & { kind: 'write' | 'move' }): Promise<void> {
  const next = step.next ?? ''
  if (change.kind === 'move') await linkOrCopy(change.from, next)
  else await writeText(next, change)
  if (!(await isThere(step.path))) return
  step.before = temporaryName(step.path)
  await linkOrCopy(step.path, step.before)
}

async function isThere(path: string): Promise<boolean> {
  try {
    await lstat(path)
    return true
  } catch (error) {
    if (errorCode(error) === 'ENOENT') return false
    throw error
  }
}

async function perform(step: Step): Promise<void> {
  const { path, next, before } = step
  try {
    if (next === undefined) await rename(path, before ?? '')
    else await rename(next, path)
    step.state = 'renamed'
  } catch (error) {
    // A mount point, which containers make of single files: its name cannot be given away, but what it leads to can be written.
    const isMountPoint = errorCode(error) === 'EBUSY' || errorCode(error) === 'EXDEV'
    if (!isMountPoint || next === undefined || before === undefined) throw error
    step.state = 'in_place'
    await copyFile(next, path)
  }
}

/** Answers the steps that could not be taken back. */
async function undo(steps: readonly Step[]): Promise<Step[]> {
  const stuck: Step[] = []
  for (const step of steps.toReversed()) {
    const { path, before, state } = step
    try {
      if (state === 'in_place') await copyFile(before ?? '', path)
      else if (state === 'renamed' && before === undefined) await rm(path)
      else if (state === 'renamed' && before !== undefined) await rename(before, path)
    } catch {
      stuck.push(step)
    }
  }
  return stuck
}

/** What is left of them is a file too many, and no reason to say that the edits failed. Some are gone: a rename has used them up. */
async function removeAll(paths: readonly (string | undefined)[]): Promise<void> {
  for (const path of paths) if (path !== undefined) await rm(path, { recursive: true, force: true }).catch(() => {})
}

interface Failed {
  current: string
  steps: readonly Step[]
  stuck: readonly Step[]
}

function failure(error: unknown, { current, steps, stuck }: Failed): unknown {
  if (stuck.length === 0) {
    return isDiskFull(error) ? error : new Error(`${reasonOf(error, current)} Nothing was written.`, { cause: error })
  }
  const changed = stuck.map(({ path, before }) => (before === undefined ? path : `${path} (as it was: ${before})`))
  const others = steps.filter((step) => !stuck.includes(step)).map(({ path }) => path)
  const unchanged = others.length === 0 ? '' : ` Not written: ${others.join(', ')}.`
  return new Error(
    `${reasonOf(error, current)} These were changed, and could not be put back: ${changed.join(', ')}.${unchanged}`,
    { cause: error },
  )
}

async function writeText(path: string, change: PlannedFile['change'] & { kind: 'write' }): Promise<void> {
  const { attributes } = change
  await writeFile(path, encodeText(change), { flag: 'wx' })
  if (!attributes) return
  // Only root may give files away; for everybody else the file becomes their own, as with any editor.
  await chown(path, attributes.uid, attributes.gid).catch(() => {})
  await chmod(path, attributes.mode)
}

/** A second name for the same file; a copy where the file system has no such thing. */
async function linkOrCopy(from: string, to: string): Promise<void> {
  const found = await lstat(from)
  if (found.isSymbolicLink()) return symlink(await readlink(from), to)
  try {
    await link(from, to)
  } catch {
    await copyFile(from, to)
    await chown(to, found.uid, found.gid).catch(() => {})
    await chmod(to, found.mode & 0o7777)
  }
}

function reasonOf(error: unknown, path: string): string {
  const said = fileFailure(error, path)
  return said instanceof Error ? said.message : String(said)
}
