import { posix } from 'node:path'
import type { TaskAssignment } from '@openoz/protocol'
import type { TarEntry } from '../engine/tar-text.ts'
import { commonVariables } from '../task-environment.ts'
import { authorityFiles, networkVariables, type TaskNetwork } from '../task-network.ts'
import { controlFolder, workspaceFolder } from './docker-spec.ts'

/**
 * What a container's agent is told: variables, which everybody with access to the engine can read, and files in `/run/openoz`, which the task alone can.
 * The token of the execution is a file, and whatever may hold a secret and can be one. What programs take from variables alone stands there with its
 * secrets: the operator's (`-e`), and passwords of proxies.
 *
 *   /run/openoz/token            the agent reads it once, and removes it
 *   /run/openoz/gitconfig        for all git programs of the task
 *   /run/openoz/mcp.json         MCP servers, whose headers and variables hold secrets
 *   /run/openoz/authorities.pem  and git-authorities.pem: whom the worker trusts beside the usual ones
 *   /run/openoz/spool/           the agent's events, its lease
 *   /run/openoz/home/, tmp/      for images that have none, or none that can be written to
 */
const inControl = (name: string) => posix.join(controlFolder, name)
export const controlPaths = {
  token: inControl('token'),
  gitConfig: inControl('gitconfig'),
  mcp: inControl('mcp.json'),
  spool: inControl('spool'),
  /** By when the agent must be dead; see `oz-task`. */
  lease: inControl('spool/lease'),
  home: inControl('home'),
  temporary: inControl('tmp'),
}

/** By which workers that know no other way hand over a token. */
const tokenNames = ['WARP_API_KEY', 'OZ_API_KEY']

/** undefined: the control plane gave none. */
export function tokenOf({ execution_token: token, env_vars: given = {} }: TaskAssignment): string | undefined {
  return token ?? tokenNames.map((name) => given[name]).find((value) => value !== undefined)
}

interface ContainerEnvironmentInput {
  assignment: TaskAssignment
  network: TaskNetwork
  /** As the container reaches it. */
  serverRootUrl: string
  /** From flags and config file. */
  configured: Record<string, string>
  /** An agent that is not ours takes its token from a variable, and knows nothing of the rest. */
  isForeignAgent: boolean
}

/** Later wins; what the worker itself depends on comes last and cannot be overridden. */
export function containerEnvironment(input: ContainerEnvironmentInput): Record<string, string> {
  const { assignment, network, serverRootUrl, configured, isForeignAgent } = input
  const token = tokenOf(assignment)
  const given = Object.entries(assignment.env_vars ?? {}).filter(([name]) => !tokenNames.includes(name))
  return {
    ...networkVariables(network, controlFolder),
    ...(isForeignAgent ? {} : { GIT_CONFIG_GLOBAL: controlPaths.gitConfig }),
    ...commonVariables(assignment, serverRootUrl),
    ...Object.fromEntries(given),
    ...configured,
    OZ_EXECUTION_ID: assignment.execution_id,
    OZ_RUN_ID: assignment.task_id,
    OZ_WORKER_BACKEND: 'docker',
    OZ_WORKSPACE_ROOT: workspaceFolder,
    ...(isForeignAgent
      ? { ...(token === undefined ? {} : { WARP_API_KEY: token }) }
      : {
          OZ_SPOOL_DIR: controlPaths.spool,
          ...(token === undefined ? {} : { OZ_EXECUTION_TOKEN_FILE: controlPaths.token }),
        }),
  }
}

/** What is written into the task's volumes before its container starts; `user` owns all of it. Names begin at the container's root. */
export function controlEntries(
  assignment: TaskAssignment,
  {
    user,
    network,
    isForeignAgent,
  }: { user: { uid: number; gid: number } } & Pick<ContainerEnvironmentInput, 'network' | 'isForeignAgent'>,
): TarEntry[] {
  const token = tokenOf(assignment)
  const mcpServers = assignment.task.agent_config_snapshot?.mcp_servers
  const { authorities } = network
  const folder = (path: string, mode = 0o700): TarEntry => ({
    name: `${path.slice(1)}/`,
    type: 'directory',
    mode,
    ...user,
  })
  const file = (path: string, body: string): TarEntry => ({ name: path.slice(1), body, ...user })
  return [
    // Where a task's own users (of a database, of apt) must be able to pass through.
    folder(workspaceFolder, 0o755),
    folder(controlFolder, 0o711),
    ...[controlPaths.spool, controlPaths.home, controlPaths.temporary].map((path) => folder(path)),
    // Repositories that somebody else cloned are used on purpose here; git would refuse them.
    file(controlPaths.gitConfig, '[safe]\n\tdirectory = *\n'),
    ...(token === undefined || isForeignAgent ? [] : [file(controlPaths.token, token)]),
    ...(mcpServers === undefined ? [] : [file(controlPaths.mcp, JSON.stringify({ mcpServers }))]),
    ...(authorities
      ? (['extra', 'all'] as const).map((kind) => file(inControl(authorityFiles[kind]), authorities[kind]))
      : []),
  ]
}
