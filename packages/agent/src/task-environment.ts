import type { HelloResponse } from '@openoz/protocol'

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

/** What setup commands and tools inherit: the task's environment without what is ours, and nothing in it that waits for a person. */
export function taskEnvironment(env: NodeJS.ProcessEnv, hello: HelloResponse): NodeJS.ProcessEnv {
  const task = { ...env }
  for (const name of privateNames) delete task[name]
  const harness = hello.config.harness?.type ?? 'oz'
  return {
    ...task,
    [markerName]: env[markerName] ?? hello.execution_id,
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
