import { accessSync, constants, statSync } from 'node:fs'
import { delimiter, dirname, join } from 'node:path'
import type { TaskAssignment } from '@openoz/protocol'
import { markedWith } from './installation.ts'
import type { TaskFolder } from './task-folder.ts'
import { networkVariables, type TaskNetwork } from './task-network.ts'

/**
 * The three variables that everything starts from. Nothing else of the worker's environment reaches a hook, and a task only the way to the
 * network beside them (`task-network.ts`).
 */
export interface BaseEnvironment {
  HOME: string
  TMPDIR: string
  PATH: string
}

interface TaskEnvironmentInput {
  assignment: TaskAssignment
  installationId: string
  paths: TaskFolder
  workspace: string
  base: BaseEnvironment
  network: TaskNetwork
  serverRootUrl: string
  /** From flags and config file. */
  configured: Record<string, string>
  /** From the setup command's file. */
  fromSetup: Record<string, string>
}

/** Later wins; what the worker itself depends on (the marker, the folders) comes last and cannot be overridden. */
export function taskEnvironment(input: TaskEnvironmentInput): Record<string, string> {
  const { assignment, paths, workspace, base, network, serverRootUrl, configured, fromSetup, installationId } = input
  return {
    ...base,
    ...networkVariables(network, paths.given),
    GIT_CONFIG_GLOBAL: paths.agent.gitConfig,
    ...commonVariables(assignment, serverRootUrl),
    ...assignment.env_vars,
    ...configured,
    ...fromSetup,
    ...marks(assignment, { workspace, installationId }),
    OZ_MIRRORS_DIR: paths.given,
    OZ_SPOOL_DIR: paths.spool,
    ...(assignment.execution_token === undefined ? {} : { OZ_EXECUTION_TOKEN_FILE: paths.agent.token }),
  }
}

/** Of every task, whatever it runs in. */
export function commonVariables(
  { task_id: taskId }: Pick<TaskAssignment, 'task_id'>,
  serverRootUrl: string,
): Record<string, string> {
  return { TASK_ID: taskId, GIT_TERMINAL_PROMPT: '0', GH_PROMPT_DISABLED: '1', WARP_SERVER_ROOT_URL: serverRootUrl }
}

/** For the operator's own commands: no token, no assignment variables. */
export function hookEnvironment(
  assignment: Pick<TaskAssignment, 'task_id' | 'execution_id'>,
  { base, ...place }: { base: BaseEnvironment; workspace: string; installationId: string },
): Record<string, string> {
  return { ...base, ...marks(assignment, place) }
}

function marks(
  assignment: Pick<TaskAssignment, 'task_id' | 'execution_id'>,
  { workspace, installationId }: { workspace: string; installationId: string },
): Record<string, string> {
  return {
    // By these two the processes of a task are found, wherever they went.
    ...markedWith(installationId, assignment.execution_id),
    OZ_RUN_ID: assignment.task_id,
    OZ_WORKER_BACKEND: 'direct',
    OZ_WORKSPACE_ROOT: workspace,
  }
}

const fallbackPath = '/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin'

/** The worker's PATH; where it has no `node`, with the folder of the one that runs us, because `oz` is a script. */
export function taskPath(env: NodeJS.ProcessEnv): string {
  const path = env.PATH || fallbackPath
  return findOnPath('node', path) === undefined ? `${path}${delimiter}${dirname(process.execPath)}` : path
}

/** Absolute path of a program, looked up as a shell does. */
export function findOnPath(name: string, path: string): string | undefined {
  const candidates = path.split(delimiter).filter((folder) => folder.startsWith('/'))
  return candidates.map((folder) => join(folder, name)).find(isExecutable)
}

export function isExecutable(file: string): boolean {
  try {
    accessSync(file, constants.X_OK)
    return statSync(file).isFile()
  } catch {
    return false
  }
}

/** `KEY=VALUE` lines: blank lines and comments are skipped, `export ` and one pair of quotes are taken off. Other lines are returned as bad. */
export function parseEnvironmentFile(text: string): { values: Record<string, string>; badLines: number[] } {
  const values: Record<string, string> = {}
  const badLines: number[] = []
  for (const [index, line] of text.split(/\r?\n/).entries()) {
    if (/^\s*(#|$)/.test(line)) continue
    const [, name, value = ''] = /^\s*(?:export\s+)?([A-Za-z_][A-Za-z0-9_]*)=(.*)$/.exec(line) ?? []
    if (name === undefined) badLines.push(index + 1)
    else values[name] = value.replace(/^(["'])(.*)\1\s*$/, '$2')
  }
  return { values, badLines }
}
