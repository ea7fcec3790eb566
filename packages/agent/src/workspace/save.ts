import { existsSync } from 'node:fs'
import { mkdtemp, readdir, rm } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join, relative } from 'node:path'
import type { SavedRepository } from '@openoz/protocol'
import { diskFull } from '../disk-full.ts'
import { type Repository, shownRemote } from './clone.ts'
import { type GitOptions, gitEnvironment, gitQuestion, saysNoSpace } from './git.ts'
import type { CheckoutStart } from './own-changes.ts'
import { megabytes, RepositorySave, type RepositorySaveOptions } from './repository-save.ts'
import type { SaveRequest } from './save-request.ts'

/**
 * Saves what a run made of its workspace, within one limit for all of it: the repositories that it was given, those that it made or cloned itself
 * (also inside of others, and submodules with work in them), and at last the files that lie in no repository at all.
 */
export interface SavedState {
  repositories: SavedRepository[]
  leftOut: string[]
}

/** A workspace without repositories in which nothing was made: no news to anybody. */
export function isNothing({ repositories, leftOut }: SavedState): boolean {
  return repositories.length === 0 && leftOut.length === 0
}

/**
 * Hashing tens of gigabytes takes less. What takes longer is a program that git runs for the repository (a clean filter, Git LFS) and that
 * hangs, and it must not keep a finished run from ending.
 */
const defaultCommandTimeoutMs = 300_000
/** Of a folder that became one while the run worked in it. */
export const folderHistory = 'the history of the repository in the folder itself (its files are saved)'
/** What the control plane takes. */
const maxRepositories = 50
const maxLeftOut = 200

/** Never rejects for one repository's sake: what could not be saved is in `leftOut`. Rejects with `disk_full`, or the signal's reason. */
export async function saveWorkspace(request: SaveRequest): Promise<SavedState> {
  const save = new WorkspaceSave({ ...request, commandTimeoutMs: request.commandTimeoutMs ?? defaultCommandTimeoutMs })
  return save.run()
}

class WorkspaceSave {
  readonly #request: SaveRequest
  readonly #saved: SavedRepository[] = []
  readonly #leftOut: string[] = []
  /** Folders that are saved, or named as left out. */
  readonly #seen = new Set<string>()
  #room: number

  constructor(request: SaveRequest) {
    this.#request = request
    this.#room = request.maxBytes
  }

  async run(): Promise<SavedState> {
    const { repositories, folder, found, folderStart } = this.#request
    for (const repository of repositories) this.#seen.add(repository.folder)
    for (const repository of repositories) await this.#saveGiven(repository)
    if (folder !== undefined && folderStart) await this.#saveFolder(folder, folderStart)
    else if (folder !== undefined && found && !this.#seen.has(folder)) {
      if (existsSync(join(folder, '.git')) && !found.includes('.git')) await this.#saveFound('.', folder)
      else await this.#saveLooseFiles(folder, found)
    }
    return { repositories: this.#saved, leftOut: this.#leftOut }
  }

  async #saveGiven(repository: Repository): Promise<void> {
    const { dir, folder } = repository
    if (!existsSync(folder)) return this.#leave(`${dir}: its folder is gone`)
    if (await this.#isRepository(folder)) return this.#save(repository)
    this.#leave(`${dir}: its .git folder is gone or broken, so its files are saved without commits`)
    await this.#save(repository, { except: [], withIgnored: false })
  }

  /** A repository that the run made or cloned. There is nothing to build on when it is put back, so all of it is saved. */
  async #saveFound(dir: string, folder: string): Promise<void> {
    if (this.#seen.has(folder)) return
    this.#seen.add(folder)
    if (this.#seen.size > maxRepositories) return this.#leave(`${dir}: one of too many repositories`)
    const options = this.#gitOptions(folder)
    const repository: Repository = { dir, folder, base: null, isKept: false }
    const isShallow = (await gitQuestion(['rev-parse', '--is-shallow-repository'], options)) === 'true'
    if (isShallow || !(await this.#isRepository(folder))) {
      this.#leave(
        `${dir}: its history (${isShallow ? 'a shallow clone' : 'no complete repository'}); its files are saved`,
      )
      return this.#save(repository, { except: [], withIgnored: false })
    }
    const bytes = packedBytes((await gitQuestion(['count-objects', '-v'], options)) ?? '')
    if (bytes > this.#room) return this.#leave(`${dir}: a repository of its own with ${megabytes(bytes)} of history`)
    const remote = await gitQuestion(['config', '--get', 'remote.origin.url'], options)
    await this.#save({ ...repository, url: remote === undefined ? undefined : shownRemote(remote) })
  }

  async #saveLooseFiles(folder: string, found: string[]): Promise<void> {
    const except = [...this.#seen].map((other) => relative(folder, other))
    const roots = (await readdir(folder)).filter((name) => !found.includes(name) && !except.includes(name))
    if (roots.length === 0) return
    await this.#save({ dir: '.', folder, base: null, isKept: false }, { roots, except, withIgnored: true })
  }

  /** A person's: only what is not as it was. */
  async #saveFolder(folder: string, start: CheckoutStart): Promise<void> {
    const except = [...this.#seen].map((other) => relative(folder, other))
    if (existsSync(join(folder, '.git')) && !start.leftOut.includes(folderHistory)) this.#leave(folderHistory)
    await this.#save({ dir: '.', folder, base: null, isKept: true, start }, { except, withIgnored: false })
  }

  async #save(repository: Repository, asFolder?: RepositorySaveOptions['asFolder']): Promise<void> {
    const { dir, folder } = repository
    const temporary = await mkdtemp(join(tmpdir(), 'oz-save-'))
    const nested: string[] = []
    try {
      // What a person's checkout held before is not the run's work: no news that it is not saved.
      const leave = (what: string) => repository.start?.leftOut.includes(what) || this.#leave(what)
      const save = new RepositorySave(this.#request, repository, { temporary, room: this.#room, leave, asFolder })
      const saved = await save.run()
      this.#room -= save.storedBytes
      nested.push(...save.nested)
      // A folder with nothing of its own in it is no news.
      const isEmpty = asFolder && repository.base === null && !saved.uncommitted && saved.diff_blob_id === null
      if (!isEmpty) this.#saved.push(saved)
    } catch (error) {
      this.#request.signal.throwIfAborted()
      if (saysNoSpace(error)) {
        throw await diskFull('saving the workspace', folder, error)
      }
      const problem = error instanceof Error ? error.message : 'unknown error'
      this.#leave(`${dir}: it could not be saved (${problem})`)
    } finally {
      await rm(temporary, { recursive: true, force: true })
    }
    for (const path of nested) {
      // A person's own, which was there before.
      if (repository.start?.nested.includes(path)) continue
      await this.#saveFound(dir === '.' ? path : `${dir}/${path}`, join(folder, path))
    }
  }

  /** Whether this very folder is one: git itself would go on looking in the folders above. */
  async #isRepository(folder: string): Promise<boolean> {
    if (!existsSync(join(folder, '.git'))) return false
    const prefix = await gitQuestion(['rev-parse', '--show-prefix'], this.#gitOptions(folder))
    return prefix === ''
  }

  #gitOptions(cwd: string): GitOptions {
    const { env, signal, commandTimeoutMs } = this.#request
    return { cwd, env: gitEnvironment(env), signal, timeoutMs: commandTimeoutMs }
  }

  #leave(what: string): void {
    if (this.#leftOut.length < maxLeftOut) this.#leftOut.push(what)
  }
}

/** From `git count-objects -v`, whose sizes are KiB. */
function packedBytes(counts: string): number {
  const count = (name: string) => Number(new RegExp(`^${name}: (\\d+)$`, 'm').exec(counts)?.[1] ?? 0)
  return count('size-pack') * 1024
}
