import { mkdtemp, realpath, rm } from 'node:fs/promises'
import { homedir, tmpdir } from 'node:os'
import { join, parse } from 'node:path'
import { AppError } from '@openoz/protocol'
import { type EventSink, notice } from '../event-sink.ts'
import type { Repository } from './clone.ts'
import { existingRepository } from './clone.ts'
import { type GitOptions, gitQuestion } from './git.ts'
import { listRefs } from './own-changes.ts'
import { RepositorySave } from './repository-save.ts'

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
}

/** For each git command at the start. A person waits. */
const startTimeoutMs = 60_000

/** The repository that the folder lies in, wherever in it. undefined: none, or one that is far more than a project. */
export async function findCheckout(request: CheckoutRequest): Promise<Repository | undefined> {
  const { folder, runId, git } = request
  const root = await rootOf(folder, git)
  if (root === undefined || (await isTooWide(root))) return undefined
  const found = await existingRepository({ dir: '.', folder: root, runId }, git)
  return found && atItsStart(found, request)
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
export async function atItsStart(
  repository: Repository,
  { git, sink, maxBytes }: CheckoutRequest,
): Promise<Repository | undefined> {
  if (maxBytes === undefined) return repository
  const signal = git.signal ?? new AbortController().signal
  const temporary = await mkdtemp(join(tmpdir(), 'oz-start-'))
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
    const save = new RepositorySave(request, repository, { temporary, room: maxBytes, leave })
    const tree = await save.tree()
    const refs = await listRefs({ ...git, cwd: repository.folder, timeoutMs: startTimeoutMs })
    return { ...repository, start: { tree, refs, nested: save.nested, leftOut } }
  } catch (error) {
    signal.throwIfAborted()
    const problem = error instanceof Error ? error.message : String(error)
    notice(sink, 'warning', `What the run changes in ${repository.folder} will not be saved: ${problem}`)
    return undefined
  } finally {
    await rm(temporary, { recursive: true, force: true })
  }
}
