import { createHash } from 'node:crypto'
import { chmod, lutimes, mkdir, mkdtemp, readdir, rename, rm, stat, writeFile } from 'node:fs/promises'
import { basename, dirname, join } from 'node:path'
import {
  type FolderLock,
  inGroups,
  lockFolder,
  mirrorName,
  type RepositoryAddress,
  repositoryAddress,
  sleep,
} from '@openoz/machine'
import type { SourceRepo } from '@openoz/protocol'
import type { Logger } from 'pino'
import type { StepReporter } from './backends/backend.ts'
import { removeTree } from './folder-removal.ts'
import { MirrorFailure, mirrorEnvironment, mirrorGit, overTheNetwork } from './mirror-git.ts'

/**
 * Bare mirrors of the repositories that runs of this worker have named:
 *
 *   <state>/mirrors/<scope>/<name>/
 *     repository.git   branches and tags of the host, and what else runs have named; never a half-made one
 *     used             its address; the file's time is that of the last use
 *     lock-N           which process is at work on it
 *
 * A mirror holds what the worker's user may read, so it is for one team: `<scope>` stands for one control plane and one API key. A task gets
 * no mirror, but a copy of its own of each that it named (hard links where it is another user than the worker), in a folder that only it
 * sees: mirrors may be packed anew, or go, whoever works. The copy appears beside the agent's start, see the agent's `mirror.ts`:
 *
 *   offer ──▶ NAME.pending ──▶ locked: cloned or fetched ──▶ NAME.git      (or NAME.failed: the agent clones from the host)
 *
 * Not mirrored: addresses with a login in them, since what it opens is not the worker's to pass on, and repositories on this machine's disk,
 * which a task reads by its own right or not at all.
 */
export interface Mirrors {
  /**
   * Begins to bring the mirrors of a task up to date. Resolves once the agent can see that they are coming, with what ends when all are there
   * or have failed; neither rejects.
   */
  offer(sources: readonly SourceRepo[], task: MirrorTask): Promise<Offer>
  /** Removes mirrors that were not used for 30 days, and the oldest of those that are too large together. Never rejects. */
  sweep(): Promise<void>
}

interface Offer {
  done: Promise<void>
}

interface MirrorTask {
  /** The task reads it, the worker alone makes files in it. */
  folder: string
  /** The task is another user, who can do nothing to files of the worker. */
  isOtherUser: boolean
  signal: AbortSignal
  reporter: StepReporter
  log: Logger
}

interface MirrorsOptions {
  /** `<state>/mirrors`. */
  folder: string
  serverUrl: string
  apiKey: string
  env: NodeJS.ProcessEnv
  /** File of authorities for git, instead of its own. */
  authorities?: string
  log: Logger
  /** Of all mirrors together. */
  maxBytes?: number
  unusedMs?: number
}

interface Wanted {
  name: string
  address: RepositoryAddress
  refs: string[]
}

const mirrorsAtOnce = 4
/** As long as the agent's own clone may take by default. */
const transferTimeoutMs = 30 * 60_000
/** The agent takes a worker for gone after 30 s without. */
const beatEveryMs = 2_000
const defaultMaxBytes = 20 * 1024 ** 3
const defaultUnusedMs = 30 * 24 * 3_600_000
/** Each fetch that brings something adds one. */
const maxPacks = 50

export function createMirrors(options: MirrorsOptions): Mirrors {
  return new LocalMirrors(options)
}

class LocalMirrors implements Mirrors {
  readonly #options: MirrorsOptions
  readonly #scope: string
  readonly #env: NodeJS.ProcessEnv

  constructor(options: MirrorsOptions) {
    const { folder, serverUrl, apiKey, env, authorities } = options
    this.#options = options
    const scope = createHash('sha256')
      .update(JSON.stringify([serverUrl, apiKey]))
      .digest('hex')
      .slice(0, 16)
    this.#scope = join(folder, scope)
    this.#env = mirrorEnvironment(env, authorities)
  }

  async offer(sources: readonly SourceRepo[], task: MirrorTask): Promise<Offer> {
    const wanted = wantedMirrors(sources)
    if (wanted.length === 0) return { done: Promise.resolve() }
    for (const { name } of wanted)
      await writeFile(join(task.folder, `${name}.pending`), '', { flag: 'wx', mode: 0o644 })
    return { done: this.#bringAll(wanted, task) }
  }

  async #bringAll(wanted: Wanted[], task: MirrorTask): Promise<void> {
    const { reporter, signal, folder } = task
    reporter.started('mirror')
    const beat = setInterval(() => {
      // Not through a link: where tasks are the worker's own user they could put one there.
      for (const { name } of wanted)
        void lutimes(join(folder, `${name}.pending`), new Date(), new Date()).catch(() => {})
    }, beatEveryMs)
    const results = await inGroups(mirrorsAtOnce, wanted, (one) => this.#bring(one, task))
    clearInterval(beat)
    if (signal.aborted) return
    const detail = results.map(({ words }) => words).join('\n')
    if (results.some(({ isThere }) => isThere)) reporter.completed('mirror', detail)
    else reporter.failed('mirror', detail)
  }

  /** Never rejects. */
  async #bring(one: Wanted, task: MirrorTask): Promise<{ isThere: boolean; words: string }> {
    const { name, address } = one
    const from = performance.now()
    const log = task.log.child({ repository: address.shown })
    try {
      const how = await this.#locked(join(this.#scope, name), task.signal, (mirror) => this.#refresh(mirror, one, task))
      log.info({ ms: Math.round(performance.now() - from) }, `The mirror of a repository was ${how}`)
      return { isThere: true, words: `${address.shown}: ${how}` }
    } catch (error) {
      const problem = error instanceof Error ? error.message : String(error)
      if (!task.signal.aborted)
        log.warn({ problem }, 'A repository could not be mirrored; its run clones from the host')
      await writeBeside(join(task.folder, `${name}.failed`), problem).catch(() => {})
      return { isThere: false, words: `${address.shown}: not mirrored: ${problem}` }
    } finally {
      await rm(join(task.folder, `${name}.pending`), { force: true }).catch(() => {})
    }
  }

  async #refresh(mirror: string, one: Wanted, task: MirrorTask): Promise<string> {
    const { signal } = task
    const repository = join(mirror, 'repository.git')
    const how = await this.#bringUpToDate(repository, one, signal)
    await this.#fetchNamed(repository, one, signal)
    await writeFile(join(mirror, 'used'), `${one.address.shown}\n`)
    await this.#copyFor(task, repository, one.name)
    const packs = (await readdir(join(repository, 'objects', 'pack'))).filter((file) => file.endsWith('.pack'))
    // What no branch holds stays too: a later run may name it.
    if (packs.length > maxPacks) await this.#ask(repository, ['repack', '-a', '-d', '-k', '--quiet'], signal)
    return how
  }

  async #bringUpToDate(repository: string, { address }: Wanted, signal: AbortSignal): Promise<'cloned' | 'fetched'> {
    if (await exists(repository)) {
      try {
        await this.#fetch(repository, address, signal)
        return 'fetched'
      } catch (error) {
        if (!(error instanceof MirrorFailure) || !error.isBroken) throw error
        this.#options.log.warn({ repository: address.shown, problem: error.message }, 'A mirror is broken; made anew')
        await removeTree(repository)
      }
    }
    const fresh = join(dirname(repository), 'new.git')
    await removeTree(fresh)
    const clone = ['clone', '--bare', '--template=', '--quiet', '--', address.url, fresh]
    await this.#ask(dirname(repository), clone, signal, overTheNetwork(this.#env))
    await this.#ask(fresh, ['pack-refs', '--all'], signal)
    await rename(fresh, repository)
    return 'cloned'
  }

  async #fetch(repository: string, { url }: RepositoryAddress, signal: AbortSignal): Promise<void> {
    const env = overTheNetwork(this.#env)
    // What a worker left that was killed. Whoever has the mirror's lock is alone in here.
    for (const name of await readdir(repository)) {
      if (name.endsWith('.lock')) await rm(join(repository, name), { force: true })
    }
    const refs = ['+refs/heads/*:refs/heads/*', '+refs/tags/*:refs/tags/*']
    const how = ['--quiet', '--prune', '--force', '--no-recurse-submodules', '--no-tags']
    const [heads] = await Promise.all([
      this.#ask(repository, ['ls-remote', '--symref', '--', url, 'HEAD'], signal, env),
      this.#ask(repository, ['fetch', ...how, '--', url, ...refs], signal, env),
    ])
    const [, head] = /^ref: (refs\/heads\/\S+)\tHEAD$/m.exec(heads) ?? []
    if (head !== undefined) await this.#ask(repository, ['symbolic-ref', 'HEAD', head], signal)
    await this.#ask(repository, ['pack-refs', '--all'], signal)
  }

  /** `refs/pull/7/head`, or a commit that no branch holds any more. What does not exist is the agent's to say. */
  async #fetchNamed(repository: string, { address, refs }: Wanted, signal: AbortSignal): Promise<void> {
    for (const ref of refs) {
      const isCommit = /^([0-9a-f]{40}|[0-9a-f]{64})$/.test(ref)
      const names = isCommit ? [ref] : [`refs/heads/${ref}`, `refs/tags/${ref}`]
      if (await this.#hasOneOf(repository, names, signal)) continue
      const full = ref.startsWith('refs/') ? ref : `refs/${ref}`
      const isName = isCommit || (await this.#says(repository, ['check-ref-format', full], signal))
      if (!isName) continue
      const fetch = ['fetch', '--quiet', '--no-recurse-submodules', '--no-tags', '--', address.url]
      await this.#says(repository, [...fetch, isCommit ? ref : `+${full}:${full}`], signal, overTheNetwork(this.#env))
    }
  }

  async #hasOneOf(repository: string, names: string[], signal: AbortSignal): Promise<boolean> {
    for (const name of names) {
      if (await this.#says(repository, ['cat-file', '-e', `${name}^{commit}`], signal)) return true
    }
    return false
  }

  /** Made where the task does not see it, then put into its folder in one step. */
  async #copyFor({ folder, isOtherUser, signal }: MirrorTask, repository: string, name: string): Promise<void> {
    const scratch = await mkdtemp(join(dirname(folder), '.mirror-'))
    try {
      const copy = join(scratch, name)
      // What a task that is the worker's own user does to a link, it does to the mirror.
      const links = isOtherUser ? [] : ['--no-hardlinks']
      await this.#ask(
        scratch,
        ['clone', '--mirror', '--template=', '--quiet', ...links, '--', repository, copy],
        signal,
      )
      if (isOtherUser) await openToAll(copy)
      await rename(copy, join(folder, `${name}.git`))
    } finally {
      await removeTree(scratch)
    }
  }

  async #ask(cwd: string, args: string[], signal: AbortSignal, env = this.#env): Promise<string> {
    return mirrorGit(args, { cwd, env, signal, timeoutMs: transferTimeoutMs })
  }

  async #says(cwd: string, args: string[], signal: AbortSignal, env = this.#env): Promise<boolean> {
    try {
      await this.#ask(cwd, args, signal, env)
      return true
    } catch (error) {
      if (error instanceof MirrorFailure) return false
      throw error
    }
  }

  async #locked<T>(mirror: string, signal: AbortSignal, work: (mirror: string) => Promise<T>): Promise<T> {
    for (;;) {
      signal.throwIfAborted()
      await mkdir(mirror, { recursive: true, mode: 0o700 })
      const lock = tryLock(mirror)
      if (!lock) {
        await sleep(50, signal)
        continue
      }
      try {
        return await work(mirror)
      } finally {
        lock.release()
      }
    }
  }

  async sweep(): Promise<void> {
    const { folder, log, maxBytes = defaultMaxBytes, unusedMs = defaultUnusedMs } = this.#options
    try {
      const mirrors = (await listMirrors(folder)).sort((a, b) => b.usedAt - a.usedAt)
      let bytes = 0
      for (const { path, usedAt, size } of mirrors) {
        bytes += size
        if (Date.now() - usedAt < unusedMs && bytes <= maxBytes) continue
        bytes -= size
        if (await removeMirror(path)) log.info({ mirror: basename(path), bytes: size }, 'A mirror was removed')
      }
    } catch (error) {
      log.warn({ error }, 'Mirrors could not be swept; tried again later')
    }
  }
}

/** One per repository, with all that is wanted of it. */
function wantedMirrors(sources: readonly SourceRepo[]): Wanted[] {
  const byName = new Map<string, Wanted>()
  for (const { url, ref } of sources) {
    const address = addressOf(url)
    if (!address || address.isLocal || address.url !== address.shown) continue
    const name = mirrorName(address)
    const wanted = byName.get(name) ?? { name, address, refs: [] }
    if (ref !== undefined) wanted.refs.push(ref)
    byName.set(name, wanted)
  }
  return [...byName.values()]
}

/** undefined: what is wrong with it is for the agent to say. */
function addressOf(url: string): RepositoryAddress | undefined {
  try {
    return repositoryAddress(url)
  } catch {
    return undefined
  }
}

function tryLock(folder: string): FolderLock | undefined {
  try {
    const lock = lockFolder(folder)
    return 'release' in lock ? lock : undefined
  } catch (error) {
    // A sweep has removed it.
    if (error instanceof Error && 'code' in error && error.code === 'ENOENT') return undefined
    throw error
  }
}

async function listMirrors(folder: string): Promise<{ path: string; usedAt: number; size: number }[]> {
  const found: { path: string; usedAt: number; size: number }[] = []
  for (const scope of await readdir(folder).catch(() => [])) {
    for (const name of await readdir(join(folder, scope))) {
      const path = join(folder, scope, name)
      // A mirror without a first use is being made.
      const used = (await stat(join(path, 'used')).catch(() => undefined)) ?? (await stat(path))
      const usedAt = name.startsWith(removedPrefix) ? 0 : used.mtimeMs
      found.push({ path, usedAt, size: await packedBytes(join(path, 'repository.git')) })
    }
  }
  return found
}

async function packedBytes(repository: string): Promise<number> {
  const folder = join(repository, 'objects', 'pack')
  const names = await readdir(folder).catch(() => [])
  const sizes = names.map(async (name) => (await stat(join(folder, name)).catch(() => ({ size: 0 }))).size)
  return (await Promise.all(sizes)).reduce((sum, size) => sum + size, 0)
}

const removedPrefix = 'removed-'

/** False while it is in use. */
async function removeMirror(path: string): Promise<boolean> {
  const lock = tryLock(path)
  if (!lock) return false
  // Under another name nobody takes it for one who waits for the lock.
  const gone = basename(path).startsWith(removedPrefix)
    ? path
    : join(dirname(path), `${removedPrefix}${basename(path)}`)
  try {
    if (gone !== path) await rename(path, gone)
    await removeTree(gone)
    return true
  } finally {
    lock.release()
  }
}

async function openToAll(folder: string): Promise<void> {
  await chmod(folder, 0o755)
  for (const entry of await readdir(folder, { recursive: true, withFileTypes: true })) {
    await chmod(join(entry.parentPath, entry.name), entry.isDirectory() ? 0o755 : 0o444)
  }
}

/** In one step, and not through a link. */
async function writeBeside(file: string, text: string): Promise<void> {
  const temporary = join(dirname(dirname(file)), `.${basename(file)}`)
  await writeFile(temporary, text, { mode: 0o644 })
  await rename(temporary, file)
}

async function exists(path: string): Promise<boolean> {
  return (await stat(path).catch(() => undefined)) !== undefined
}
