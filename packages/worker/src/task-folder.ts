import { constants, mkdirSync } from 'node:fs'
import { chmod, lchown, lstat, mkdir, open, readdir, readFile, rename, rm, writeFile } from 'node:fs/promises'
import { basename, dirname, join } from 'node:path'
import { type FolderLock, lockFolder, type ProcessIdentity, processStartOf, writePrivateFile } from '@openoz/machine'
import { z } from 'zod'
import { authorityFiles, type TaskNetwork } from './task-network.ts'

/**
 * What the worker keeps of a task on disk, so that any later worker process knows as much as the one that started it:
 *
 *   <state>/tasks/<execution id>/
 *     task.json    who and where: ids, user, process, workspace (see `taskRecord`)
 *     owner/       the lock of the worker process that answers for the task
 *     shim         who the shim is, written by itself before it starts the agent
 *     longest-lease  how far away the end of the agent's lease may be, in ms: written by the shim
 *     exit         the agent's exit code, put there by the shim in one step when the agent has ended
 *     end.json     how the task ended and what was done about it since (see `task-end.ts`)
 *     end.room     room on the disk for the first of these (see there)
 *     agent.log    stdout and stderr of agent and hooks
 *     token        the execution token, for delivering the spool
 *     given/       mirrors of its repositories, certificates: the task can read it
 *     spool/       the agent's events                                   ┐ these two belong to the task's user;
 *     agent/       its token, git config, HOME and TMPDIR               ┘ the rest it cannot change or see
 *
 * What lies in the last two was written by the task: it is read without following links.
 */
export interface TaskFolder {
  folder: string
  record: string
  owner: string
  shim: string
  longestLease: string
  exit: string
  log: string
  token: string
  given: string
  spool: string
  agent: {
    folder: string
    token: string
    gitConfig: string
    mcp: string
    /** What the setup command writes. */
    setupEnvironment: string
    /** What agent and hooks are started with. */
    variables: string
    home: string
    temporary: string
  }
}

export function tasksFolder(stateDir: string): string {
  return join(stateDir, 'tasks')
}

export function taskFolder(stateDir: string, executionId: string): TaskFolder {
  const folder = join(tasksFolder(stateDir), executionId)
  const agent = join(folder, 'agent')
  return {
    folder,
    record: join(folder, 'task.json'),
    owner: join(folder, 'owner'),
    shim: join(folder, 'shim'),
    longestLease: join(folder, 'longest-lease'),
    exit: join(folder, 'exit'),
    log: join(folder, 'agent.log'),
    token: join(folder, 'token'),
    given: join(folder, 'given'),
    spool: join(folder, 'spool'),
    agent: {
      folder: agent,
      token: join(agent, 'token'),
      gitConfig: join(agent, 'gitconfig'),
      mcp: join(agent, 'mcp.json'),
      setupEnvironment: join(agent, 'environment'),
      variables: join(agent, 'variables.sh'),
      home: join(agent, 'home'),
      temporary: join(agent, 'tmp'),
    },
  }
}

const processIdentity = z.object({ pid: z.int(), startedAt: z.string() })

const taskRecord = z.object({
  version: z.literal(1),
  worker_id: z.string(),
  /** Where the spool has to go. */
  server_url: z.string(),
  task_id: z.uuid(),
  execution_id: z.uuid(),
  /** What it was given to; see `backendOf`. */
  backend: z.string().optional(),
  /** The user that the task has to itself; absent where it shares one. */
  uid: z.int().optional(),
  workspace: z.string(),
  /** Which folder that was when it was made, whatever has its name now; see `removeWorkspace`. Absent before, and where all tasks share one. */
  workspace_id: z.string().optional(),
  /** Whether the workspace goes with the task. */
  removes_workspace: z.boolean(),
  /** The worker process that answers for the task. */
  worker: processIdentity.nullable(),
  /** Its instance (see `instances.ts`). Absent in records of versions that had none. */
  instance: z.uuid().optional(),
  /** The shim; null until it runs. */
  process: processIdentity.nullable(),
  /** Of a container: it was to be started, so it may have been, whatever there is of it by now. */
  is_launched: z.boolean().optional(),
  started_at: z.string(),
  /** By versions that had no `end.json`: when it was found to have ended with events that were not delivered. Its end has been told then. */
  ended_at: z.string().optional(),
})
export type TaskRecord = z.infer<typeof taskRecord>

/** Records of versions that had but one name none. */
export function backendOf({ backend = 'direct' }: TaskRecord): string {
  return backend
}

interface TaskFolderContent {
  record: TaskRecord
  token?: string
  mcpServers?: Record<string, unknown>
  authorities?: TaskNetwork['authorities']
  /** Owner of what is the task's. */
  owner?: { uid: number; gid: number }
}

/** The folder alone, with us as its owner. Rejects with Node's error, EEXIST among them, and leaves nothing behind then. */
export async function makeTaskFolder(paths: TaskFolder): Promise<FolderLock> {
  // 0711: the task's user must be able to pass through to what is its own, and to see nothing on the way.
  await mkdir(paths.folder, { mode: 0o711 })
  try {
    const lock = lockTask(paths)
    if (!lock) throw new Error('another worker process took the folder of this execution')
    return lock
  } catch (error) {
    await rm(paths.folder, { recursive: true, force: true }).catch(() => {})
    throw error
  }
}

/** Makes us the one process that answers for the task. undefined when another lives that does, or when the folder has gone. */
export function lockTask({ owner }: TaskFolder): FolderLock | undefined {
  try {
    mkdirSync(owner, { recursive: false, mode: 0o700 })
  } catch (error) {
    if (!(error instanceof Error && 'code' in error && error.code === 'EEXIST')) {
      if (error instanceof Error && 'code' in error && error.code === 'ENOENT') return undefined
      throw error
    }
  }
  try {
    const lock = lockFolder(owner)
    return 'release' in lock ? lock : undefined
  } catch (error) {
    if (error instanceof Error && 'code' in error && error.code === 'ENOENT') return undefined
    throw error
  }
}

/** Fills it, all but `exit`. Rejects with Node's error; what was made so far stays for the caller to remove. */
export async function createTaskFolder(paths: TaskFolder, content: TaskFolderContent): Promise<void> {
  const { record, token, mcpServers, authorities, owner } = content
  await writeRecord(paths, record)
  await mkdir(paths.given)
  await chmod(paths.given, 0o755)
  if (authorities)
    for (const kind of ['extra', 'all'] as const) {
      const file = join(paths.given, authorityFiles[kind])
      await writeFile(file, authorities[kind], { flag: 'wx' })
      await chmod(file, 0o644)
    }
  const own = [paths.spool, paths.agent.folder, paths.agent.home, paths.agent.temporary]
  for (const folder of own) await mkdir(folder, { mode: 0o700 })
  // Repositories that somebody else cloned are used on purpose here; git would refuse them.
  const files: [string, string][] = [[paths.agent.gitConfig, '[safe]\n\tdirectory = *\n']]
  if (token !== undefined) files.push([paths.agent.token, token])
  if (mcpServers !== undefined) files.push([paths.agent.mcp, JSON.stringify({ mcpServers })])
  if (token !== undefined) await writeFile(paths.token, token, { mode: 0o600, flag: 'wx' })
  // Nobody knows the folder yet, and after a power cut nobody needs these.
  for (const [file, text] of files) await writeFile(file, text, { mode: 0o600, flag: 'wx' })
  if (!owner) return
  for (const path of [...files.map(([file]) => file), ...own.reverse()]) await lchown(path, owner.uid, owner.gid)
}

export async function writeRecord(paths: TaskFolder, record: TaskRecord): Promise<void> {
  await writePrivateFile(paths.record, `${JSON.stringify(record, null, 2)}\n`)
}

/** What the shim wrote of itself; undefined when it never began. */
export async function readShim(paths: TaskFolder): Promise<ProcessIdentity | undefined> {
  const text = await readFile(paths.shim, 'utf8').catch(() => '')
  const [pid, boot = '', stat = '', end] = text.split('\n')
  // Not whole: the disk was full.
  if (end !== '.') return undefined
  if (boot !== '') return processStartOf(boot, stat)
  // Without /proc `ps` has told when it began, as it tells `identifyProcess`.
  const startedAt = stat.trim()
  return /^\d+$/.test(pid ?? '') && startedAt !== '' ? { pid: Number(pid), startedAt } : undefined
}

/**
 * undefined when there is none that this version can read. Rejects with Node's error when it cannot be read now: too many open files, a sick disk. That
 * says nothing about the task.
 */
export async function readRecord(paths: TaskFolder): Promise<TaskRecord | undefined> {
  try {
    return taskRecord.parse(JSON.parse(await readFile(paths.record, 'utf8')))
  } catch (error) {
    const isContent = error instanceof SyntaxError || error instanceof z.ZodError
    if (isContent || isAbsent(error)) return undefined
    throw error
  }
}

function isAbsent(error: unknown): boolean {
  return error instanceof Error && 'code' in error && error.code === 'ENOENT'
}

/** What the shim wrote; undefined until then, `unknown` when the disk was too full for the number. */
export async function readExitCode(paths: TaskFolder): Promise<number | 'unknown' | undefined> {
  const text = await readFile(paths.exit, 'utf8').catch(() => undefined)
  if (text === undefined) return undefined
  return /^\d{1,3}\n$/.test(text) ? Number(text) : 'unknown'
}

/** Execution ids of all control folders. Rejects with Node's error when they cannot be read now: what has no folder here is ended as nobody's. */
export async function listTaskFolders(stateDir: string): Promise<string[]> {
  const names = await readdir(tasksFolder(stateDir)).catch((error: unknown) => {
    if (isAbsent(error)) return []
    throw error
  })
  return names.filter((name) => z.uuid().safeParse(name).success)
}

/**
 * In one step for whoever looks from outside: nobody shall take over the half that is still there. Work in it that the control plane never got is kept;
 * `onKept` is told where, and `saved.json` in it says what it is.
 */
export async function removeTaskFolder(paths: TaskFolder, onKept: (place: string) => void = () => {}): Promise<void> {
  const place = await keepSavedWork(paths)
  if (place !== undefined) onKept(place)
  const gone = join(dirname(paths.folder), `${goneMark}${basename(paths.folder)}`)
  await rm(gone, { recursive: true, force: true, maxRetries: 3 })
  try {
    await rename(paths.folder, gone)
  } catch (error) {
    if (error instanceof Error && 'code' in error && error.code === 'ENOENT') return
    throw error
  }
  await rm(gone, { recursive: true, force: true, maxRetries: 3 })
}

const goneMark = '.gone-'

/** What a process that was killed in the middle of it had not removed. */
export async function clearGone(stateDir: string): Promise<void> {
  const folder = tasksFolder(stateDir)
  const names = await readdir(folder).catch(() => [])
  for (const name of names.filter((name) => name.startsWith(goneMark)))
    await rm(join(folder, name), { recursive: true, force: true, maxRetries: 3 })
}

/**
 * Out of the way of all workers, for the operator to look at: a folder whose record cannot be read, torn or of a newer version, or whose control plane
 * has no worker here any more. It goes to `<state>/unreadable/<execution id>`; returns where that is.
 */
export async function setAside({ folder }: TaskFolder): Promise<string> {
  const aside = asideFolder(dirname(dirname(folder)))
  await mkdir(aside, { recursive: true, mode: 0o700 })
  const place = join(aside, basename(folder))
  await rm(place, { recursive: true, force: true })
  await rename(folder, place)
  return place
}

function asideFolder(stateDir: string): string {
  return join(stateDir, 'unreadable')
}

/** Whether the execution has a folder, also one that was set aside. Rejects when that cannot be seen now. */
export async function isKnownHere(stateDir: string, executionId: string): Promise<boolean> {
  for (const path of [taskFolder(stateDir, executionId).folder, join(asideFolder(stateDir), executionId)]) {
    const found = await lstat(path).catch((error: unknown) => {
      if (isAbsent(error)) return undefined
      throw error
    })
    if (found) return true
  }
  return false
}

/** Reads what a task wrote: a plain file, no link, no pipe, at most `maxBytes`. undefined when it is not that. */
export async function readTaskFile(file: string, maxBytes: number): Promise<string | undefined> {
  const flags = constants.O_RDONLY | constants.O_NOFOLLOW | constants.O_NONBLOCK
  const handle = await open(file, flags).catch(() => undefined)
  if (!handle) return undefined
  try {
    const { size, nlink } = await handle.stat().then((stat) => (stat.isFile() ? stat : { size: -1, nlink: 0 }))
    if (size < 0 || size > maxBytes || nlink !== 1) return undefined
    return await handle.readFile('utf8')
  } finally {
    await handle.close()
  }
}

/** The end of a file that the worker itself owns. */
export async function readTail(file: string, maxBytes: number): Promise<string> {
  const handle = await open(file, 'r').catch(() => undefined)
  if (!handle) return ''
  try {
    const { size } = await handle.stat()
    const length = Math.min(size, maxBytes)
    const { buffer, bytesRead } = await handle.read(Buffer.alloc(length), 0, length, size - length)
    return buffer.subarray(0, bytesRead).toString('utf8')
  } finally {
    await handle.close()
  }
}

/** Where an agent keeps what the control plane does not have yet; see `kept-work.ts` of the agent. It is gone once everything is saved. */
export const keptWorkName = 'kept'

/** Where an agent that lost its control plane puts what its run changed; see `save-work.ts` of the agent. */
export const savedWorkName = 'saved-workspace'

/** The same, once its content is in the spool as well: it is removed when that is delivered. */
export const spooledWorkName = 'saved-workspace.spooled'

/** Such work exists nowhere else: it goes to `<state>/saved-workspaces/<execution id>`, for the operator to take it from. */
async function keepSavedWork({ folder, spool }: TaskFolder): Promise<string | undefined> {
  for (const name of [savedWorkName, spooledWorkName]) {
    const saved = join(spool, name)
    const stat = await lstat(saved).catch(() => undefined)
    if (!stat?.isDirectory()) continue
    const kept = join(dirname(dirname(folder)), 'saved-workspaces')
    await mkdir(kept, { recursive: true, mode: 0o700 })
    const place = join(kept, basename(folder))
    await rename(saved, place)
    return place
  }
  return undefined
}
