import { withoutRepository } from '@openoz/machine'
import { type HelloResponse, isReservedVariable } from '@openoz/protocol'

/** The marker that worker and agent find a task's processes by, also those that left their parents. */
export const markerName = 'OZ_EXECUTION_ID'

/** Ours alone. The cli has taken them out already; nobody who calls us otherwise shall leak them to a tool. */
const privateNames = [
  'OZ_EXECUTION_TOKEN_FILE',
  'OZ_API_KEY',
  'WARP_API_KEY',
  'OZ_SPOOL_DIR',
  'OZ_SERVER_URL',
  'WARP_SERVER_ROOT_URL',
]

/** Variables of the run's environment that it may not set, by name. */
export function reservedVariables({ config }: HelloResponse): string[] {
  return Object.keys(config.environment?.variables ?? {}).filter(isReservedVariable)
}

function usableVariables({ config }: HelloResponse): Record<string, string> {
  const variables = Object.entries(config.environment?.variables ?? {})
  return Object.fromEntries(variables.filter(([name]) => !isReservedVariable(name)))
}

/**
 * What setup commands and tools inherit: the task's environment without what is ours, the variables of the run's environment, and nothing in it
 * that waits for a person.
 */
export function taskEnvironment(env: NodeJS.ProcessEnv, hello: HelloResponse): NodeJS.ProcessEnv {
  // Started by a git hook, the run is about its folder, not about the repository and the index of that hook.
  const task = { ...(isLocal(hello) ? withoutRepository(env) : env), ...usableVariables(hello) }
  for (const name of privateNames) delete task[name]
  const harness = hello.config.harness?.type ?? 'oz'
  return {
    ...task,
    ...ofPlace(env, hello),
    OZ_RUN_ID: hello.run_id,
    WARP_RUN_ID: hello.run_id,
    OZ_HARNESS: harness,
    WARP_HARNESS: harness,
    TERM: 'dumb',
    PAGER: 'cat',
    GIT_PAGER: 'cat',
    // An editor would wait for ever; this one leaves the text as git proposes it.
    GIT_EDITOR: 'true',
    GIT_TERMINAL_PROMPT: '0',
    GCM_INTERACTIVE: 'never',
  }
}

/**
 * A worker has marked its task already. Whoever starts an agent by hand may be a tool of another run: with that run's marker, this one would end
 * the other's processes along with its own.
 */
function ofPlace(env: NodeJS.ProcessEnv, hello: HelloResponse): NodeJS.ProcessEnv {
  if (!isLocal(hello)) return { [markerName]: env[markerName] ?? hello.execution_id }
  const parent = env.OZ_RUN_ID ?? env.WARP_RUN_ID
  return {
    [markerName]: hello.execution_id,
    ...(parent === undefined ? {} : { OZ_PARENT_RUN_ID: parent, WARP_PARENT_RUN_ID: parent }),
  }
}

/** The run is in a folder that belongs to a person, and no worker answers for it. */
export function isLocal(hello: HelloResponse): boolean {
  return hello.execution_location === 'LOCAL'
}
