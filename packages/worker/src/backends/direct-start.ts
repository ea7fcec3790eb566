import { join } from 'node:path'
import { createMasker, identifyProcess } from '@openoz/machine'
import type { TaskAssignment } from '@openoz/protocol'
import { launchArguments } from '../launch-command.ts'
import { starter } from '../shell-text.ts'
import { startShim } from '../shim-process.ts'
import { keepRoomForEnd } from '../task-end.ts'
import { parseEnvironmentFile, taskEnvironment } from '../task-environment.ts'
import {
  createTaskFolder,
  makeTaskFolder,
  readTaskFile,
  removeTaskFolder,
  type TaskRecord,
  taskFolder,
  writeRecord,
} from '../task-folder.ts'
import { secretsOf } from '../task-secrets.ts'
import { returnTaskUser, takeTaskUser } from '../task-users.ts'
import { type StepReporter, TaskFailure } from './backend.ts'
import { type DirectTaskContext, exposedOf, runTaskHook, writeVariables } from './direct-context.ts'
import { contextOf, type DirectHost } from './direct-host.ts'
import { DirectTask } from './direct-task.ts'
import type { HeldTask } from './held-tasks.ts'

/** The steps of a task's start, in order. */

/** Folder and user: nothing that another execution could notice. Leaves nothing behind when it rejects. */
export async function prepareTask(
  host: DirectHost,
  assignment: TaskAssignment,
  reporter: StepReporter,
): Promise<DirectTaskContext> {
  const { worker, isolation, stateDir, held } = host
  const { task_id: taskId, execution_id: executionId, execution_token: token } = assignment
  const { targetDir } = worker.direct
  const paths = taskFolder(stateDir, executionId)
  const lock = await makeTaskFolder(paths)
  const task: HeldTask<DirectTaskContext> = { lock }
  held.hold(executionId, task)
  let uid: number | undefined
  try {
    if (isolation.kind === 'uid' && !isolation.sharedUser) uid = await takeTaskUser(stateDir, executionId)
    const user = uid === undefined ? isolation.sharedUser : { uid, gid: uid }
    const record: TaskRecord = {
      version: 1,
      worker_id: worker.workerId,
      server_url: worker.serverUrl,
      task_id: taskId,
      execution_id: executionId,
      backend: host.backend,
      uid,
      workspace: targetDir ?? join(host.workspaceRoot, taskId),
      removes_workspace: targetDir === undefined && worker.cleanup,
      worker: identifyProcess(process.pid) ?? null,
      instance: host.instances.own,
      process: null,
      started_at: new Date().toISOString(),
    }
    const secrets = [...secretsOf(assignment, worker.apiKey), ...host.network.secrets]
    const context = contextOf(host, { record, paths, user, token, secrets, reporter })
    const mcpServers = assignment.task.agent_config_snapshot?.mcp_servers
    const { authorities } = host.network
    await keepRoomForEnd(paths)
    await createTaskFolder(paths, { record, token, mcpServers, authorities, owner: user })
    task.context = context
    return context
  } catch (error) {
    held.forget(executionId)
    await removeTaskFolder(paths).catch(() => {})
    if (uid !== undefined) await returnTaskUser(stateDir, uid, executionId).catch(() => {})
    throw error
  }
}

/** Runs the setup command; returns what it put into its environment file. */
export async function setUpTask(
  host: DirectHost,
  context: DirectTaskContext,
  signal: AbortSignal,
): Promise<Record<string, string>> {
  const { setupCommand } = host.worker.direct
  if (setupCommand === undefined) return {}
  const file = context.paths.agent.setupEnvironment
  const variables = { OZ_ENVIRONMENT_FILE: file }
  const { problem, output, exitCode } = await runTaskHook(context, { command: setupCommand, variables, signal })
  if (problem !== undefined) {
    const words = createMasker(context.secrets).mask(`The worker’s setup command failed: ${problem}.\n${output}`.trim())
    context.reporter.failed('worker_setup', words)
    throw new TaskFailure('setup_command', words, { exitCode })
  }
  const { values, badLines } = parseEnvironmentFile((await readTaskFile(file, 1024 * 1024)) ?? '')
  if (badLines.length > 0) context.log.warn({ lines: badLines }, 'Lines of the environment file are no KEY=VALUE')
  return values
}

export async function launchTask(
  host: DirectHost,
  context: DirectTaskContext,
  { assignment, fromSetup }: { assignment: TaskAssignment; fromSetup: Record<string, string> },
): Promise<DirectTask> {
  const { worker, installationId } = host
  const { paths, record, user, base } = context
  const variables = taskEnvironment({
    assignment,
    installationId,
    paths,
    workspace: record.workspace,
    base,
    network: host.network,
    serverRootUrl: worker.serverRootUrl,
    configured: worker.taskEnvironment,
    fromSetup,
  })
  await writeVariables(context, variables)
  const hasMcp = assignment.task.agent_config_snapshot?.mcp_servers !== undefined
  const args = launchArguments(assignment, { ...worker, mcpFile: hasMcp ? paths.agent.mcp : undefined })
  const command = ['/bin/sh', '-c', starter, 'oz-starter', paths.agent.variables, host.oz, ...args]
  const wrapped = context.isolation.wrap(command, {
    user,
    workspace: record.workspace,
    exposed: exposedOf(paths),
  })
  const { execution_id: executionId, workspace, uid } = record
  const shim = await startShim({ paths, command: wrapped.command, workspace, executionId, installationId, uid })
  const task = new DirectTask(context, { shim, depth: wrapped.depth }, host.leaving)
  record.process = shim
  try {
    await writeRecord(paths, record)
  } catch (error) {
    await task.stop(0)
    throw error
  }
  return task
}

export function describeSetup({ isolation }: DirectHost, assignment: TaskAssignment): string {
  const image = assignment.docker_image ?? assignment.task.agent_config_snapshot?.environment?.docker_image
  const about = image === undefined ? '' : ` The image ${image} does not apply on the direct backend.`
  return `Isolation: ${isolation.text}.${about}`
}
