import { copyFile, lstat, mkdtemp, rm, stat } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join, resolve } from 'node:path'
import { ApiError, type SavedRepository } from '@openoz/protocol'
import { diskFull, isDiskFull } from '../disk-full.ts'
import type { Repository } from './clone.ts'
import { GitFailure, type GitOptions, git, gitAnswer, gitEnvironment, gitFailure, gitQuestion } from './git.ts'
import { readStatus } from './status.ts'

/**
 * Saves what the run made of its repositories: commits as they are, and everything uncommitted and untracked as one more commit that only the
 * bundle holds. The user's index, branch and working tree are not touched: the extra commit is made with an index of our own.
 */
interface SaveRequest {
  repositories: Repository[]
  env: NodeJS.ProcessEnv
  /** For everything together; what does not fit is left out and named. */
  maxBytes: number
  signal: AbortSignal
  /** For each git command; five minutes by default. */
  commandTimeoutMs?: number
  /** Stores a file and returns its id. */
  store: (file: string, contentType: string) => Promise<string>
}

export interface SavedState {
  repositories: SavedRepository[]
  leftOut: string[]
}

/**
 * Hashing tens of gigabytes takes less. What takes longer is a program that git runs for the repository (a clean filter, Git LFS) and that
 * hangs, and it must not keep a finished run from ending.
 */
const commandTimeoutMs = 300_000
const noSpace = /No space left on device|Disk quota exceeded/i
const headRef = 'refs/oz/head'
const worktreeRef = 'refs/oz/worktree'
/** A larger untracked file is rarely work (archives, databases, images of disks), and never worth losing the rest for. */
const fractionForOneFile = 0.5

/** Never rejects for one repository's sake: what could not be saved is in `leftOut`. Rejects with the signal's reason. */
export async function saveWorkspace(request: SaveRequest): Promise<SavedState> {
  const leftOut: string[] = []
  const repositories: SavedRepository[] = []
  let room = request.maxBytes
  for (const repository of request.repositories) {
    const folder = await mkdtemp(join(tmpdir(), 'oz-save-'))
    try {
      const save = new RepositorySave(request, repository, { folder, room, leftOut })
      const saved = await save.run()
      room -= save.storedBytes
      repositories.push(saved)
    } catch (error) {
      request.signal.throwIfAborted()
      if (isDiskFull(error) || (error instanceof GitFailure && noSpace.test(error.stderr))) {
        throw await diskFull('saving the workspace', repository.folder, error)
      }
      leftOut.push(
        `${repository.dir}: it could not be saved (${error instanceof Error ? error.message : 'unknown error'})`,
      )
    } finally {
      await rm(folder, { recursive: true, force: true })
    }
  }
  return { repositories, leftOut }
}

/** One repository on its way into a bundle and a diff. */
class RepositorySave {
  storedBytes = 0
  readonly #request: SaveRequest
  readonly #repository: Repository
  readonly #room: number
  readonly #leftOut: string[]
  readonly #temporary: string
  readonly #options: GitOptions

  constructor(
    request: SaveRequest,
    repository: Repository,
    place: { folder: string; room: number; leftOut: string[] },
  ) {
    this.#request = request
    this.#repository = repository
    this.#room = place.room
    this.#leftOut = place.leftOut
    this.#temporary = place.folder
    this.#options = {
      cwd: repository.folder,
      env: gitEnvironment(request.env),
      signal: request.signal,
      timeoutMs: request.commandTimeoutMs ?? commandTimeoutMs,
    }
  }

  async run(): Promise<SavedRepository> {
    const { dir, url, base } = this.#repository
    const head = (await gitQuestion(['rev-parse', '--verify', '--quiet', 'HEAD^{commit}'], this.#options)) ?? null
    const branch = (await gitQuestion(['symbolic-ref', '--quiet', '--short', 'HEAD'], this.#options)) ?? null
    const worktree = await this.#commitWorktree(head)
    const saved: SavedRepository = {
      dir,
      url,
      branch,
      base,
      head,
      commits: head === null ? 0 : await this.#countCommits(head),
      files_changed: 0,
      insertions: 0,
      deletions: 0,
      uncommitted: worktree !== head,
      bundle_blob_id: null,
      diff_blob_id: null,
    }
    if (worktree === null || (worktree === base && head === base)) return saved
    const from = base ?? (await gitAnswer(['hash-object', '-t', 'tree', '/dev/null'], this.#options))
    Object.assign(saved, await this.#statistics(from, worktree))
    saved.bundle_blob_id = await this.#storeBundle(head, worktree)
    saved.diff_blob_id = await this.#storeDiff(from, worktree)
    return saved
  }

  /** A commit on top of `head` with everything that no commit holds; `head` itself when there is nothing. */
  async #commitWorktree(head: string | null): Promise<string | null> {
    const index = join(this.#temporary, 'index')
    const own = await gitAnswer(['rev-parse', '--git-path', 'index'], this.#options)
    // With the file times that git noted in it, so that only what changed is read.
    await copyFile(resolve(this.#repository.folder, own), index).catch(() => {})
    const options = { ...this.#options, env: { ...this.#options.env, GIT_INDEX_FILE: index } }
    const excluded = await this.#findLeftOut()
    const pathspec = ['.', ...excluded.map((path) => `:(exclude,literal,top)${path}`)].join('\0')
    const adding = ['-c', 'advice.addEmbeddedRepo=false', 'add', '--all', '--ignore-errors', '--pathspec-from-file=-']
    const added = await git([...adding, '--pathspec-file-nul'], { ...options, input: `${pathspec}\0` })
    const { exitCode, stderr, hasTimedOut } = added
    if (noSpace.test(stderr) || hasTimedOut) throw gitFailure(adding, added, options)
    if (exitCode !== 0) this.#leave(`some files could not be read (${stderr.trim().split('\n').at(-1)})`)
    const tree = await gitAnswer(['write-tree'], options)
    const headTree = head === null ? undefined : await gitAnswer(['rev-parse', `${head}^{tree}`], options)
    const emptyTree = await gitAnswer(['hash-object', '-t', 'tree', '/dev/null'], options)
    if (tree === (headTree ?? emptyTree)) return head
    const parent = head === null ? [] : ['-p', head]
    const author = {
      GIT_AUTHOR_NAME: 'openoz',
      GIT_AUTHOR_EMAIL: 'agent@openoz.invalid',
      GIT_COMMITTER_NAME: 'openoz',
      GIT_COMMITTER_EMAIL: 'agent@openoz.invalid',
    }
    const message = 'Work that was not committed when the run ended'
    return gitAnswer(['-c', 'commit.gpgSign=false', 'commit-tree', tree, ...parent, '-m', message], {
      ...options,
      env: { ...options.env, ...author },
    })
  }

  /** Untracked things that are too large, and repositories inside this one, which git would save as a mere reference. */
  async #findLeftOut(): Promise<string[]> {
    const { untracked, nested, dirtySubmodules } = await readStatus(this.#options)
    for (const path of nested) this.#leave(`${path}: a repository of its own`)
    for (const path of dirtySubmodules) this.#leave(`${path}: changes inside a submodule`)
    const sized = await Promise.all(untracked.map(async (path) => ({ path, bytes: await this.#sizeOf(path) })))
    const excluded = [...nested]
    let bytes = sized.reduce((sum, file) => sum + file.bytes, 0)
    for (const file of sized.sort((a, b) => b.bytes - a.bytes)) {
      if (bytes <= this.#room && file.bytes <= this.#room * fractionForOneFile) break
      this.#leave(`${file.path}: an untracked file of ${megabytes(file.bytes)}`)
      excluded.push(file.path)
      bytes -= file.bytes
    }
    return excluded
  }

  async #sizeOf(path: string): Promise<number> {
    const found = await lstat(join(this.#repository.folder, path)).catch(() => undefined)
    return found?.isFile() ? found.size : 0
  }

  async #countCommits(head: string): Promise<number> {
    const { base } = this.#repository
    const range = base === null ? head : `${base}..${head}`
    return Number((await gitQuestion(['rev-list', '--count', range], this.#options)) ?? 0)
  }

  async #statistics(from: string, to: string) {
    const text = await gitAnswer(['diff', '--no-ext-diff', '--no-textconv', '--shortstat', from, to], this.#options)
    const count = (pattern: RegExp) => Number(pattern.exec(text)?.[1] ?? 0)
    return {
      files_changed: count(/(\d+) files? changed/),
      insertions: count(/(\d+) insertions?/),
      deletions: count(/(\d+) deletions?/),
    }
  }

  async #storeBundle(head: string | null, worktree: string): Promise<string | null> {
    const { base } = this.#repository
    const file = join(this.#temporary, 'bundle')
    const refs = head === null ? [worktreeRef] : [headRef, worktreeRef]
    if (head !== null) await gitAnswer(['update-ref', headRef, head], this.#options)
    await gitAnswer(['update-ref', worktreeRef, worktree], this.#options)
    try {
      const range = base === null ? refs : [...refs, `^${base}`]
      // A branch that was only moved back has nothing new to bundle: `head` says where it stands.
      const isEmpty = (await gitQuestion(['rev-list', '--max-count=1', ...range], this.#options)) === ''
      if (isEmpty) return null
      await gitAnswer(['bundle', 'create', '--quiet', file, ...range], this.#options)
    } finally {
      for (const ref of [headRef, worktreeRef]) await gitQuestion(['update-ref', '-d', ref], this.#options)
    }
    return this.#store(file, 'application/x-git-bundle', 'its commits and changes')
  }

  async #storeDiff(from: string, to: string): Promise<string | null> {
    const file = join(this.#temporary, 'diff')
    const shape = ['--binary', '--full-index', '--no-color', '--no-ext-diff', '--no-textconv', '--find-renames']
    await gitAnswer(
      ['diff', ...shape, '--src-prefix=a/', '--dst-prefix=b/', `--output=${file}`, from, to],
      this.#options,
    )
    return this.#store(file, 'text/x-diff', 'its diff')
  }

  async #store(file: string, contentType: string, what: string): Promise<string | null> {
    const { size } = await stat(file)
    if (size > this.#room - this.storedBytes) {
      this.#leave(
        `${what} (${megabytes(size)}; ${megabytes(this.#request.maxBytes)} is the limit of a saved workspace)`,
      )
      return null
    }
    try {
      const blobId = await this.#request.store(file, contentType)
      this.storedBytes += size
      return blobId
    } catch (error) {
      if (!(error instanceof ApiError)) throw error
      this.#leave(`${what} (the control plane refused it: ${error.problem.detail})`)
      return null
    }
  }

  #leave(what: string): void {
    const { dir } = this.#repository
    if (this.#leftOut.length < 200) this.#leftOut.push(dir === '.' ? what : `${dir}/${what}`)
  }
}

function megabytes(bytes: number): string {
  return bytes < 100_000 ? `${bytes} bytes` : `${(bytes / 1_000_000).toFixed(1)} MB`
}
