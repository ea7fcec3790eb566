import { existsSync } from 'node:fs'
import { mkdir, mkdtemp, readFile, rm } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { basename, dirname, isAbsolute, join, normalize } from 'node:path'
import { isDiskFull } from '@openoz/machine'
import { AppError, messageOf, type SavedRepository } from '@openoz/protocol'
import { diskFull } from '../disk-full.ts'
import { type Repository, unrestoredSetting } from './clone.ts'
import { type GitOptions, gitAnswer, gitEnvironment, gitQuestion, saysNoSpace, withoutHooks } from './git.ts'

interface RestoreRequest {
  saved: SavedRepository[]
  repositories: Repository[]
  /** The workspace. Without it only the given repositories are restored. */
  folder?: string
  /** Names that were in it before; see `Workspace`. */
  found?: string[]
  env: NodeJS.ProcessEnv
  /** For each git command: filters of the repository run in them, and Git LFS downloads. */
  timeoutMs: number
  signal: AbortSignal
  download: (blobId: string, file: string) => Promise<void>
}

interface Restored {
  /** With the base that the run itself began from, so that the next save holds everything again. */
  repositories: Repository[]
  /** Without what the run had made itself, which lies there again or, in a folder that outlives its executions, still. */
  found: string[]
  /** One sentence per repository, for the model and for people. */
  notes: string[]
}

/** There is nothing to put back: at its time it was too large. */
class NothingSaved extends Error {}

/**
 * Puts the work of an earlier execution back: into fresh clones, and what the run had made itself (repositories, files outside of any) into
 * the workspace. Says in `notes` what came back and what was never saved.
 *
 * What is saved and cannot be put back ends the attempt, because whoever worked on without it would save less in its place. Rejects with
 * `workspace_download_failed`, `workspace_restore_failed`, `disk_full`, or the signal's reason. It can be called again on what it left.
 */
export async function restoreWorkspace(request: RestoreRequest): Promise<Restored> {
  const notes: string[] = []
  const repositories: Repository[] = []
  const own = new Set<string>()
  const attempt = async (name: string, otherwise: string, work: () => Promise<string>) => {
    try {
      notes.push(`${name}: ${await work()}.`)
      return true
    } catch (error) {
      request.signal.throwIfAborted()
      if (!(error instanceof NothingSaved)) throw await restoreFailure(error, { what: name, folder: request.folder })
      notes.push(`${name}: its saved work could not be put back (${error.message}); ${otherwise}.`)
      return false
    }
  }
  for (const repository of request.repositories) {
    const { dir } = repository
    const saved = request.saved.find((one) => one.dir === dir)
    repositories.push(repository)
    if (repository.isKept) {
      // Newer than anything that was saved of it.
      notes.push(`${dir}: its folder is still there, as it was left.`)
    } else if (!saved) {
      notes.push(`${dir}: nothing was saved of it; it is as freshly cloned.`)
      await markRestored(request, repository)
    } else {
      const work = () => restoreClone(request, repository, saved)
      const isBack = await attempt(dir, 'it is as freshly cloned', work)
      const restored = isBack && !isFolder(saved) ? { ...repository, base: saved.base } : repository
      repositories.splice(-1, 1, restored)
      await markRestored(request, restored)
    }
  }
  for (const saved of request.saved) {
    const { dir } = saved
    if (request.repositories.some((repository) => repository.dir === dir)) continue
    if (request.folder === undefined || !isInside(dir)) {
      notes.push(`${dir}: it was saved, but is not among the run's repositories any more.`)
      continue
    }
    const folder = join(request.folder, dir)
    const name = dir === '.' && isFolder(saved) ? 'Files outside of repositories' : dir
    await attempt(name, 'it is missing', () => restoreFound(request, { folder, saved, own }))
  }
  return { repositories, found: (request.found ?? []).filter((name) => !own.has(name)), notes }
}

/** A later look at the folder finds what the run has there, and where it began. */
async function markRestored(request: RestoreRequest, { folder, base }: Repository): Promise<void> {
  const options = optionsFor(request, folder)
  await gitAnswer(['config', 'openoz.base', base ?? ''], options)
  await gitQuestion(['config', '--unset-all', unrestoredSetting], options)
}

async function restoreFailure(error: unknown, { what, folder = '.' }: { what: string; folder?: string }) {
  if (saysNoSpace(error)) {
    return diskFull('putting the workspace back', folder, error)
  }
  if (error instanceof AppError) return error
  const problem = messageOf(error)
  return new AppError('workspace_restore_failed', { what, problem }, { cause: error })
}

/** Saved from a folder without history; see `RepositorySaveOptions`. */
function isFolder({ branch, head, base }: SavedRepository): boolean {
  return branch === null && head === null && base === null
}

/** What is saved was said by an agent. */
function isInside(dir: string): boolean {
  return (
    !isAbsolute(dir) && normalize(dir) === dir && !dir.split('/').includes('..') && !dir.split('/').includes('.git')
  )
}

async function restoreClone(request: RestoreRequest, repository: Repository, saved: SavedRepository): Promise<string> {
  const options = optionsFor(request, repository.folder)
  if (!isFolder(saved)) return restoreRepository(request, options, saved)
  // Only its files were saved: they are a change of what the clone began from.
  const branch = (await gitQuestion(['symbolic-ref', '--quiet', '--short', 'HEAD'], options)) ?? null
  await restoreRepository(request, options, { ...saved, branch, head: repository.base, base: repository.base })
  return 'its files are as they were, without the commits that were made of them'
}

async function restoreFound(
  request: RestoreRequest,
  { folder, saved, own }: { folder: string; saved: SavedRepository; own: Set<string> },
): Promise<string> {
  await mkdir(folder, { recursive: true })
  const [top = ''] = saved.dir.split('/')
  if (saved.dir !== '.') own.add(top)
  if (isFolder(saved)) {
    const names = await restoreFiles(request, folder, saved)
    if (saved.dir === '.') for (const name of names) own.add(name)
    return 'they are back'
  }
  if (saved.dir === '.') own.add('.git')
  if (existsSync(join(folder, '.git'))) return 'its folder is still there, as it was left'
  const options = optionsFor(request, folder)
  await gitAnswer(['init', '--quiet', ...(saved.branch === null ? [] : [`--initial-branch=${saved.branch}`])], options)
  try {
    if (saved.url !== undefined) await gitAnswer(['remote', 'add', 'origin', saved.url], options)
    return await restoreRepository(request, options, saved)
  } catch (error) {
    await rm(join(folder, '.git'), { recursive: true, force: true })
    throw error
  }
}

/** Into a folder that is no repository, and does not become one. Answers the names that it put there. */
async function restoreFiles(request: RestoreRequest, folder: string, saved: SavedRepository): Promise<string[]> {
  const temporary = await mkdtemp(join(tmpdir(), 'oz-restore-'))
  try {
    const options = optionsFor(request, folder)
    const env = { ...options.env, GIT_DIR: join(temporary, 'git'), GIT_WORK_TREE: folder }
    await gitAnswer(['init', '--quiet'], { ...options, env })
    await fetchSaved(request, { ...options, env }, saved)
    await gitAnswer(['read-tree', '--reset', 'refs/oz/saved/worktree'], { ...options, env })
    await gitAnswer(['checkout-index', '--all', '--force'], { ...options, env })
    await completeBareRepositories('refs/oz/saved/worktree', { ...options, env, cwd: folder })
    const names = await gitAnswer(['ls-tree', '-z', '--name-only', '--full-tree', 'refs/oz/saved/worktree'], {
      ...options,
      env,
    })
    return names.split('\0').filter((name) => name !== '')
  } finally {
    await rm(temporary, { recursive: true, force: true })
  }
}

function optionsFor({ env, signal, timeoutMs }: RestoreRequest, cwd: string): GitOptions {
  return { cwd, env: withoutHooks(gitEnvironment(env)), signal, timeoutMs }
}

async function restoreRepository(
  request: RestoreRequest,
  options: GitOptions,
  saved: SavedRepository,
): Promise<string> {
  const { base, head, branch } = saved
  // The remote may have moved on so far that a clone does not bring it any more.
  if (base !== null && !(await hasCommit(base, options))) await gitAnswer(['fetch', '--quiet', 'origin', base], options)

  if (saved.bundle_blob_id === null && (saved.uncommitted || (head !== null && !(await hasCommit(head, options))))) {
    throw new NothingSaved('it was too large to be saved')
  }
  if (saved.bundle_blob_id !== null) await fetchSaved(request, options, saved)
  const worktree = (await commitOf('refs/oz/saved/worktree', options)) ?? head
  try {
    if (worktree !== null) await checkOut(options, { head, branch, worktree })
    if (worktree !== null && worktree !== head) await completeBareRepositories(worktree, options)
    await restoreOtherRefs(options, branch)
  } finally {
    await forgetSaved(options)
  }
  const lost = saved.uncommitted && worktree === head ? '; what was not committed was too large to be saved' : ''
  const uncommitted = saved.uncommitted && worktree !== head ? ', with what was not committed' : ''
  return `back at ${describeHead(saved)}${uncommitted}${lost}`
}

async function fetchSaved(request: RestoreRequest, options: GitOptions, saved: SavedRepository): Promise<void> {
  if (saved.bundle_blob_id === null) throw new NothingSaved('it was too large to be saved')
  const temporary = await mkdtemp(join(tmpdir(), 'oz-restore-'))
  try {
    const file = join(temporary, 'bundle')
    await download(request, saved, file)
    const refs = ['oz', 'heads', 'tags'].map(
      (kind) => `+refs/${kind}/*:refs/oz/saved/${kind === 'oz' ? '' : `${kind}/`}*`,
    )
    await gitAnswer(['fetch', '--quiet', '--no-tags', '--no-recurse-submodules', file, ...refs], options)
  } finally {
    await rm(temporary, { recursive: true, force: true })
  }
}

async function download(
  request: RestoreRequest,
  { dir, bundle_blob_id: id }: SavedRepository,
  file: string,
): Promise<void> {
  try {
    await request.download(id ?? '', file)
  } catch (error) {
    request.signal.throwIfAborted()
    if (isDiskFull(error)) throw error
    const problem = messageOf(error)
    throw new AppError('workspace_download_failed', { what: dir, problem }, { cause: error })
  }
}

async function checkOut(
  options: GitOptions,
  { head, branch, worktree }: { head: string | null; branch: string | null; worktree: string },
): Promise<void> {
  const target = head === null || branch === null ? ['--detach'] : ['-B', branch]
  await gitAnswer(['checkout', '--quiet', '--force', ...target, worktree], options)
  if (head === null && branch !== null) {
    await gitAnswer(['symbolic-ref', 'HEAD', `refs/heads/${branch}`], options)
    await gitAnswer(['rm', '-r', '--quiet', '--cached', '.'], options)
  } else if (head !== null && head !== worktree) {
    // Leaves the files as they are, so that what was uncommitted is so again.
    await gitAnswer(['reset', '--quiet', '--mixed', head], options)
  }
}

/** Bare repositories are saved as files, and without empty folders: but without these two, also empty ones, git does not know them again. */
async function completeBareRepositories(tree: string, options: GitOptions): Promise<void> {
  const names = await gitAnswer(['ls-tree', '-r', '-z', '--name-only', '--full-tree', tree], options)
  for (const name of names.split('\0')) {
    if (basename(name) !== 'HEAD') continue
    const folder = join(options.cwd, dirname(name))
    const config = await readFile(join(folder, 'config'), 'utf8').catch(() => '')
    if (!/^\s*bare = true$/m.test(config)) continue
    for (const part of ['objects', 'refs']) await mkdir(join(folder, part), { recursive: true })
  }
}

/** Branches and tags that the run made beside the one that it was on, and what it had stashed last. */
async function restoreOtherRefs(options: GitOptions, current: string | null): Promise<void> {
  const prefix = 'refs/oz/saved/'
  for (const ref of await savedRefs(options)) {
    const name = ref.slice(prefix.length)
    if (name === `heads/${current}`) continue
    if (/^(heads|tags)\//.test(name)) await gitAnswer(['update-ref', `refs/${name}`, ref], options)
    if (name === 'stash') await gitAnswer(['stash', 'store', '--message', 'stashed before', ref], options)
  }
}

async function forgetSaved(options: GitOptions): Promise<void> {
  for (const ref of await savedRefs(options)) await gitQuestion(['update-ref', '-d', ref], options)
}

async function savedRefs(options: GitOptions): Promise<string[]> {
  const list = (await gitQuestion(['for-each-ref', '--format=%(refname)', 'refs/oz/saved'], options)) ?? ''
  return list.split('\n').filter((ref) => ref !== '')
}

function describeHead({ branch, head, commits }: SavedRepository): string {
  const where = branch === null ? `commit ${head?.slice(0, 12)}` : `branch ${branch}`
  return commits === 0 ? where : `${where} with ${commits} new ${commits === 1 ? 'commit' : 'commits'}`
}

function commitOf(ref: string, options: GitOptions): Promise<string | undefined> {
  return gitQuestion(['rev-parse', '--verify', '--quiet', `${ref}^{commit}`], options)
}

async function hasCommit(commit: string, options: GitOptions): Promise<boolean> {
  return (await gitQuestion(['cat-file', '-e', `${commit}^{commit}`], options)) !== undefined
}
