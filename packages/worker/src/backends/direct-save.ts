import { lstat } from 'node:fs/promises'
import { join } from 'node:path'
import { leaseLostExitCode } from '@openoz/protocol'
import { variablesFile } from '../shell-text.ts'
import { hookEnvironment } from '../task-environment.ts'
import { keptWorkName, readTaskFile } from '../task-folder.ts'
import { type DirectTaskContext, runAsTask, writeForTask } from './direct-context.ts'
import { ownsItsWorkspace } from './direct-workspace.ts'
import type { SaveResult } from './ended-task.ts'

/**
 * What an agent that died has left unsaved is saved by a second process of the same task: `oz agent save-work`, shut in as the agent was, with its
 * variables and token. Never by the worker itself: git runs programs that a repository names, and the worker's secrets would be in their reach.
 *
 * Called when nothing of the task runs any more, and before its spool is delivered, which then holds what the saver said.
 */

/** What the task wrote into its own file of variables; far more than a worker ever puts there. */
const maxVariablesBytes = 1024 * 1024

/** Never rejects. */
export async function saveLeftWork(context: DirectTaskContext, signal: AbortSignal): Promise<SaveResult> {
  const { record, paths, token, oz, serverRootUrl, savingTimeoutMs, log } = context
  const { task_id, execution_id, workspace } = record
  // Only whether it is there: the rest is for the saver, who is the task.
  const kept = await lstat(join(paths.spool, keptWorkName)).catch(() => undefined)
  if (!kept?.isDirectory()) return 'none'
  try {
    // Another worker of this machine has the run now, and has cleared the folder for it.
    if (!(await ownsItsWorkspace(context))) throw new Error('the workspace belongs to a newer execution')
    if (token === undefined) throw new Error('the token of the execution is not there any more')
    await writeForTask(context, paths.agent.token, token)
    const given = await readTaskFile(paths.agent.variables, maxVariablesBytes)
    const ours = {
      OZ_SPOOL_DIR: paths.spool,
      OZ_EXECUTION_TOKEN_FILE: paths.agent.token,
      OZ_EXECUTION_ID: execution_id,
    }
    const basic = hookEnvironment(
      { task_id, execution_id },
      { base: context.base, workspace, installationId: context.installationId },
    )
    const variables = `${variablesFile(basic)}${given ?? ''}\n${variablesFile(ours)}`
    await writeForTask(context, paths.agent.variables, variables)
    const program = [oz, 'agent', 'save-work', '--server-root-url', serverRootUrl]
    const { problem, exitCode } = await runAsTask(context, { program, timeoutMs: savingTimeoutMs, signal })
    if (exitCode === leaseLostExitCode) return 'again'
    if (problem !== undefined) throw new Error(problem)
    log.info('The agent died without saving; what it had done was saved')
    return 'saved'
  } catch (error) {
    const problem = error instanceof Error ? error.message : 'unknown error'
    log.error({ problem }, 'What an agent left that died could not be saved: its files since the last save are lost')
    return 'lost'
  }
}
