import { mkdtemp, rm } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import type { SavedRepository } from '@openoz/protocol'
import type { Repository } from './clone.ts'
import { type GitOptions, gitAnswer, gitEnvironment, gitQuestion } from './git.ts'

interface RestoreRequest {
  saved: SavedRepository[]
  repositories: Repository[]
  env: NodeJS.ProcessEnv
  /** For each git command: filters of the repository run in them, and Git LFS downloads. */
  timeoutMs: number
  signal: AbortSignal
  download: (blobId: string, file: string) => Promise<void>
}

interface Restored {
  /** With the base that the run itself began from, so that the next save holds everything again. */
  repositories: Repository[]
  /** One sentence per repository, for the model and for people. */
  notes: string[]
}

/** Puts the work of an earlier execution back into fresh clones. Says in `notes` what came back and what did not; rejects only when stopped. */
export async function restoreWorkspace(request: RestoreRequest): Promise<Restored> {
  const notes: string[] = []
  const repositories: Repository[] = []
  for (const repository of request.repositories) {
    const saved = request.saved.find(({ dir }) => dir === repository.dir)
    if (repository.isKept) {
      // Newer than anything that was saved of it.
      notes.push(`${repository.dir}: its folder is still there, as it was left.`)
      repositories.push(repository)
      continue
    }
    if (!saved) {
      notes.push(`${repository.dir}: nothing was saved of it; it is as freshly cloned.`)
      repositories.push(repository)
      continue
    }
    try {
      await restoreRepository(request, repository, saved)
      repositories.push({ ...repository, base: saved.base })
      const uncommitted = saved.uncommitted ? ', with what was not committed' : ''
      notes.push(`${repository.dir}: back at ${describeHead(saved)}${uncommitted}.`)
    } catch (error) {
      request.signal.throwIfAborted()
      repositories.push(repository)
      const problem = error instanceof Error ? error.message : String(error)
      notes.push(`${repository.dir}: its saved work could not be put back (${problem}); it is as freshly cloned.`)
    }
  }
  for (const { dir } of request.saved) {
    if (!request.repositories.some((repository) => repository.dir === dir)) {
      notes.push(`${dir}: it was saved, but is not among the run's repositories any more.`)
    }
  }
  return { repositories, notes }
}

function describeHead({ branch, head, commits }: SavedRepository): string {
  const where = branch === null ? `commit ${head?.slice(0, 12)}` : `branch ${branch}`
  return commits === 0 ? where : `${where} with ${commits} new ${commits === 1 ? 'commit' : 'commits'}`
}

async function restoreRepository(
  request: RestoreRequest,
  repository: Repository,
  saved: SavedRepository,
): Promise<void> {
  const { timeoutMs, signal } = request
  const options = { cwd: repository.folder, env: gitEnvironment(request.env), signal, timeoutMs }
  const { base, head, branch } = saved
  // The remote may have moved on so far that a clone does not bring it any more.
  if (base !== null && !(await hasCommit(base, options))) await gitAnswer(['fetch', '--quiet', 'origin', base], options)

  if (saved.bundle_blob_id === null && saved.uncommitted) throw new Error('it was too large to be saved')
  let worktree = head
  if (saved.bundle_blob_id !== null) {
    const temporary = await mkdtemp(join(tmpdir(), 'oz-restore-'))
    try {
      const file = join(temporary, 'bundle')
      await request.download(saved.bundle_blob_id, file)
      await gitAnswer(['fetch', '--quiet', '--no-tags', file, '+refs/oz/*:refs/oz/saved/*'], options)
    } finally {
      await rm(temporary, { recursive: true, force: true })
    }
    const savedWorktree = await gitQuestion(['rev-parse', '--verify', '--quiet', 'refs/oz/saved/worktree'], options)
    worktree = savedWorktree ?? head
  }
  if (worktree === null) return
  if (head === null) await gitAnswer(['checkout', '--quiet', '--force', '--detach', worktree], options)
  else
    await gitAnswer(['checkout', '--quiet', '--force', ...(branch ? ['-B', branch] : ['--detach']), worktree], options)
  if (head === null && branch !== null) {
    await gitAnswer(['symbolic-ref', 'HEAD', `refs/heads/${branch}`], options)
    await gitAnswer(['rm', '-r', '--quiet', '--cached', '.'], options)
  } else if (head !== null && head !== worktree) {
    // Leaves the files as they are, so that what was uncommitted is so again.
    await gitAnswer(['reset', '--quiet', '--mixed', head], options)
  }
  for (const ref of ['refs/oz/saved/head', 'refs/oz/saved/worktree'])
    await gitQuestion(['update-ref', '-d', ref], options)
}

async function hasCommit(commit: string, options: GitOptions): Promise<boolean> {
  return (await gitQuestion(['cat-file', '-e', `${commit}^{commit}`], options)) !== undefined
}
