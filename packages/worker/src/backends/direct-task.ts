import { lchown, open } from 'node:fs/promises'
import {
  createMasker,
  type Dialer,
  endProcessTree,
  type ProcessIdentity,
  type ProcessSelection,
  sleep,
} from '@openoz/machine'
import type { Logger } from 'pino'
import { removeTree } from '../folder-removal.ts'
import { type HookResult, runHook } from '../hook-command.ts'
import type { Isolation, TaskUser } from '../isolation.ts'
import { starter, variablesFile } from '../shell-text.ts'
import { askToEnd, waitForExit } from '../shim-process.ts'
import { deliverSpool } from '../spool-delivery.ts'
import { type BaseEnvironment, hookEnvironment } from '../task-environment.ts'
import { readTail, removeTaskFolder, type TaskFolder, type TaskRecord, writeRecord } from '../task-folder.ts'
import { returnTaskUser } from '../task-users.ts'
import type { StepReporter, Task, TaskExit } from './backend.ts'

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
  dialer: Dialer
  log: Logger
  hookTimeoutMs: number
  deliveryTimeoutMs: number
  teardownCommand?: string
  reporter: StepReporter
}

/** A started agent of the direct backend: `shim` and below. See `Task` for what may be called when. */
export class DirectTask implements Task {
  readonly pid: number
  readonly workspace: string
  readonly exited: Promise<TaskExit>
  readonly #context: DirectTaskContext
  readonly #shim: ProcessIdentity
  readonly #depth: number

  constructor(context: DirectTaskContext, { shim, depth }: { shim: ProcessIdentity; depth: number }) {
    this.#context = context
    this.#shim = shim
    this.#depth = depth
    this.pid = shim.pid
    this.workspace = context.record.workspace
    this.exited = waitForExit(context.paths, shim).catch((): TaskExit => ({ type: 'vanished' }))
  }

  async stop(graceMs: number): Promise<void> {
    const { log } = this.#context
    try {
      if (graceMs > 0) {
        // Below the shim, which adds one to the depth of the isolation.
        await askToEnd(this.#shim, this.#depth)
        if (await endsWithin(this.exited, graceMs)) return
      }
      await endEverything(this.#context, this.#shim)
      await endsWithin(this.exited, 5_000)
    } catch (error) {
      log.error({ error }, 'A task could not be ended')
    }
  }

  async finish({ isAbandoned, signal }: { isAbandoned: boolean; signal: AbortSignal }): Promise<{ lastWords: string }> {
    const { paths, log, token, dialer, secrets, deliveryTimeoutMs } = this.#context
    try {
      await endEverything(this.#context, this.#shim)
      const lastWords = createMasker(secrets).mask(lastLines(await readTail(paths.log, 8 * 1024)))
      const timeoutMs = isAbandoned ? Math.min(deliveryTimeoutMs, 10_000) : deliveryTimeoutMs
      const delivery = await deliverSpool({ folder: paths.spool, token, dialer, log, timeoutMs, signal })
      if (delivery === 'kept') log.warn('The agent’s last events are not delivered yet; they are kept and tried again')
      await tearDown(this.#context)
      await cleanUp(this.#context, { keepsSpool: delivery === 'kept' })
      return { lastWords }
    } catch (error) {
      log.error({ error }, 'A task could not be cleaned up')
      return { lastWords: '' }
    }
  }
}

/** Ends all processes of a task: below the shim, with its marker, of its user. */
export async function endEverything(
  { record, log }: Pick<DirectTaskContext, 'record' | 'log'>,
  shim: ProcessIdentity | undefined,
): Promise<void> {
  const selection: ProcessSelection = { marker: `OZ_EXECUTION_ID=${record.execution_id}` }
  if (record.uid !== undefined) selection.uid = record.uid
  if (shim) selection.root = shim
  const { survivors } = await endProcessTree(selection, 0)
  if (survivors.length > 0) log.error({ pids: survivors.map(({ pid }) => pid) }, 'Processes of a task cannot be ended')
}

/** Runs one of the operator's commands as the task's user, shut in like the task, with nothing of the worker's environment. */
export async function runTaskHook(
  context: DirectTaskContext,
  options: { command: string; variables?: Record<string, string>; signal?: AbortSignal },
): Promise<HookResult> {
  const { record, paths, user, base, isolation, hookTimeoutMs } = context
  const { task_id, execution_id, workspace } = record
  const environment = { ...hookEnvironment({ task_id, execution_id }, { base, workspace }), ...options.variables }
  await writeVariables(context, environment)
  const command = ['/bin/sh', '-c', starter, 'oz-hook', paths.agent.variables, '/bin/sh', '-c', options.command]
  const wrapped = isolation.wrap(command, { user, workspace, exposed: exposedOf(paths) })
  return runHook({
    command: wrapped.command,
    workspace,
    executionId: execution_id,
    logFile: paths.log,
    timeoutMs: hookTimeoutMs,
    signal: options.signal,
  })
}

/** What of the control folder is the task's. */
export function exposedOf(paths: TaskFolder): string[] {
  return [paths.agent.folder, paths.spool]
}

export async function writeVariables(
  { paths, user }: DirectTaskContext,
  variables: Record<string, string>,
): Promise<void> {
  const file = paths.agent.variables
  // The folder is the task's: whatever lies there under this name is removed, not written through.
  await removeTree(file)
  // `wx` follows no link, and what is given away is the file that was opened, whatever lies under its name by then.
  const handle = await open(file, 'wx', 0o600)
  try {
    await handle.writeFile(variablesFile(variables))
    if (user) await handle.chown(user.uid, user.gid)
  } finally {
    await handle.close()
  }
}

async function tearDown(context: DirectTaskContext): Promise<void> {
  const { teardownCommand, reporter, log } = context
  if (teardownCommand === undefined) return
  reporter.started('teardown')
  const { problem, output } = await runTaskHook(context, { command: teardownCommand })
  if (problem === undefined) return reporter.completed('teardown')
  log.warn({ problem }, 'The teardown command failed')
  reporter.failed('teardown', createMasker(context.secrets).mask(`The teardown command failed: ${problem}.\n${output}`))
}

/**
 * Removes what was made for a task, or what there is of it. With `keepsSpool` the record, the token and the spool stay for the sweep; the
 * record then says that the workspace is not its any more: by the time of the sweep another execution of the run may live there.
 */
export async function cleanUp(
  { record, paths, stateDir, log }: Pick<DirectTaskContext, 'record' | 'paths' | 'stateDir' | 'log'>,
  { keepsSpool = false }: { keepsSpool?: boolean } = {},
): Promise<void> {
  let isClean = true
  const attempt = async (work: () => Promise<void>) => {
    try {
      await work()
    } catch (error) {
      isClean = false
      log.error({ error }, 'Something of a task could not be removed; the next sweep tries again')
    }
  }
  const { uid, workspace, removes_workspace } = record
  if (removes_workspace) await attempt(() => removeTree(workspace))
  else log.info({ workspace }, 'The workspace is kept')
  // Its user may be a later task's: nobody but us goes in from now on.
  if (!removes_workspace && uid !== undefined) await lchown(workspace, 0, 0).catch(() => {})
  await attempt(() => removeTree(paths.agent.folder))
  if (keepsSpool) {
    const ended_at = record.ended_at ?? new Date().toISOString()
    const left: TaskRecord = { ...record, removes_workspace: false, process: null, ended_at }
    if (isClean) await attempt(() => writeRecord(paths, left))
    return
  }
  if (isClean) await attempt(() => removeTaskFolder(paths))
  if (uid !== undefined && isClean) await attempt(() => returnTaskUser(stateDir, uid))
}

function lastLines(text: string): string {
  return text.trim().split('\n').slice(-12).join('\n').slice(-2_000)
}

async function endsWithin(exited: Promise<TaskExit>, ms: number): Promise<boolean> {
  const limit = new AbortController()
  const hasEnded = await Promise.race([exited.then(() => true), sleep(ms, limit.signal).then(() => false)])
  limit.abort()
  return hasEnded
}
