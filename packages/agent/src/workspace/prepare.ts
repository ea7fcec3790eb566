import { existsSync } from 'node:fs'
import { readdir } from 'node:fs/promises'
import { join } from 'node:path'
import { inGroups, repositoryAddress } from '@openoz/machine'
import { AppError, type SourceRepo } from '@openoz/protocol'
import { type EventSink, notice } from '../event-sink.ts'
import { setupStep } from '../setup-step.ts'
import { cloneRepository, existingRepository, type Repository } from './clone.ts'
import { gitEnvironment } from './git.ts'
import { provideGit } from './install-git.ts'
import { mirrorsVariable } from './mirror.ts'
import type { CheckoutStart } from './own-changes.ts'
import { repositoryFolder } from './repository-folder.ts'
import { atItsStart, type CheckoutRequest, findCheckout, folderAtItsStart } from './users-checkout.ts'

/** Where the run works. */
export interface Workspace {
  folder: string
  /** Where tools start: the repository when there is exactly one, else the workspace. */
  toolsFolder: string
  repositories: Repository[]
  /** Names in the folder that were there before the run; what else lies in it is the run's work. */
  found?: string[]
  /** In its place, where the folder is a person's and no repository: how the run found it. */
  folderStart?: CheckoutStart
}

interface PrepareRequest {
  sources: SourceRepo[]
  folder: string
  runId: string
  env: NodeJS.ProcessEnv
  /** For each transfer. */
  timeoutMs: number
  signal: AbortSignal
  sink: EventSink
  mask: (text: string) => string
  /** What an earlier execution saved is put back next, by `restoreWorkspace`. */
  restores?: boolean
  /** The folder is a person's own, and may lie anywhere in a repository. As in CheckoutRequest. */
  checkout?: Pick<CheckoutRequest, 'maxBytes' | 'keepIn'>
}

/** Hosts limit connections, and clones share the machine's disk and network. */
const clonesAtOnce = 4

/**
 * Clones what the environment names, several at once; the first clone that fails ends the others. A folder that exists already is left as it
 * is. Rejects with `repository_clone_failed`, `repository_directory_conflict`, `git_missing`, or the signal's reason.
 */
export async function prepareRepositories(request: PrepareRequest): Promise<Workspace> {
  const { folder, runId, signal } = request
  const options = { env: gitEnvironment(request.env), signal }
  const wanted = request.sources.map((source) => ({ source, dir: repositoryFolder(source) }))
  refuseConflicts(wanted)
  if (wanted.length > 0) await provideGit(request)

  const found = await readdir(folder)
  const failing = new AbortController()
  const place = { ...request, signal: AbortSignal.any([signal, failing.signal]), isOneOfMany: wanted.length > 1 }
  const cloning = await inGroups(clonesAtOnce, wanted, async (one) => {
    try {
      return await findOrClone(place, one)
    } catch (error) {
      failing.abort(new Error('another repository could not be cloned'))
      throw error
    }
  })
  const repositories = cloning.filter((one) => one !== undefined)
  const only = wanted.length === 1 ? wanted[0] : undefined
  const toolsFolder = only ? join(folder, only.dir) : folder
  if (request.checkout) {
    const own = await findCheckout(checkoutRequest(request))
    if (own) return { folder: own.folder, toolsFolder, repositories: [own, ...repositories] }
    return { folder, toolsFolder, repositories, ...(await folderAtItsStart(checkoutRequest(request), found)) }
  }
  if (wanted.length === 0 && existsSync(join(folder, '.git'))) {
    const existing = await existingRepository({ dir: '.', folder, runId }, options)
    if (existing) repositories.push(existing)
  }
  return { folder, toolsFolder, repositories, found }
}

interface WantedRepository {
  source: SourceRepo
  dir: string
}

/** undefined: a folder is in its place that is no repository. */
async function findOrClone(
  request: PrepareRequest & { isOneOfMany: boolean },
  { source, dir }: WantedRepository,
): Promise<Repository | undefined> {
  const { folder, runId, sink, signal, timeoutMs, mask, restores = false } = request
  const options = { env: gitEnvironment(request.env), signal }
  signal.throwIfAborted()
  if (existsSync(join(folder, dir))) {
    notice(sink, 'info', `The folder ${dir} exists already, so ${shown(source)} was not cloned again.`)
    const existing = await existingRepository({ dir, folder: join(folder, dir), runId }, options)
    return existing && request.checkout ? atItsStart(existing, checkoutRequest(request)) : existing
  }
  const prefix = request.isOneOfMany ? `[${dir}] ` : ''
  const onOutput = (text: string) =>
    sink.emit({ type: 'terminal_output', data: { step: 'clone', text: `${prefix}${text}` } })
  const onNotice = (text: string) => notice(sink, 'info', text)
  const mirrors = request.env[mirrorsVariable]
  const to = { source, dir, workspace: folder, runId, git: options, timeoutMs, mirrors, restores }
  return setupStep(sink, { step: 'clone', title: `Clone ${shown(source)}` }, () =>
    cloneRepository({ ...to, onOutput, onNotice, mask }),
  )
}

function checkoutRequest({ folder, runId, env, signal, sink, checkout }: PrepareRequest): CheckoutRequest {
  return { folder, runId, git: { env: gitEnvironment(env), signal }, sink, maxBytes: undefined, ...checkout }
}

function refuseConflicts(wanted: WantedRepository[]): void {
  const byFolder = new Map<string, SourceRepo>()
  for (const { source, dir } of wanted) {
    // File systems that ignore case would give both the same folder.
    const key = dir.toLowerCase()
    const other = byFolder.get(key)
    if (other) {
      const details = { first: shown(other), second: shown(source), directory: dir }
      throw new AppError('repository_directory_conflict', details)
    }
    byFolder.set(key, source)
  }
}

function shown({ url }: SourceRepo): string {
  return repositoryAddress(url).shown
}
