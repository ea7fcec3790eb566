import { readFile } from 'node:fs/promises'
import { homedir, tmpdir } from 'node:os'
import { join } from 'node:path'
import { createMasker, type Dialer, identifyProcess, type ProcessIdentity } from '@openoz/machine'
import { AppError, describeError, type TaskAssignment } from '@openoz/protocol'
import type { Logger } from 'pino'
import { chooseIsolation, type Isolation, type TaskUser } from '../isolation.ts'
import { launchArguments } from '../launch-command.ts'
import type { Mirrors } from '../mirrors.ts'
import { starter } from '../shell-text.ts'
import { startShim } from '../shim-process.ts'
import {
  type BaseEnvironment,
  findOnPath,
  isExecutable,
  parseEnvironmentFile,
  taskEnvironment,
  taskPath,
} from '../task-environment.ts'
import {
  createTaskFolder,
  readTaskFile,
  type TaskFolder,
  type TaskRecord,
  taskFolder,
  tasksFolder,
  writeRecord,
} from '../task-folder.ts'
import { readTaskNetwork, type TaskNetwork } from '../task-network.ts'
import { takeTaskUser } from '../task-users.ts'
import type { WorkerOptions } from '../worker-options.ts'
import { type AdoptedTask, type Backend, type StepReporter, type Task, TaskFailure, type TaskRefs } from './backend.ts'
import { type DirectTaskContext, exposedOf, runTaskHook, writeVariables } from './direct-context.ts'
import { directLayout } from './direct-layout.ts'
import { type Mirroring, mirrorForTask, openMirrors } from './direct-mirrors.ts'
import { saveLeftWork } from './direct-save.ts'
import { clearEnded, clearFormerExecutions, deliverLeft, listOutlivers, type SweepScope } from './direct-sweep.ts'
import { cleanUp, DirectTask, endEverything } from './direct-task.ts'
import { isFolder, layFoldersApart, makeWorkspace, makeWritable, workspaceFailure } from './direct-workspace.ts'

/**
 * Tasks as processes of this machine: a process tree and a folder each. It owns `<state>/tasks` and the workspaces; `task-folder.ts` says
 * what lies there, `isolation.ts` how tasks are kept apart, `shell-text.ts` what stands between worker and agent.
 */
interface DirectBackendOptions {
  worker: WorkerOptions
  dialer: Dialer
  log: Logger
  /** How long an ended agent's events may take to be delivered before its outcome is reported. */
  deliveryTimeoutMs?: number
  /** How long what a dead agent left may take to be saved. Its lease holds meanwhile: the saver renews it. */
  savingTimeoutMs?: number
}

export function createDirectBackend({
  worker,
  dialer,
  log,
  deliveryTimeoutMs = 30_000,
  savingTimeoutMs = 120_000,
}: DirectBackendOptions): Backend {
  return new DirectBackend({ worker, dialer, log, deliveryTimeoutMs, savingTimeoutMs })
}

class DirectBackend implements Backend {
  readonly name = 'direct'
  readonly #options: Required<DirectBackendOptions>
  readonly #stateDir: string
  readonly #workspaceRoot: string
  /** Executions that this process answers for, from the first folder to the last. */
  readonly #active = new Set<string>()
  #queue: Promise<unknown> = Promise.resolve()
  #oz = ''
  #isolation: Isolation | undefined
  #network: TaskNetwork = { proxies: {}, secrets: [] }
  /** undefined: the operator wants none. */
  #mirrors: Mirrors | undefined

  constructor(options: Required<DirectBackendOptions>) {
    this.#options = options
    const { stateDir, workspaceRoot } = directLayout(options.worker)
    this.#stateDir = stateDir
    this.#workspaceRoot = workspaceRoot
  }

  async check(): Promise<void> {
    const { worker, log } = this.#options
    const { targetDir, ozPath, hiddenPaths, readablePaths } = worker.direct
    const path = taskPath(worker.env)
    const oz = ozPath ?? findOnPath('oz', path)
    if (oz === undefined) throw new AppError('oz_missing', { path: '`oz`', problem: 'is not on the PATH' })
    if (!isExecutable(oz)) throw new AppError('oz_missing', { path: oz, problem: 'is no program that can be run' })
    this.#oz = oz
    if (targetDir !== undefined && !(await isFolder(targetDir))) {
      throw new AppError('target_dir_invalid', { folder: targetDir })
    }
    for (const folder of [this.#workspaceRoot, tasksFolder(this.#stateDir)]) {
      await makeWritable(folder)
      await layFoldersApart(folder)
    }

    this.#network = readTaskNetwork(worker.env)
    this.#mirrors = await openMirrors({ worker, stateDir: this.#stateDir, network: this.#network, log })

    const node = findOnPath('node', path)
    this.#isolation = await chooseIsolation({
      env: worker.env,
      stateDir: this.#stateDir,
      workspaceRoot: this.#workspaceRoot,
      targetDir,
      programs: [oz, process.execPath, ...(node === undefined ? [] : [node])],
      hiddenPaths,
      readablePaths,
    })
    const { kind, text } = this.#isolation
    log[kind === 'none' ? 'warn' : 'info']({ isolation: kind }, text)
  }

  async start(assignment: TaskAssignment, reporter: StepReporter, signal: AbortSignal): Promise<Task> {
    const { execution_id: executionId } = assignment
    if (!isExecutable(this.#oz)) {
      const problem = describeError('oz_missing', { path: this.#oz, problem: 'is no program that can be run any more' })
      throw new TaskFailure('agent_invocation', problem)
    }
    this.#active.add(executionId)
    let context: DirectTaskContext | undefined
    let mirroring: Mirroring | undefined
    try {
      reporter.started('worker_setup')
      context = await this.#alone(() => this.#prepare(assignment, reporter))
      mirroring = await mirrorForTask(this.#mirrors, assignment, context)
      const fromSetup = await this.#setUp(context, signal)
      reporter.completed('worker_setup', this.#describeSetup(assignment))
      reporter.started('start')
      const task = await this.#launch(assignment, context, fromSetup)
      reporter.completed('start')
      return this.#forgetWhenFinished(executionId, task, mirroring)
    } catch (error) {
      await mirroring?.stop()
      if (context) await undo(context)
      this.#active.delete(executionId)
      if (signal.aborted && !(error instanceof TaskFailure)) throw signal.reason
      throw error instanceof TaskFailure ? error : workspaceFailure(error)
    }
  }

  async adopt(reporterOf: (task: TaskRefs) => StepReporter): Promise<AdoptedTask[]> {
    const { worker, log } = this.#options
    const adopted: AdoptedTask[] = []
    for (const record of await listOutlivers(this.#sweepScope(), worker.workerId)) {
      const { task_id, execution_id, process: shim } = record
      if (!shim) continue
      this.#active.add(execution_id)
      try {
        const task = await this.#takeOver(record, shim, reporterOf({ task_id, execution_id }))
        const { started_at: startedAt } = record
        adopted.push({ refs: { task_id, execution_id }, startedAt: new Date(startedAt), task })
      } catch (error) {
        this.#active.delete(execution_id)
        log.warn({ error, executionId: execution_id }, 'An agent that outlived its worker could not be taken over')
      }
    }
    return adopted
  }

  async #takeOver(former: TaskRecord, shim: ProcessIdentity, reporter: StepReporter): Promise<Task> {
    const { workspace, execution_id: executionId } = former
    const record = { ...former, worker: identifyProcess(process.pid) ?? null }
    const context = await this.#formerContext(record, reporter)
    const { user, paths, isolation } = context
    await writeRecord(paths, record)
    const { depth } = isolation.wrap([], { user, workspace, exposed: exposedOf(paths) })
    return this.#forgetWhenFinished(executionId, new DirectTask(context, { shim, depth }))
  }

  /** Of a task that an earlier worker process has started. */
  async #formerContext(record: TaskRecord, reporter: StepReporter): Promise<DirectTaskContext> {
    const { uid, execution_id: executionId } = record
    const user = uid === undefined ? this.#chosenIsolation().sharedUser : { uid, gid: uid }
    const paths = taskFolder(this.#stateDir, executionId)
    const token = await readFile(paths.token, 'utf8').catch(() => undefined)
    const secrets = [this.#options.worker.apiKey, ...(token === undefined ? [] : [token]), ...this.#network.secrets]
    return this.#contextOf({ record, paths, user, token, secrets, reporter })
  }

  #contextOf(
    task: Pick<DirectTaskContext, 'record' | 'paths' | 'user' | 'token' | 'secrets' | 'reporter'>,
  ): DirectTaskContext {
    const { worker, dialer, log, deliveryTimeoutMs, savingTimeoutMs } = this.#options
    const { task_id: runId, execution_id: executionId } = task.record
    return {
      ...task,
      base: this.#baseEnvironment(task.paths, task.user),
      isolation: this.#chosenIsolation(),
      stateDir: this.#stateDir,
      dialer,
      log: log.child({ runId, executionId }),
      hookTimeoutMs: worker.direct.hookTimeoutMs ?? 600_000,
      deliveryTimeoutMs,
      oz: this.#oz,
      serverRootUrl: worker.serverRootUrl,
      savingTimeoutMs,
      teardownCommand: worker.direct.teardownCommand,
    }
  }

  async sweep(signal: AbortSignal): Promise<void> {
    const { dialer, deliveryTimeoutMs } = this.#options
    const left = await this.#alone(() => clearEnded(this.#sweepScope(), signal))
    await deliverLeft(left, { ...this.#sweepScope(), dialer, deliveryTimeoutMs, signal })
    await this.#mirrors?.sweep()
  }

  #sweepScope(): SweepScope {
    const { worker, log } = this.#options
    const isActive = (executionId: string) => this.#active.has(executionId)
    const saveLeft = async (record: TaskRecord, signal: AbortSignal) => {
      await saveLeftWork(await this.#formerContext(record, silentReporter), signal)
    }
    return { stateDir: this.#stateDir, serverUrl: worker.serverUrl, isActive, saveLeft, log }
  }

  /** One at a time: what clears a workspace, and what makes the next one of the same run. */
  async #alone<T>(work: () => Promise<T>): Promise<T> {
    const result = this.#queue.then(work)
    this.#queue = result.catch(() => {})
    return result
  }

  /** Folders and user. Leaves nothing behind when it rejects. */
  async #prepare(assignment: TaskAssignment, reporter: StepReporter): Promise<DirectTaskContext> {
    const { worker } = this.#options
    const { task_id: taskId, execution_id: executionId, execution_token: token } = assignment
    const { targetDir } = worker.direct
    const isolation = this.#chosenIsolation()
    const uid =
      isolation.kind === 'uid' && !isolation.sharedUser ? await takeTaskUser(this.#stateDir, executionId) : undefined
    const user = uid === undefined ? isolation.sharedUser : { uid, gid: uid }
    const paths = taskFolder(this.#stateDir, executionId)
    const record: TaskRecord = {
      version: 1,
      worker_id: worker.workerId,
      server_url: worker.serverUrl,
      task_id: taskId,
      execution_id: executionId,
      uid,
      workspace: targetDir ?? join(this.#workspaceRoot, taskId),
      removes_workspace: targetDir === undefined && worker.cleanup,
      worker: identifyProcess(process.pid) ?? null,
      process: null,
      started_at: new Date().toISOString(),
    }
    const secrets = [...secretsOf(assignment, worker.apiKey), ...this.#network.secrets]
    const context = this.#contextOf({ record, paths, user, token, secrets, reporter })
    try {
      await clearFormerExecutions(taskId, this.#sweepScope())
      const mcpServers = assignment.task.agent_config_snapshot?.mcp_servers
      const { authorities } = this.#network
      await createTaskFolder(paths, { record, token, mcpServers, authorities, owner: user })
      if (targetDir === undefined) await makeWorkspace(record, user)
      return context
    } catch (error) {
      await undo(context)
      throw error
    }
  }

  /** Runs the setup command; returns what it put into its environment file. */
  async #setUp(context: DirectTaskContext, signal: AbortSignal): Promise<Record<string, string>> {
    const { setupCommand } = this.#options.worker.direct
    if (setupCommand === undefined) return {}
    const file = context.paths.agent.setupEnvironment
    const variables = { OZ_ENVIRONMENT_FILE: file }
    const { problem, output, exitCode } = await runTaskHook(context, { command: setupCommand, variables, signal })
    if (problem !== undefined) {
      const words = createMasker(context.secrets).mask(
        `The worker’s setup command failed: ${problem}.\n${output}`.trim(),
      )
      context.reporter.failed('worker_setup', words)
      throw new TaskFailure('setup_command', words, { exitCode })
    }
    const { values, badLines } = parseEnvironmentFile((await readTaskFile(file, 1024 * 1024)) ?? '')
    if (badLines.length > 0) context.log.warn({ lines: badLines }, 'Lines of the environment file are no KEY=VALUE')
    return values
  }

  async #launch(
    assignment: TaskAssignment,
    context: DirectTaskContext,
    fromSetup: Record<string, string>,
  ): Promise<DirectTask> {
    const { worker } = this.#options
    const { paths, record, user, base } = context
    const variables = taskEnvironment({
      assignment,
      paths,
      workspace: record.workspace,
      base,
      network: this.#network,
      serverRootUrl: worker.serverRootUrl,
      configured: worker.taskEnvironment,
      fromSetup,
    })
    await writeVariables(context, variables)
    const hasMcp = assignment.task.agent_config_snapshot?.mcp_servers !== undefined
    const args = launchArguments(assignment, { ...worker, mcpFile: hasMcp ? paths.agent.mcp : undefined })
    const command = ['/bin/sh', '-c', starter, 'oz-starter', paths.agent.variables, this.#oz, ...args]
    const wrapped = context.isolation.wrap(command, {
      user,
      workspace: record.workspace,
      exposed: exposedOf(paths),
    })
    const { execution_id: executionId, workspace } = record
    const shim = await startShim({ paths, command: wrapped.command, workspace, executionId })
    const task = new DirectTask(context, { shim, depth: wrapped.depth })
    record.process = shim
    try {
      await writeRecord(paths, record)
    } catch (error) {
      await task.stop(0)
      throw error
    }
    return task
  }

  #forgetWhenFinished(executionId: string, task: DirectTask, mirroring?: Mirroring): Task {
    return {
      pid: task.pid,
      workspace: task.workspace,
      exited: task.exited,
      stop: (graceMs) => task.stop(graceMs),
      finish: async (options) => {
        await mirroring?.stop()
        const words = await task.finish(options)
        this.#active.delete(executionId)
        return words
      },
    }
  }

  #describeSetup(assignment: TaskAssignment): string {
    const image = assignment.docker_image ?? assignment.task.agent_config_snapshot?.environment?.docker_image
    const about = image === undefined ? '' : ` The image ${image} does not apply on the direct backend.`
    return `Isolation: ${this.#chosenIsolation().text}.${about}`
  }

  #baseEnvironment(paths: TaskFolder, user: TaskUser | undefined): BaseEnvironment {
    const { env } = this.#options.worker
    // Somebody else's home would be closed to the task's user, or open to its predecessors.
    const HOME = user ? paths.agent.home : env.HOME || homedir()
    const TMPDIR = this.#chosenIsolation().kind === 'none' ? env.TMPDIR || tmpdir() : paths.agent.temporary
    return { HOME, TMPDIR, PATH: taskPath(env) }
  }

  #chosenIsolation(): Isolation {
    if (!this.#isolation) throw new Error('check() comes first')
    return this.#isolation
  }
}

/** For tasks that are not ours to speak of. */
const silentReporter: StepReporter = { started() {}, completed() {}, failed() {} }

/** For a task whose agent never ran: there is nothing in it that is worth keeping. */
async function undo(context: DirectTaskContext): Promise<void> {
  await endEverything(context, undefined).catch((error: unknown) => {
    context.log.error({ error }, 'A task could not be ended')
  })
  await cleanUp(context)
}

/** Values that must not be quoted from a log: the token, and what is named like a secret. */
function secretsOf({ execution_token: token, env_vars = {} }: TaskAssignment, apiKey: string): string[] {
  const named = Object.entries(env_vars).filter(([name]) => /KEY|TOKEN|SECRET|PASSWORD|CREDENTIAL/i.test(name))
  return [apiKey, ...(token === undefined ? [] : [token]), ...named.map(([, value]) => value)]
}
