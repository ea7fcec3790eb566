import { existsSync } from 'node:fs'
import { lstat, mkdtemp, readdir, realpath, rm } from 'node:fs/promises'
import { homedir, tmpdir } from 'node:os'
import { join, parse } from 'node:path'
import { AppError, messageOf } from '@openoz/protocol'
import { type EventSink, notice } from '../event-sink.ts'
import type { Repository } from './clone.ts'
import { existingRepository } from './clone.ts'
import { type GitOptions, gitQuestion } from './git.ts'
import { type CheckoutStart, listRefs } from './own-changes.ts'
import { RepositorySave, type RepositorySaveOptions } from './repository-save.ts'
import { folderHistory } from './save.ts'

/**
 * The checkout of a person who starts an agent in it. Nothing in it is touched but by what the agent does, and nothing leaves the machine but
 * what the run makes: what was uncommitted before, other branches, the stash and repositories inside stay out of what is saved. For that the
 * start has to be known, down to the files.
 */
export interface CheckoutRequest {
  folder: string
  runId: string
  git: Omit<GitOptions, 'cwd'>
  sink: EventSink
  /** Of what will be saved; undefined when nothing will. */
  maxBytes: number | undefined
  /** A folder for what is needed to know the start by, until the execution ends. The system's for temporary files by default. */
  keepIn?: string
}

/** For each git command at the start. A person waits. */
const startTimeoutMs = 60_000

/** The repository that the folder lies in, wherever in it. undefined: none, one that is far more than a project, or one that is not saved. */
export async function findCheckout(request: CheckoutRequest): Promise<Repository | undefined> {
  const { runId, git } = request
  const root = await projectRoot(request)
  const found = root === undefined ? undefined : await existingRepository({ dir: '.', folder: root, runId }, git)
  return found && atItsStart(found, request)
}

async function projectRoot({ folder, git }: CheckoutRequest): Promise<string | undefined> {
  const root = await rootOf(folder, git)
  return root === undefined || (await isTooWide(root)) ? undefined : root
}

/** A home folder, or the whole disk: not what a run works on, even when it runs there. */
export async function isTooWide(folder: string): Promise<boolean> {
  const [real, home] = await Promise.all([folder, homedir()].map((path) => realpath(path).catch(() => path)))
  return real === home || real === parse(folder).root
}

/** A folder without git, or a machine without it, is no problem. */
async function rootOf(folder: string, git: CheckoutRequest['git']): Promise<string | undefined> {
  try {
    return await gitQuestion(['rev-parse', '--show-toplevel'], { ...git, cwd: folder, timeoutMs: startTimeoutMs })
  } catch (error) {
    git.signal?.throwIfAborted()
    if (error instanceof AppError && error.code === 'git_missing') return undefined
    throw error
  }
}

/** Looks at everything that is there, so that it is known later what is new. A repository that cannot be looked at is not saved. */
export async function atItsStart(repository: Repository, request: CheckoutRequest): Promise<Repository | undefined> {
  const { git, maxBytes } = request
  if (maxBytes === undefined) return repository
  const start = await lookAt(repository, { ...request, maxBytes })
  if (!start) return undefined
  const refs = await listRefs({ ...git, cwd: repository.folder, timeoutMs: startTimeoutMs })
  return { ...repository, start: { ...start, refs } }
}

/** Above one of them, looking at all files takes longer than a person waits, and their copies more room than a run is worth. */
const maxFolderFiles = 20_000
const maxFolderBytes = 500_000_000

/**
 * The same for a folder that lies in no repository; with too much in it, only the names at its top are remembered, and what changes below them
 * is not saved. Nothing for what is not saved at all: a repository that could not be looked at, a home folder.
 */
export async function folderAtItsStart(
  request: CheckoutRequest,
  found: string[],
): Promise<{ folderStart?: CheckoutStart; found?: string[] }> {
  const { folder, maxBytes, sink, git } = request
  if (maxBytes === undefined || (await isTooWide(folder)) || (await projectRoot(request)) !== undefined) return {}
  if (await holdsTooMuch(folder, git.signal)) {
    const limits = `${maxFolderFiles} files or ${maxFolderBytes / 1_000_000} MB`
    const what = 'what the run changes in files that are there already will not be saved, only what it makes anew'
    notice(sink, 'warning', `${folder} is no git repository and holds more than ${limits}: ${what}.`)
    return { found }
  }
  const repository: Repository = { dir: '.', folder, base: null, isKept: true }
  // No limit for what is there already: it is not what will be stored.
  const asFolder = { except: [], withIgnored: false }
  const start = await lookAt(repository, { ...request, maxBytes: Number.POSITIVE_INFINITY }, asFolder)
  if (start && existsSync(join(folder, '.git'))) start.leftOut.push(folderHistory)
  return start ? { folderStart: start } : {}
}

async function holdsTooMuch(folder: string, signal: AbortSignal | undefined): Promise<boolean> {
  const folders = [folder]
  let [files, bytes] = [0, 0]
  for (let inside = folders.pop(); inside !== undefined; inside = folders.pop()) {
    signal?.throwIfAborted()
    const entries = await readdir(inside, { withFileTypes: true }).catch(() => [])
    // A repository inside is not looked into.
    if (inside !== folder && entries.some(({ name }) => name === '.git')) continue
    for (const entry of entries) {
      const path = join(inside, entry.name)
      if (entry.isDirectory() && entry.name !== '.git') folders.push(path)
      if (!entry.isFile()) continue
      files += 1
      bytes += (await lstat(path).catch(() => undefined))?.size ?? 0
      if (files > maxFolderFiles || bytes > maxFolderBytes) return true
    }
  }
  return false
}

/** undefined, and a notice, when it cannot be looked at. */
async function lookAt(
  repository: Repository,
  { git, sink, maxBytes, keepIn = tmpdir() }: CheckoutRequest & { maxBytes: number },
  asFolder?: RepositorySaveOptions['asFolder'],
): Promise<CheckoutStart | undefined> {
  const signal = git.signal ?? new AbortController().signal
  const temporary = await mkdtemp(join(keepIn, 'oz-start-'))
  const leftOut: string[] = []
  try {
    const request = {
      repositories: [],
      env: git.env,
      maxBytes,
      signal,
      commandTimeoutMs: startTimeoutMs,
      store: () => Promise.reject(new Error('nothing is stored at the start')),
    }
    const leave = (what: string) => void leftOut.push(what)
    const save = new RepositorySave(request, repository, { temporary, room: maxBytes, leave, asFolder })
    const tree = await save.atStart()
    return { tree, refs: {}, nested: save.nested, leftOut, folder: temporary }
  } catch (error) {
    await rm(temporary, { recursive: true, force: true })
    signal.throwIfAborted()
    const problem = messageOf(error)
    notice(sink, 'warning', `What the run changes in ${repository.folder} will not be saved: ${problem}`)
    return undefined
  }
}

/** At the end of the execution: what was kept to know the start by. */
export async function forgetStarts({
  repositories,
  folderStart,
}: {
  repositories: Repository[]
  folderStart?: CheckoutStart
}): Promise<void> {
  for (const start of [folderStart, ...repositories.map((repository) => repository.start)])
    if (start) await rm(start.folder, { recursive: true, force: true })
}
