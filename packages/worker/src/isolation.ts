import { execFile } from 'node:child_process'
import { existsSync, realpathSync, statSync } from 'node:fs'
import { chown, mkdir, mkdtemp, rm } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { dirname, join } from 'node:path'
import { promisify } from 'node:util'
import { userFolders } from '@openoz/machine'
import { findOnPath } from './task-environment.ts'
import { closedFolders, initScript, isWithin } from './task-mounts.ts'

/**
 * How tasks of the direct backend are kept from what the machine's owner, the server and the worker have. Decided once, by trying:
 *
 * - `uid`: the worker is root. Each task runs as a user of its own, or as the owner of the target directory.
 * - `namespaces`: the worker is an ordinary user, or the target directory is root's. The task keeps the user, but the server's data, the
 *   login, other tasks and all other processes are hidden from it, and it has no right to undo that.
 * - `none`: neither is allowed here. Tasks can read what the worker's user can read, and the log says so.
 *
 * A `uid` task gets PID and mount namespaces on top where the machine allows them: command lines are public even to another user, and a
 * program below a closed folder (`/root`) can be brought into view.
 */
export type IsolationKind = 'uid' | 'namespaces' | 'none'

export interface IsolationReport {
  kind: IsolationKind
  /** Whether a task sees only its own processes. */
  hidesProcesses: boolean
  /** One sentence for the log, the run and `oz doctor`. */
  text: string
}

export interface Isolation extends IsolationReport {
  /** Set where all tasks share one user: the owner of the target directory. */
  sharedUser?: TaskUser
  /** The command that runs `command` shut in. How many processes lie between the first and the command's own: `depth`. */
  wrap(command: string[], task: ShutInTask): { command: string[]; depth: number }
}

export interface TaskUser {
  uid: number
  gid: number
}

interface ShutInTask {
  user?: TaskUser
  workspace: string
  /** Other places that the task needs. */
  exposed: string[]
}

interface IsolationOptions {
  env: NodeJS.ProcessEnv
  stateDir: string
  workspaceRoot: string
  targetDir?: string
  /** Programs that the task has to be able to start. */
  programs: string[]
  hiddenPaths?: string[]
  readablePaths?: string[]
}

const run = promisify(execFile)

/** Tries what is possible here, strongest first. Never rejects. */
export async function chooseIsolation(options: IsolationOptions): Promise<Isolation> {
  const candidates = await isolationCandidates(options)
  const problems: string[] = []
  for (const candidate of candidates) {
    const problem = await tryIsolation(candidate, options)
    if (problem === undefined) return candidate
    problems.push(problem)
  }
  const why = problems.length === 0 ? '' : ` (${[...new Set(problems)].join('; ')})`
  return {
    kind: 'none',
    hidesProcesses: false,
    text: `no isolation: tasks can read what this user can read${why}`,
    wrap: (command) => ({ command, depth: 1 }),
  }
}

/** What tasks of a worker started here and now would get; for `oz doctor`. */
export async function describeIsolation(
  options: { env?: NodeJS.ProcessEnv; targetDir?: string } = {},
): Promise<IsolationReport> {
  const folder = await mkdtemp(join(tmpdir(), 'oz-isolation-'))
  try {
    const { kind, hidesProcesses, text } = await chooseIsolation({
      env: options.env ?? process.env,
      stateDir: folder,
      workspaceRoot: folder,
      targetDir: options.targetDir,
      programs: [process.execPath],
    })
    return { kind, hidesProcesses, text }
  } finally {
    await rm(folder, { recursive: true, force: true })
  }
}

interface Tools {
  unshare: string | undefined
  setpriv: string | undefined
}

async function isolationCandidates(options: IsolationOptions): Promise<Isolation[]> {
  if (process.platform !== 'linux') return []
  const path = `${options.env.PATH ?? ''}:/usr/local/sbin:/usr/sbin:/sbin:/usr/local/bin:/usr/bin:/bin`
  const tools = { unshare: findOnPath('unshare', path), setpriv: findOnPath('setpriv', path) }
  if (process.getuid?.() !== 0) return [namespacesOfUser(tools, options)]
  if (options.targetDir === undefined) {
    return [asOwnUser(tools, options, { withNamespaces: true }), asOwnUser(tools, options, { withNamespaces: false })]
  }
  const { uid, gid } = statSync(options.targetDir)
  if (uid === 0) return [namespacesOfRoot(tools, options)]
  const sharedUser = { uid, gid }
  return [
    { ...asOwnUser(tools, options, { withNamespaces: true }), sharedUser, text: ownerText(uid, true) },
    { ...asOwnUser(tools, options, { withNamespaces: false }), sharedUser, text: ownerText(uid, false) },
  ]
}

function ownerText(uid: number, hidesProcesses: boolean): string {
  const processes = hidesProcesses ? ', without sight of other processes' : ''
  return `tasks run as the owner of the target directory (user ${uid})${processes}`
}

function asOwnUser(
  tools: Tools,
  options: IsolationOptions,
  { withNamespaces }: { withNamespaces: boolean },
): Isolation {
  const processes = withNamespaces ? 'see only their own processes' : 'can see the command lines of other processes'
  return {
    kind: 'uid',
    hidesProcesses: withNamespaces,
    text: `each task runs as a user of its own; tasks ${processes}`,
    wrap(command, task) {
      const { uid, gid } = task.user ?? { uid: 65_534, gid: 65_534 }
      const drop = [needed(tools.setpriv), '--reuid', String(uid), '--regid', String(gid), '--clear-groups']
      const inner = [...drop, '--no-new-privs', '--inh-caps=-all', '--bounding-set=-all', '--', ...command]
      return withNamespaces
        ? inNamespaces({ tools, options, task, inner, userFlags: [] })
        : { command: inner, depth: 1 }
    },
  }
}

function namespacesOfUser(tools: Tools, options: IsolationOptions): Isolation {
  const [uid, gid] = [process.getuid?.() ?? 0, process.getgid?.() ?? 0]
  return {
    kind: 'namespaces',
    hidesProcesses: true,
    text: 'tasks run as this user, but cannot see its login, the server’s data, other tasks or other processes',
    wrap(command, task) {
      // A second user namespace: in it nobody has a right over the mounts of the first, and copies of them are locked.
      const again = [needed(tools.unshare), '--user', `--map-user=${uid}`, `--map-group=${gid}`, '--']
      const inner = [...again, needed(tools.setpriv), '--no-new-privs', '--', ...command]
      return inNamespaces({ tools, options, task, inner, userFlags: ['--user', '--map-root-user'] })
    },
  }
}

/** Root without capabilities still owns the system's files, so this hides, but does not hold what wants to break out. */
function namespacesOfRoot(tools: Tools, options: IsolationOptions): Isolation {
  return {
    kind: 'namespaces',
    hidesProcesses: true,
    text: 'tasks run as root, the owner of the target directory; give it to another user for a real separation',
    wrap(command, task) {
      const drop = [needed(tools.setpriv), '--no-new-privs', '--inh-caps=-all', '--bounding-set=-all']
      return inNamespaces({ tools, options, task, inner: [...drop, '--', ...command], userFlags: [] })
    },
  }
}

function inNamespaces(input: {
  tools: Tools
  options: IsolationOptions
  task: ShutInTask
  inner: string[]
  userFlags: string[]
}): { command: string[]; depth: number } {
  const { tools, options, task, inner, userFlags } = input
  const needs = [task.workspace, ...task.exposed, ...(options.readablePaths ?? [])]
  const closed = task.user ? needs.flatMap((path) => closedFolders(path).slice(0, 1)) : []
  const closedToPrograms = task.user
    ? options.programs.flatMap((path) => closedFolders(realpathSync(path)).slice(0, 1))
    : []
  const hidden = [...privateFolders(options), ...closed, ...closedToPrograms]
  const programs = options.programs.map((path) => programFolder(realpathSync(path), hidden))
  const script = initScript({
    hidden,
    exposed: [...needs, ...programs],
    workingFolder: task.workspace,
  })
  const flags = ['--mount', '--pid', '--fork', '--kill-child', '--mount-proc']
  return {
    command: [needed(tools.unshare), ...userFlags, ...flags, '--', '/bin/sh', '-c', script, 'oz-task', ...inner],
    // unshare, the first process of the namespace, the command.
    depth: 3,
  }
}

/** What no task has any business with. */
function privateFolders({ env, stateDir, workspaceRoot, hiddenPaths = [] }: IsolationOptions): string[] {
  const { config, data } = userFolders(env)
  const uid = process.getuid?.() ?? 0
  return [
    config,
    data,
    '/var/lib/openoz',
    ...(env.OZ_DATA_DIR ? [env.OZ_DATA_DIR] : []),
    // Through the session bus in here any program could be started outside.
    `/run/user/${uid}`,
    stateDir,
    workspaceRoot,
    ...hiddenPaths,
  ]
}

/** The outermost folder of the installation that a program belongs to, inside of what is hidden; the program's own folder if there is no sign. */
function programFolder(program: string, hidden: string[]): string {
  const floors = [...hidden.filter((path) => isWithin(program, path)), ...closedFolders(program)]
  const floor = floors.sort((a, b) => b.length - a.length)[0]
  let found = dirname(program)
  if (floor === undefined) return found
  for (let folder = found; folder !== floor && isWithin(folder, floor); folder = dirname(folder)) {
    if (existsSync(join(folder, 'package.json')) || existsSync(join(folder, 'node_modules'))) found = folder
  }
  // The hidden folder itself must not come back whole.
  return found === floor ? program : found
}

/** Runs a small program the way that tasks will run; undefined when it worked, else why not. */
async function tryIsolation(isolation: Isolation, options: IsolationOptions): Promise<string | undefined> {
  const { workspaceRoot, targetDir, programs } = options
  let folder: string | undefined
  try {
    folder = await mkdtemp(join(workspaceRoot, '.probe-'))
    const workspace = targetDir ?? join(folder, 'workspace')
    if (targetDir === undefined) await mkdir(workspace, { mode: 0o700 })
    const isRoot = process.getuid?.() === 0
    const user = isRoot ? (isolation.sharedUser ?? (targetDir === undefined ? probeUser : undefined)) : undefined
    if (user) {
      await chown(folder, user.uid, user.gid)
      if (targetDir === undefined) await chown(workspace, user.uid, user.gid)
    }
    const test =
      'cd "$0" && [ -w . ] || { echo "the workspace cannot be entered"; exit 1; }\n' +
      'for program do [ -r "$program" ] && [ -x "$program" ] || { echo "$program cannot be read"; exit 1; }; done'
    const real = programs.map((program) => realpathSync(program))
    const { command } = isolation.wrap(['/bin/sh', '-c', test, workspace, ...real], {
      user,
      workspace,
      exposed: [],
    })
    const [file = '', ...args] = command
    await run(file, args, { cwd: workspace, env: { PATH: systemPath }, timeout: 10_000, killSignal: 'SIGKILL' })
    return undefined
  } catch (error) {
    return describeProbe(error)
  } finally {
    if (folder !== undefined) await rm(folder, { recursive: true, force: true })
  }
}

const probeUser: TaskUser = { uid: 61_184, gid: 61_184 }

/** For programs that run before a task has its own variables. */
export const systemPath = '/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin'

function describeProbe(error: unknown): string {
  if (error instanceof MissingTool) return error.message
  const output = error as { stderr?: string; stdout?: string; message?: string }
  const line = `${output.stdout ?? ''}\n${output.stderr ?? ''}`.split('\n').find((text) => text.trim() !== '')
  return (line ?? output.message ?? 'unknown').trim().slice(0, 200)
}

class MissingTool extends Error {}

function needed(tool: string | undefined): string {
  if (tool === undefined) throw new MissingTool('unshare and setpriv of util-linux are not installed')
  return tool
}
