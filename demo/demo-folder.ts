import { execFile } from 'node:child_process'
import { chmod, cp, mkdir, mkdtemp, rm } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join, resolve } from 'node:path'
import { fileURLToPath, pathToFileURL } from 'node:url'
import { promisify } from 'node:util'
import { findClone } from '@openoz/cli'

const run = promisify(execFile)

/** Where a demo lives. `private` is removed at the end; the sample repository beside it stays. */
export interface DemoFolder {
  /** Data, logs, workspaces, the login. */
  private: string
  /** Removes it. */
  remove: () => Promise<void>
}

/** The name cannot be guessed, and nobody but its owner can list it; as root, tasks run as other users and have to be able to pass through. */
export async function makeDemoFolder(): Promise<DemoFolder> {
  const folder = await mkdtemp(join(tmpdir(), 'openoz-demo-'))
  await chmod(folder, process.getuid?.() === 0 ? 0o711 : 0o700)
  return { private: folder, remove: () => rm(folder, { recursive: true, force: true, maxRetries: 5 }) }
}

/** What a run clones, and where its result goes. */
export interface DemoRepository {
  /** Address for the agent. */
  source: string
  /** The clone that gets the branch. */
  clone: string
  testCommand: string | null
  /** Removes the clone, where it was made for the demo: for when nothing came of it. */
  discard: () => Promise<void>
}

/** The sample project as a real repository with a first commit, in a temporary folder that outlives the demo. */
export async function makeSampleRepository(folder: DemoFolder, testCommand: string | null): Promise<DemoRepository> {
  const parent = await mkdtemp(join(tmpdir(), 'openoz-sample-'))
  const clone = join(parent, 'fair-share')
  await cp(fileURLToPath(new URL('./sample-project/', import.meta.url)), clone, { recursive: true })
  const git = (...args: string[]) => run('git', ['-C', clone, ...args])
  await git('init', '--quiet', '--initial-branch=main')
  await git('add', '--all')
  const author = ['-c', 'user.name=openoz demo', '-c', 'user.email=demo@openoz.invalid', '-c', 'commit.gpgSign=false']
  await git(...author, 'commit', '--quiet', '--message', 'A bill splitter with one failing test')
  const discard = () => rm(parent, { recursive: true, force: true })
  return { source: await copyForTasks(clone, folder), clone, testCommand, discard }
}

/** Relative to where `npm run` was typed, which npm remembers. Rejects with `clone_missing`. */
export async function useRepository(folder: DemoFolder, path: string): Promise<DemoRepository> {
  const clone = await findClone(resolve(process.env.INIT_CWD ?? '', path))
  return { source: await copyForTasks(clone, folder), clone, testCommand: null, discard: async () => {} }
}

/** Where what runs clone lies: tasks in containers see it there, too. */
export function sourcesOf(folder: DemoFolder): string {
  return join(folder.private, 'sources')
}

/** A bare copy that tasks may read, whoever owns the clone. Real copies instead of links: nothing of the user's changes its owner. */
async function copyForTasks(clone: string, folder: DemoFolder): Promise<string> {
  const sources = sourcesOf(folder)
  await mkdir(sources, { mode: 0o755 })
  await chmod(sources, 0o755)
  const copy = join(sources, 'repository.git')
  await run('git', ['clone', '--quiet', '--bare', '--no-hardlinks', clone, copy])
  if (process.getuid?.() === 0) await run('chmod', ['-R', 'a+rX', copy])
  return pathToFileURL(copy).href
}
