import { open } from 'node:fs/promises'
import type { Dialer } from '@openoz/machine'
import type { Logger } from 'pino'
import { removeTree } from '../folder-removal.ts'
import { type HookResult, runHook } from '../hook-command.ts'
import type { Isolation, TaskUser } from '../isolation.ts'
import type { Link } from '../link.ts'
import { starter, variablesFile } from '../shell-text.ts'
import { type BaseEnvironment, hookEnvironment } from '../task-environment.ts'
import type { TaskFolder, TaskRecord } from '../task-folder.ts'
import type { StepReporter } from './backend.ts'

/** Everything about a task of the direct backend that does not change while it lives. */
export interface DirectTaskContext {
  record: TaskRecord
  paths: TaskFolder
  user?: TaskUser
  base: BaseEnvironment
  isolation: Isolation
  token?: string
  /** Never to be seen in what the worker reports. */
  secrets: string[]
  stateDir: string
  installationId: string
  /** Whether the control plane can be reached. */
  link: Link
  dialer: Dialer
  log: Logger
  hookTimeoutMs: number
  deliveryTimeoutMs: number
  /** The agent's program, which also saves what an agent left. */
  oz: string
  serverRootUrl: string
  savingTimeoutMs: number
  unsteadyTimeoutMs: number
  teardownCommand?: string
  reporter: StepReporter
}

/** Runs one of the operator's commands as the task's user, shut in like the task, with nothing of the worker's environment. */
export async function runTaskHook(
  context: DirectTaskContext,
  options: { command: string; variables?: Record<string, string>; signal?: AbortSignal },
): Promise<HookResult> {
  const { task_id, execution_id, workspace } = context.record
  const refs = { task_id, execution_id }
  const environment = {
    ...hookEnvironment(refs, { base: context.base, workspace, installationId: context.installationId }),
    ...options.variables,
  }
  await writeVariables(context, environment)
  const { hookTimeoutMs: timeoutMs } = context
  return runAsTask(context, { program: ['/bin/sh', '-c', options.command], timeoutMs, signal: options.signal })
}

/** Runs a program beside the agent, or after it, with the variables that were written last. Rejects only with the signal's reason. */
export async function runAsTask(
  { record, paths, user, isolation, installationId }: DirectTaskContext,
  { program, timeoutMs, signal }: { program: string[]; timeoutMs: number; signal?: AbortSignal },
): Promise<HookResult> {
  const { execution_id: executionId, workspace } = record
  const command = ['/bin/sh', '-c', starter, 'oz-hook', paths.agent.variables, ...program]
  const wrapped = isolation.wrap(command, { user, workspace, exposed: exposedOf(paths) })
  const marks = { executionId, installationId }
  return runHook({ command: wrapped.command, workspace, ...marks, logFile: paths.log, timeoutMs, signal })
}

/** What of the control folder is the task's. */
export function exposedOf(paths: TaskFolder): string[] {
  return [paths.agent.folder, paths.spool, paths.given]
}

export async function writeVariables(context: DirectTaskContext, variables: Record<string, string>): Promise<void> {
  await writeForTask(context, context.paths.agent.variables, variablesFile(variables))
}

/** A file in the task's own folder, for the task alone. */
export async function writeForTask({ user }: DirectTaskContext, file: string, text: string): Promise<void> {
  // The folder is the task's: whatever lies there under this name is removed, not written through.
  await removeTree(file)
  // `wx` follows no link, and what is given away is the file that was opened, whatever lies under its name by then.
  const handle = await open(file, 'wx', 0o600)
  try {
    await handle.writeFile(text)
    if (user) await handle.chown(user.uid, user.gid)
  } finally {
    await handle.close()
  }
}
