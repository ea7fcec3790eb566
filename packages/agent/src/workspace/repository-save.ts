import { existsSync } from 'node:fs'
import { lstat, stat } from 'node:fs/promises'
import { join, resolve } from 'node:path'
import { ApiError, type SavedRepository } from '@openoz/protocol'
import type { Repository } from './clone.ts'
import {
  type GitOptions,
  git,
  gitAnswer,
  gitEnvironment,
  gitFailure,
  gitQuestion,
  isNoSpace,
  withoutHooks,
  withSetting,
} from './git.ts'
import { findOtherRefs, type NamedRef, usersTips } from './other-refs.ts'
import { copyIndex, ownRefs, withChangesOnly, withOwnObjects, withoutOwnObjects } from './own-changes.ts'
import type { SaveRequest } from './save-request.ts'
import { chooseLeftOut, type LeftOut } from './size-limit.ts'
import { operationsUnderWay, readStatus } from './status.ts'

/**
 * One repository on its way into a bundle and a diff: its commits as they are, other branches, tags and the last stash that nobody else has, and
 * everything uncommitted and untracked as one more commit that only the bundle holds. The user's index, branch and working tree are not
 * touched: the extra commit is made with an index of our own.
 *
 * A folder that is no repository is saved in the same way, with a git folder of its own that lies elsewhere (`asFolder`).
 */
export interface RepositorySaveOptions {
  /** For the files that are made on the way. */
  temporary: string
  /** Bytes that may be stored. */
  room: number
  leave: (what: string) => void
  asFolder?: {
    /** Only these, relative to the folder, and nothing inside of `except`. All of it when absent. */
    roots?: string[]
    except: string[]
    /** Also what the folder's own ignore rules cover. */
    withIgnored: boolean
  }
}

/** What a bundle holds: where the run stands, with what was not committed, and the other refs with where they stand. */
interface BundledRefs {
  head: string | null
  worktree: string | null
  others: NamedRef[]
}

const headRef = 'refs/oz/head'
const worktreeRef = 'refs/oz/worktree'
const stashRef = 'refs/oz/stash'
const author = {
  GIT_AUTHOR_NAME: 'openoz',
  GIT_AUTHOR_EMAIL: 'agent@openoz.invalid',
  GIT_COMMITTER_NAME: 'openoz',
  GIT_COMMITTER_EMAIL: 'agent@openoz.invalid',
}

export class RepositorySave {
  storedBytes = 0
  /** Repositories that were found inside of it and have to be saved on their own; relative to it. */
  readonly nested: string[] = []
  readonly #request: SaveRequest
  readonly #repository: Repository
  readonly #place: RepositorySaveOptions
  #options: GitOptions
  /** In a person's checkout. */
  #hasStashed = false
  #base: string | null

  constructor(request: SaveRequest, repository: Repository, place: RepositorySaveOptions) {
    this.#request = request
    this.#repository = repository
    this.#base = repository.base
    this.#place = place
    const env = gitEnvironment(request.env)
    const elsewhere = { GIT_DIR: join(place.temporary, 'git'), GIT_WORK_TREE: repository.folder }
    this.#options = {
      cwd: repository.folder,
      // The index that we write is one file of ours; the shared half of a split one would lie in the person's repository.
      env: withSetting(withoutHooks(place.asFolder ? { ...env, ...elsewhere } : env), 'core.splitIndex', 'false'),
      signal: request.signal,
      timeoutMs: request.commandTimeoutMs,
    }
  }

  /** What a person's folder holds before the run. Its objects and its index stay in the temporary folder. */
  async atStart(): Promise<string> {
    await this.#begin({ isApart: true })
    const tree = await this.#tree()
    await this.#nameOperations()
    return tree
  }

  async #begin({ isApart }: { isApart: boolean }): Promise<void> {
    if (this.#place.asFolder) await this.#ask('init', '--quiet')
    if (!isApart) return
    const { start } = this.#repository
    const upon = start && join(start.folder, 'objects')
    this.#options = await withOwnObjects({ objects: join(this.#place.temporary, 'objects'), upon }, this.#options)
  }

  async run(): Promise<SavedRepository> {
    const { asFolder } = this.#place
    await this.#begin({ isApart: this.#repository.start !== undefined })
    const head = (await this.#question('rev-parse', '--verify', '--quiet', 'HEAD^{commit}')) ?? null
    const branch = asFolder ? null : ((await this.#question('symbolic-ref', '--quiet', '--short', 'HEAD')) ?? null)
    // Of a repository that was made anew in the place of the one that was cloned, everything is new.
    if (this.#base !== null && !(await this.#hasCommit(this.#base))) this.#base = null
    const base = this.#base
    const { dir, url, start } = this.#repository
    const tree = await this.#tree()
    const worktree = await this.#commit(start ? await this.#ownTree(start.tree, tree, head) : tree, head)
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
    await this.#nameOperations()
    const others = asFolder ? [] : await this.#otherRefs(branch)
    const isAsFound = start ? tree === start.tree && head === base : worktree === base && head === base
    if (others.length === 0 && (isAsFound || (worktree === null && !start))) return saved
    const tip = worktree ?? base
    if (tip === null && !start) return saved
    // What the run stashed away looks deleted: a diff from the start would hold all of it.
    const isFromStart = start && (tip === null || !this.#hasStashed)
    const [from, to] = isFromStart ? [start.tree, tree] : [base ?? (await this.#emptyTree()), String(tip)]
    Object.assign(saved, await this.#statistics(from, to))
    saved.bundle_blob_id = await this.#storeBundle({ head, worktree, others })
    // Of a cloned repository that is none any more it would say that every file is new.
    const hasDiff = start ? from !== to : tip !== base
    if (hasDiff && !(asFolder && this.#repository.base !== null)) saved.diff_blob_id = await this.#storeDiff(from, to)
    return saved
  }

  /** On top of `head`, what the run changed of a person's checkout: what was uncommitted there before stays out. */
  async #ownTree(from: string, to: string, head: string | null): Promise<string> {
    const onto = head === null ? await this.#emptyTree() : `${head}^{tree}`
    const index = join(this.#place.temporary, 'own-index')
    return withChangesOnly({ from, to, onto, index }, this.#options)
  }

  /** A commit on top of `head`; `head` itself when it holds the tree. */
  async #commit(tree: string, head: string | null): Promise<string | null> {
    const headTree = head === null ? await this.#emptyTree() : await this.#ask('rev-parse', `${head}^{tree}`)
    if (tree === headTree) return head
    const parent = head === null ? [] : ['-p', head]
    const message = 'Work that was not committed when the run ended'
    return gitAnswer(['-c', 'commit.gpgSign=false', 'commit-tree', tree, ...parent, '-m', message], {
      ...this.#options,
      env: { ...this.#options.env, ...author },
    })
  }

  /** Everything that is there now, as a tree. */
  async #tree(): Promise<string> {
    const { asFolder } = this.#place
    const index = join(this.#place.temporary, 'index')
    const { folder, start } = this.#repository
    const own = resolve(folder, await this.#ask('rev-parse', '--git-path', 'index'))
    // With the file times that git noted in it, so that only what changed is read.
    await copyIndex(asFolder && start ? join(start.folder, 'index') : own, index).catch(() => {})
    const options = { ...this.#options, env: { ...this.#options.env, GIT_INDEX_FILE: index } }
    const { excluded, tracked } = asFolder ? await this.#sizeFolder(asFolder, options) : await this.#sizeRepository()
    if (tracked.length > 0) await this.#unstage(tracked, options)
    const roots = asFolder?.roots?.map((path) => `:(literal,top)${path}`) ?? ['.']
    const pathspec = [...roots, ...excluded.map((path) => `:(exclude,literal,top)${path}`), ''].join('\0')
    // New objects go into one pack instead of a file each: of 100,000 new files that halves the time.
    const packing = ['-c', 'core.bigFileThreshold=1']
    const adding = [...packing, '-c', 'advice.addEmbeddedRepo=false', 'add', '--all', '--ignore-errors']
    if (asFolder?.withIgnored) adding.push('--force')
    const args = [...adding, '--pathspec-from-file=-', '--pathspec-file-nul']
    const added = await git(args, { ...options, input: pathspec })
    const { exitCode, stderr, hasTimedOut } = added
    if (isNoSpace(stderr) || hasTimedOut) throw gitFailure(args, added, options)
    // Past the files that it cannot read git goes on; what is fatal leaves all of them out.
    const what = exitCode === 1 ? 'some files could not be read' : 'what was not committed could not be saved'
    if (exitCode !== 0) this.#leave(`${what} (${stderr.trim().split('\n').at(-1)})`)
    return gitAnswer(['write-tree'], options)
  }

  /** Back to what the last commit says, in our own index. */
  async #unstage(paths: string[], options: GitOptions): Promise<void> {
    const input = paths.map((path) => `:(literal,top)${path}\0`).join('')
    await git(['reset', '--quiet', '--pathspec-from-file=-', '--pathspec-file-nul'], { ...options, input })
  }

  async #sizeRepository(): Promise<{ excluded: string[]; tracked: string[] }> {
    const { untracked, changed, nested, changedSubmodules } = await readStatus(this.#options)
    const submodules = await this.#submodulesWithWork(changedSubmodules)
    this.nested.push(...nested, ...submodules)
    const left = await this.#leaveWhatIsTooLarge([...untracked, ...changed])
    const isLeft = (path: string) => left.some((one) => path === one.path || path.startsWith(`${one.path}/`))
    return { excluded: [...nested, ...left.map(({ path }) => path)], tracked: changed.filter(isLeft) }
  }

  /** Of what is new, or changed since the start. */
  async #sizeFolder(
    { roots, except, withIgnored }: NonNullable<RepositorySaveOptions['asFolder']>,
    options: GitOptions,
  ) {
    const listing = ['ls-files', '-z', '--others', '--modified', ...(withIgnored ? [] : ['--exclude-standard'])]
    const pathspec = roots?.map((path) => `:(literal,top)${path}`) ?? []
    const listed = await gitAnswer([...listing, '--', ...pathspec], options)
    const found = listed.split('\0').filter((path) => path !== '')
    const isOther = (path: string) => except.some((other) => path === other || path.startsWith(`${other}/`))
    const nested = found.filter((path) => path.endsWith('/')).map((path) => path.slice(0, -1))
    this.nested.push(...nested.filter((path) => !isOther(path)))
    const left = await this.#leaveWhatIsTooLarge(found.filter((path) => !path.endsWith('/') && !isOther(path)))
    const inside = except.filter((path) => !path.startsWith('../'))
    return { excluded: [...inside, ...nested, ...left.map(({ path }) => path)], tracked: [] }
  }

  async #leaveWhatIsTooLarge(paths: string[]): Promise<LeftOut[]> {
    const files: { path: string; bytes: number }[] = []
    for (let at = 0; at < paths.length; at += 1_000) {
      const sizing = paths.slice(at, at + 1_000).map(async (path) => ({ path, bytes: await this.#sizeOf(path) }))
      files.push(...(await Promise.all(sizing)))
    }
    const left = chooseLeftOut(files, this.#place.room)
    for (const { path, bytes, files: count } of left) {
      const what = count === 0 ? 'a file' : `${count} files`
      this.#leave(`${path}: ${what} of ${megabytes(bytes)}, too large to be saved`)
    }
    return left
  }

  async #sizeOf(path: string): Promise<number> {
    const found = await lstat(join(this.#repository.folder, path)).catch(() => undefined)
    return found?.isFile() ? found.size : 0
  }

  /** Those with another commit or changed files, and those with commits that their own remote does not have. */
  async #submodulesWithWork(changed: string[]): Promise<string[]> {
    const { folder } = this.#repository
    const found = new Set(changed.filter((path) => existsSync(join(folder, path, '.git'))))
    if (!existsSync(join(folder, '.gitmodules'))) return [...found]
    const staged = (await this.#ask('ls-files', '-z', '--stage')).split('\0')
    for (const entry of staged) {
      const [, path] = /^160000 .*?\t(.*)$/s.exec(entry) ?? []
      if (path === undefined || found.has(path) || !existsSync(join(folder, path, '.git'))) continue
      const inside = { ...this.#options, env: withoutOwnObjects(this.#options.env), cwd: join(folder, path) }
      const unknown = await gitQuestion(['rev-list', '--max-count=1', 'HEAD', '--not', '--remotes'], inside)
      if (unknown !== undefined && unknown !== '') found.add(path)
    }
    return [...found]
  }

  async #otherRefs(current: string | null): Promise<NamedRef[]> {
    const leave = (what: string) => this.#leave(what)
    const of = { current, base: this.#base, start: this.#repository.start, leave }
    const { refs, hasStashed } = await findOtherRefs(of, this.#options)
    this.#hasStashed = hasStashed
    return refs
  }

  /** What git notes of a rebase or merge under way is not saved; the commits and files are. */
  async #nameOperations(): Promise<void> {
    if (this.#place.asFolder) return
    const folder = resolve(this.#repository.folder, await this.#ask('rev-parse', '--git-dir'))
    for (const operation of operationsUnderWay(folder))
      this.#leave(`the state of a ${operation} under way (commits and files are saved)`)
  }

  async #countCommits(head: string): Promise<number> {
    const range = this.#base === null ? head : `${this.#base}..${head}`
    return Number((await this.#question('rev-list', '--count', range)) ?? 0)
  }

  async #statistics(from: string, to: string) {
    const text = await this.#ask('diff', '--no-ext-diff', '--no-textconv', '--shortstat', from, to)
    const count = (pattern: RegExp) => Number(pattern.exec(text)?.[1] ?? 0)
    return {
      files_changed: count(/(\d+) files? changed/),
      insertions: count(/(\d+) insertions?/),
      deletions: count(/(\d+) deletions?/),
    }
  }

  /** With everything, or, where that is too large, with the commits alone. */
  async #storeBundle(what: BundledRefs): Promise<string | null> {
    const { head, worktree } = what
    const whole = await this.#makeBundle(what)
    if (whole === undefined || this.#fits(whole.size)) return whole ? this.#store(whole.file, 'its bundle') : null
    if (head !== null && head !== this.#base && worktree !== head) {
      const commits = await this.#makeBundle({ head, worktree: head, others: [] })
      if (commits && this.#fits(commits.size)) {
        this.#leave(`its uncommitted changes (${this.#tooLarge(whole.size)})`)
        return this.#store(commits.file, 'its commits')
      }
    }
    this.#leave(`its commits and changes (${this.#tooLarge(whole.size)})`)
    return null
  }

  async #makeBundle({ head, worktree, others }: BundledRefs) {
    const file = join(this.#place.temporary, `bundle-${worktree}`)
    const stash = others.find(([ref]) => ref === 'refs/stash')?.[1]
    const own = Object.entries({ [headRef]: head, [worktreeRef]: worktree, [stashRef]: stash }).flatMap(
      ([ref, id]): NamedRef[] => (id ? [[ref, id]] : []),
    )
    if (this.#repository.start) return this.#bundleApart(file, [...own, ...others])
    const refs = [...own, ...others].map(([ref]) => ref).filter((ref) => ref !== 'refs/stash')
    for (const [ref, id] of own) await this.#ask('update-ref', ref, id)
    try {
      const range = this.#base === null ? refs : [...refs, `^${this.#base}`]
      // A branch that was only moved back has nothing new to bundle: `head` says where it stands.
      if ((await this.#question('rev-list', '--max-count=1', ...range)) === '') return undefined
      await this.#ask('bundle', 'create', '--quiet', file, ...range)
    } finally {
      for (const [ref] of own) await this.#question('update-ref', '-d', ref)
    }
    return { file, size: (await stat(file)).size }
  }

  /** Of a person's repository: with names that it never sees, and without commits that were there before. */
  async #bundleApart(file: string, named: NamedRef[]) {
    if (named.length === 0) return undefined
    const apart = await ownRefs(`${file}-refs`, this.#options)
    for (const [ref, id] of named) await gitAnswer(['update-ref', ref, id], apart)
    const without = [...(this.#base === null ? [] : [this.#base]), ...usersTips(this.#repository.start)].map(
      (id) => `^${id}`,
    )
    const range = [...named.map(([ref]) => ref), ...without]
    if ((await gitQuestion(['rev-list', '--max-count=1', ...range], apart)) === '') return undefined
    await gitAnswer(['bundle', 'create', '--quiet', file, ...range], apart)
    return { file, size: (await stat(file)).size }
  }

  async #storeDiff(from: string, to: string): Promise<string | null> {
    const file = join(this.#place.temporary, 'diff')
    const shape = ['--binary', '--full-index', '--no-color', '--no-ext-diff', '--no-textconv', '--find-renames']
    await this.#ask('diff', ...shape, '--src-prefix=a/', '--dst-prefix=b/', `--output=${file}`, from, to)
    const { size } = await stat(file)
    if (this.#fits(size)) return this.#store(file, 'its diff', 'text/x-diff')
    this.#leave(`its diff (${this.#tooLarge(size)})`)
    return null
  }

  async #store(file: string, what: string, contentType = 'application/x-git-bundle'): Promise<string | null> {
    try {
      const blobId = await this.#request.store(file, contentType)
      this.storedBytes += (await stat(file)).size
      return blobId
    } catch (error) {
      if (!(error instanceof ApiError)) throw error
      this.#leave(`${what} (the control plane refused it: ${error.problem.detail})`)
      return null
    }
  }

  #fits(bytes: number): boolean {
    return bytes <= this.#place.room - this.storedBytes
  }

  #tooLarge(bytes: number): string {
    return `${megabytes(bytes)}; ${megabytes(this.#request.maxBytes)} is the limit of a saved workspace`
  }

  async #hasCommit(commit: string): Promise<boolean> {
    return (await this.#question('cat-file', '-e', `${commit}^{commit}`)) !== undefined
  }

  #emptyTree(): Promise<string> {
    return this.#ask('hash-object', '-t', 'tree', '/dev/null')
  }

  #ask(...args: string[]): Promise<string> {
    return gitAnswer(args, this.#options)
  }

  #question(...args: string[]): Promise<string | undefined> {
    return gitQuestion(args, this.#options)
  }

  #leave(what: string): void {
    const { dir } = this.#repository
    this.#place.leave(dir === '.' ? what : `${dir}/${what}`)
  }
}

export function megabytes(bytes: number): string {
  return bytes < 100_000 ? `${bytes} bytes` : `${(bytes / 1_000_000).toFixed(1)} MB`
}
