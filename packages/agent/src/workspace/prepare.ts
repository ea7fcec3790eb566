import { existsSync } from 'node:fs'
import { readdir } from 'node:fs/promises'
import { join } from 'node:path'
import { AppError, type SourceRepo } from '@openoz/protocol'
import { type EventSink, notice } from '../event-sink.ts'
import { setupStep } from '../setup-step.ts'
import { cloneRepository, existingRepository, type Repository } from './clone.ts'
import { gitEnvironment } from './git.ts'
import { repositoryAddress, repositoryFolder } from './repository-address.ts'

/** Where the run works. */
export interface Workspace {
  folder: string
  /** Where tools start: the repository when there is exactly one, else the workspace. */
  toolsFolder: string
  repositories: Repository[]
  /** Names in the folder that were there before the run; what else lies in it is the run's work. */
  found?: string[]
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
}

/**
 * Clones what the environment names, one after the other. A folder that exists already is left as it is. Rejects with
 * `repository_clone_failed`, `repository_directory_conflict`, `git_missing`, or the signal's reason.
 */
export async function prepareRepositories(request: PrepareRequest): Promise<Workspace> {
  const { folder, runId, sink, signal } = request
  const options = { env: gitEnvironment(request.env), signal }
  const wanted = request.sources.map((source) => ({ source, dir: repositoryFolder(source) }))
  refuseConflicts(wanted)

  const found = await readdir(folder)
  const repositories: Repository[] = []
  for (const { source, dir } of wanted) {
    if (existsSync(join(folder, dir))) {
      notice(sink, 'info', `The folder ${dir} exists already, so ${shown(source)} was not cloned again.`)
      const existing = await existingRepository({ dir, folder: join(folder, dir), runId }, options)
      if (existing) repositories.push(existing)
      continue
    }
    const { timeoutMs, mask } = request
    const onOutput = (text: string) => sink.emit({ type: 'terminal_output', data: { step: 'clone', text } })
    const clone = { source, dir, workspace: folder, runId, git: options, timeoutMs, onOutput, mask }
    repositories.push(
      await setupStep(sink, { step: 'clone', title: `Clone ${shown(source)}` }, () => cloneRepository(clone)),
    )
  }
  if (wanted.length === 0 && existsSync(join(folder, '.git'))) {
    const existing = await existingRepository({ dir: '.', folder, runId }, options)
    if (existing) repositories.push(existing)
  }
  const only = wanted.length === 1 ? wanted[0] : undefined
  return { folder, toolsFolder: only ? join(folder, only.dir) : folder, repositories, found }
}

function refuseConflicts(wanted: { source: SourceRepo; dir: string }[]): void {
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
