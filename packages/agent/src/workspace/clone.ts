import { existsSync } from 'node:fs'
import { mkdir, rm } from 'node:fs/promises'
import { dirname, join } from 'node:path'
import { cloneProblem, type RepositoryAddress, repositoryAddress } from '@openoz/machine'
import { AppError, type SourceRepo } from '@openoz/protocol'
import { diskFull } from '../disk-full.ts'
import { GitFailure, type GitOptions, git, gitAnswer, gitQuestion, isNoSpace, saysNoSpace } from './git.ts'
import { findMirror } from './mirror.ts'
import type { CheckoutStart } from './own-changes.ts'
import { createProgressLines } from './progress-lines.ts'

/** A repository of the workspace, as the run found it. */
export interface Repository {
  /** Folder inside the workspace, `.` for the workspace itself. */
  dir: string
  /** Absolute. */
  folder: string
  /** Without credentials. */
  url?: string
  /** Commit that the run started from; null for a repository without commits. */
  base: string | null
  /** It was in its folder already, as somebody (or an earlier attempt at this run) had left it; nothing is put back into it. */
  isKept: boolean
  /** Of a person's own checkout: how the run found it. */
  start?: CheckoutStart
}

interface CloneRequest {
  source: SourceRepo
  /** Relative to the workspace. */
  dir: string
  workspace: string
  runId: string
  git: Omit<GitOptions, 'cwd' | 'onMessage' | 'timeoutMs'>
  timeoutMs: number
  /** Where the worker puts mirrors for this run, if it does. */
  mirrors?: string
  /** An earlier execution's work is to be put into it afterwards. */
  restores: boolean
  onOutput: (text: string) => void
  onNotice: (text: string) => void
  mask: (text: string) => string
}

/** In the clone's config, until what an earlier execution saved of it is back: without it, work in the clone would be saved in its place. */
export const unrestoredSetting = 'openoz.unrestored'

/**
 * Clones one repository, whole, and puts its work on the run's own branch: from the worker's mirror where there is one, which reaches what
 * only the worker has a login for, else from its host. Whole because agents look into history, and because a filtered clone needs its host
 * (and a login) for every file that it touches later. Rejects with `repository_clone_failed`; then the folder is gone.
 */
export async function cloneRepository(request: CloneRequest): Promise<Repository> {
  const { source, dir, workspace, runId, mask } = request
  const branch = runBranch(runId)
  const address = repositoryAddress(source.url)
  const folder = join(workspace, dir)
  await mkdir(dirname(folder), { recursive: true })
  // Also what only works on the clone: a checkout runs the repository's filters, and Git LFS downloads in it.
  const inside = { ...request.git, cwd: folder, timeoutMs: request.timeoutMs }
  try {
    const mirror = await transferFromMirror(request, address, folder)
    if (mirror === undefined) await transfer(request, { address, folder, from: address.url })
    const base = await startingCommit(request, folder, mirror)
    if (base === null) await gitAnswer(['symbolic-ref', 'HEAD', `refs/heads/${branch}`], inside)
    else await gitAnswer(['checkout', '--quiet', '-B', branch, base], inside)
    await setAuthor(inside)
    await gitAnswer(['config', 'openoz.run', runId], inside)
    await gitAnswer(['config', 'openoz.base', base ?? ''], inside)
    return { dir, folder, url: address.shown, base, isKept: false }
  } catch (error) {
    await rm(folder, { recursive: true, force: true }).catch(() => {})
    request.git.signal?.throwIfAborted()
    if (error instanceof AppError) throw error
    if (saysNoSpace(error)) {
      throw await diskFull(`the clone of ${address.shown}`, workspace)
    }
    const said = mask(error instanceof Error ? error.message : String(error))
    const hasTimedOut = error instanceof GitFailure && error.hasTimedOut
    throw cloneFailed(address, cloneProblem(said, { hasTimedOut }))
  }
}

/** Answers the mirror that it was cloned from. What is wrong with a mirror is a notice, since the host is there as well. */
async function transferFromMirror(
  request: CloneRequest,
  address: RepositoryAddress,
  folder: string,
): Promise<string | undefined> {
  const { mirrors, timeoutMs, onNotice } = request
  const { signal } = request.git
  if (mirrors === undefined) return undefined
  const mirror = await findMirror({ folder: mirrors, address, timeoutMs, signal })
  const fallBack = (problem: string) =>
    onNotice(`The worker’s mirror of ${address.shown} cannot be used, so it is cloned from its host: ${problem}`)
  if (mirror.kind === 'none') return undefined
  if (mirror.kind === 'failed') return void fallBack(mirror.problem)
  try {
    await transfer(request, { address, folder, from: mirror.folder })
    await gitAnswer(['remote', 'set-url', 'origin', address.shown], { ...request.git, cwd: folder, timeoutMs })
    return mirror.folder
  } catch (error) {
    signal?.throwIfAborted()
    if (error instanceof AppError && error.code !== 'repository_clone_failed') throw error
    await rm(folder, { recursive: true, force: true })
    fallBack(request.mask(error instanceof Error ? error.message : String(error)))
    return undefined
  }
}

/** A clone from a folder copies its packs as they are, also what no branch holds. */
async function transfer(
  request: CloneRequest,
  { address, folder, from }: { address: RepositoryAddress; folder: string; from: string },
): Promise<void> {
  const { workspace, timeoutMs, onOutput, mask, restores } = request
  const lines = createProgressLines(onOutput)
  const settings = restores ? ['--config', `${unrestoredSetting}=true`] : []
  const isLocal = address.isLocal || from !== address.url
  const { exitCode, stderr, hasTimedOut } = await git(
    [
      ...trustFolders(isLocal),
      'clone',
      '--no-checkout',
      '--progress',
      ...settings,
      ...uploadPack(isLocal),
      '--',
      from,
      folder,
    ],
    { ...request.git, cwd: workspace, timeoutMs, onMessage: (text) => lines.push(text) },
  )
  lines.end()
  if (exitCode === 0 && !hasTimedOut) return
  if (isNoSpace(stderr)) throw await diskFull(`the clone of ${address.shown}`, workspace)
  throw cloneFailed(address, cloneProblem(mask(stderr), { hasTimedOut }))
}

/** git refuses repositories of another user, and a task often is another user than the one whose repository it was given. */
function trustFolders(isLocal: boolean): string[] {
  return isLocal ? ['-c', 'safe.directory=*'] : []
}

/** The same for the other end, which git does not pass its settings to. */
function uploadPack(isLocal: boolean): string[] {
  return isLocal ? ['--upload-pack', 'git -c safe.directory=* upload-pack'] : []
}

/** The commit that `ref` means, or the remote's HEAD; null for an empty repository. */
async function startingCommit(
  { source, ...request }: CloneRequest,
  folder: string,
  mirror: string | undefined,
): Promise<string | null> {
  const inside = { ...request.git, cwd: folder, timeoutMs: request.timeoutMs }
  const commitOf = (name: string) =>
    gitQuestion(['rev-parse', '--verify', '--quiet', '--end-of-options', `${name}^{commit}`], inside)
  const { ref } = source
  if (ref === undefined) return (await commitOf('HEAD')) ?? null

  const isCommit = /^([0-9a-f]{40}|[0-9a-f]{64})$/.test(ref)
  const names = isCommit
    ? [ref]
    : [`refs/remotes/origin/${ref}`, `refs/tags/${ref}`, ref.startsWith('refs/') ? ref : undefined]
  for (const name of names) {
    const commit = name === undefined ? undefined : await commitOf(name)
    if (commit !== undefined) return commit
  }
  // What a clone does not bring: `refs/pull/7/head`, or a commit that no branch holds any more.
  const address = repositoryAddress(source.url)
  for (const from of mirror === undefined ? ['origin'] : [mirror, 'origin']) {
    const isLocal = address.isLocal || from === mirror
    const fetch = [...trustFolders(isLocal), 'fetch', '--quiet', ...uploadPack(isLocal), '--', from, ref]
    const { exitCode } = await git(fetch, inside)
    const fetched = exitCode === 0 ? await commitOf('FETCH_HEAD') : undefined
    if (fetched !== undefined) return fetched
  }
  const what = isCommit ? 'commit' : 'branch or tag'
  throw cloneFailed(address, `it has no ${what} \`${ref}\`.`)
}

/** An agent must be able to commit on a machine where nobody ever set a name. */
async function setAuthor(inside: GitOptions): Promise<void> {
  const defaults = { 'user.name': 'openoz', 'user.email': 'agent@openoz.invalid' }
  for (const [key, value] of Object.entries(defaults)) {
    const known = await gitQuestion(['config', '--get', key], inside)
    if (known === undefined || known === '') await gitAnswer(['config', key, value], inside)
  }
}

/** The branch that a run works on. */
function runBranch(runId: string): string {
  return `oz/${runId}`
}

/** What a folder that was there already is: a repository, of which the run shall say what it changed, or none. */
export async function existingRepository(
  { dir, folder, runId }: { dir: string; folder: string; runId: string },
  options: Omit<GitOptions, 'cwd'>,
): Promise<Repository | undefined> {
  if (!existsSync(join(folder, '.git'))) return undefined
  const inside = { ...options, cwd: folder }
  const top = await gitQuestion(['rev-parse', '--show-toplevel'], inside)
  if (top === undefined) return undefined
  const setting = (name: string) => gitQuestion(['config', '--get', name], inside)
  // Where an attempt before ours began is where the run began, whatever has been committed since.
  const known = (await setting('openoz.run')) === runId ? await setting('openoz.base') : undefined
  const head = await gitQuestion(['rev-parse', '--verify', '--quiet', 'HEAD^{commit}'], inside)
  const remote = await setting('remote.origin.url')
  const url = remote === undefined ? undefined : shownRemote(remote)
  const isKept = (await setting(unrestoredSetting)) !== 'true'
  return { dir, folder, url, base: (known ?? head) || null, isKept }
}

export function shownRemote(remote: string): string | undefined {
  try {
    return repositoryAddress(remote).shown
  } catch {
    // A relative path or a folder: nothing in it can be a credential.
    return URL.canParse(remote) ? undefined : remote
  }
}

function cloneFailed(address: RepositoryAddress, problem: string): AppError {
  return new AppError('repository_clone_failed', { repository: address.shown, problem })
}
