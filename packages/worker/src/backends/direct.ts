import { dirname } from 'node:path'
import { type Dialer, endProcessTree, isDiskFull } from '@openoz/machine'
import { AppError, describeError, type TaskAssignment } from '@openoz/protocol'
import type { Logger } from 'pino'
import { aborted } from '../aborted.ts'
import { lackOfRoom, noRoom } from '../disk-room.ts'
import { marksOf, readInstallationId } from '../installation.ts'
import { openInstances } from '../instances.ts'
import { chooseIsolation } from '../isolation.ts'
import type { Link } from '../link.ts'
import { findOnPath, isExecutable, taskPath } from '../task-environment.ts'
import { tasksFolder } from '../task-folder.ts'
import { readTaskNetwork } from '../task-network.ts'
import type { WorkerOptions } from '../worker-options.ts'
import { makeWritable } from '../writable-folder.ts'
import {
  type AdoptedTask,
  type Backend,
  type BackendLimits,
  type StartOptions,
  type StepReporter,
  type Task,
  TaskFailure,
  type TaskRefs,
} from './backend.ts'
import type { DirectTaskContext } from './direct-context.ts'
import { endPersistently } from './direct-ending.ts'
import { fenceFormerExecutions } from './direct-fence.ts'
import { directFormer, shimOf } from './direct-former.ts'
import type { DirectHost } from './direct-host.ts'
import { directLayout } from './direct-layout.ts'
import { mirrorForTask, openMirrors } from './direct-mirrors.ts'
import { directRemoval } from './direct-removal.ts'
import { describeSetup, launchTask, prepareTask, setUpTask } from './direct-start.ts'
import { sweepMachine } from './direct-sweep.ts'
import { isFolder, layFoldersApart, makeWorkspace, workspaceFailure } from './direct-workspace.ts'
import { endStrayTask } from './end-stray.ts'
import { noteFailure } from './ended-task.ts'
import { HeldTasks } from './held-tasks.ts'
import { adoptTasks } from './take-over.ts'
import { WorkQueue } from './work-queue.ts'

/**
 * Tasks as processes of this machine: a process tree and a folder each. It owns `<state>/tasks` and the workspaces; `task-folder.ts` says
 * what lies there, `isolation.ts` how tasks are kept apart, `shell-text.ts` what stands between worker and agent.
 */
interface DirectBackendOptions extends BackendLimits {
  worker: WorkerOptions
  dialer: Dialer
  link: Link
  log: Logger
}

export function createDirectBackend({
  deliveryTimeoutMs = 10 * 60_000,
  savingTimeoutMs = 120_000,
  unsteadyTimeoutMs = 30 * 60_000,
  ...options
}: DirectBackendOptions): Backend {
  return new DirectBackend({ ...options, deliveryTimeoutMs, savingTimeoutMs, unsteadyTimeoutMs })
}

class DirectBackend implements Backend {
  readonly name = 'direct'
  readonly platform = `${process.platform}/${process.arch}`
  readonly engine = undefined
  readonly #options: Required<DirectBackendOptions>
  readonly #leaving = new AbortController()
  readonly #held: DirectHost['held']
  readonly #queue = new WorkQueue()
  #checked: DirectHost | undefined

  constructor(options: Required<DirectBackendOptions>) {
    this.#options = options
    const { log, deliveryTimeoutMs } = options
    this.#held = new HeldTasks({ log, deliveryTimeoutMs, ...directRemoval })
  }

  get instances(): readonly string[] {
    return this.#host.instances.all
  }

  async check(): Promise<void> {
    const { worker, log } = this.#options
    const { targetDir, ozPath, hiddenPaths, readablePaths } = worker.direct
    const { stateDir, workspaceRoot } = directLayout(worker)
    const path = taskPath(worker.env)
    const oz = ozPath ?? findOnPath('oz', path)
    if (oz === undefined) throw new AppError('oz_missing', { path: '`oz`', problem: 'is not on the PATH' })
    if (!isExecutable(oz)) throw new AppError('oz_missing', { path: oz, problem: 'is no program that can be run' })
    if (targetDir !== undefined && !(await isFolder(targetDir))) {
      throw new AppError('target_dir_invalid', { folder: targetDir })
    }
    for (const folder of [workspaceRoot, tasksFolder(stateDir)]) {
      await makeWritable(folder)
      await layFoldersApart(folder)
    }

    const network = readTaskNetwork(worker.env)
    const mirrors = await openMirrors({ worker, stateDir, network, log })
    const node = findOnPath('node', path)
    const isolation = await chooseIsolation({
      env: worker.env,
      stateDir,
      workspaceRoot,
      targetDir,
      programs: [oz, process.execPath, ...(node === undefined ? [] : [node])],
      hiddenPaths,
      readablePaths,
    })
    const { kind, text } = isolation
    log[kind === 'none' ? 'warn' : 'info']({ isolation: kind }, text)
    const installationId = await readInstallationId(stateDir)
    const whose = { worker_id: worker.workerId, server_url: worker.serverUrl, backend: this.name }
    const instances = this.#checked?.instances ?? openInstances(stateDir, whose)
    this.#checked = {
      ...this.#options,
      backend: this.name,
      ...{ stateDir, workspaceRoot, installationId, instances, oz, isolation, network, mirrors },
      held: this.#held,
      toldElsewhere: this.#checked?.toldElsewhere ?? new Set(),
      leaving: this.#leaving.signal,
      alone: (work) => this.#queue.run(work),
    }
  }

  lackOfRoom(): string | undefined {
    return lackOfRoom(this.#host.stateDir)
  }

  async start(assignment: TaskAssignment, reporter: StepReporter, options: StartOptions): Promise<Task> {
    const { claimed, signal } = options
    const host = this.#host
    if (!isExecutable(host.oz)) {
      const problem = describeError('oz_missing', { path: host.oz, problem: 'is no program that can be run any more' })
      throw new TaskFailure('agent_invocation', problem)
    }
    let context: DirectTaskContext | undefined
    try {
      reporter.started('worker_setup')
      context = await prepareTask(host, assignment, reporter)
      // An offer that was withdrawn meanwhile, perhaps because we hung, is somebody else's work by now.
      await Promise.race([claimed, aborted(signal)])
      signal.throwIfAborted()
      await this.#makePlace(context)
      const mirroring = await mirrorForTask(host.mirrors, assignment, context)
      const held = host.held.get(assignment.execution_id)
      if (held) held.helpers = mirroring
      const fromSetup = await setUpTask(host, context, signal)
      reporter.completed('worker_setup', describeSetup(host, assignment))
      signal.throwIfAborted()
      reporter.started('start')
      const task = await launchTask(host, context, { assignment, fromSetup })
      if (held) held.task = task
      reporter.completed('start')
      return task
    } catch (error) {
      const isStopped = signal.aborted && !(error instanceof TaskFailure)
      const failure = isStopped
        ? signal.reason
        : error instanceof TaskFailure
          ? error
          : startFailure(error, host.stateDir)
      if (context) await endUnstarted(context, failure, this.#leaving.signal)
      throw failure
    }
  }

  async #makePlace(context: DirectTaskContext): Promise<void> {
    const { task_id: taskId, execution_id: executionId } = context.record
    const { worker } = this.#options
    await this.#queue.run(async () => {
      await fenceFormerExecutions(this.#host, taskId, executionId)
      if (worker.direct.targetDir === undefined) await makeWorkspace(context, context.user)
    })
  }

  adopt(reporterOf: (task: TaskRefs) => StepReporter): Promise<AdoptedTask[]> {
    return adoptTasks(this.#host, directFormer(this.#host), reporterOf)
  }

  forgetInstances(named: readonly string[]): void {
    this.#host.instances.forget(named)
  }

  async sweep(): Promise<void> {
    await sweepMachine(this.#host)
  }

  async deliver(signal: AbortSignal): Promise<void> {
    await this.#held.deliverKept(AbortSignal.any([signal, this.#leaving.signal]))
  }

  async endStray({ execution_id: executionId }: TaskRefs): Promise<boolean> {
    const { stateDir, installationId, log } = this.#host
    const { signal } = this.#leaving
    return await endStrayTask(this.#host, executionId, async (record) => {
      if (record)
        return await endPersistently({ record, log, installationId }, await shimOf(stateDir, record), { signal })
      const { survivors } = await endProcessTree({ marker: marksOf(installationId, executionId) }, 0)
      return survivors.length === 0
    })
  }

  remove(executionId: string): Promise<void> {
    return this.#held.remove(executionId)
  }

  stopSweeping(): void {
    this.#leaving.abort(new Error('this worker process leaves its tasks to the next one'))
  }

  async leave({ isAllTold }: { isAllTold: boolean }): Promise<void> {
    this.stopSweeping()
    const host = this.#checked
    if (!host) return
    await this.#queue.idle()
    const { isAllOver } = await this.#held.leave()
    // What only waits for its spool was told. A claim may have been all that was told of what has no folder.
    host.instances.close({ isDone: isAllTold && isAllOver })
  }

  get #host(): DirectHost {
    if (!this.#checked) throw new Error('check() comes first')
    return this.#checked
  }
}

function startFailure(error: unknown, stateDir: string): TaskFailure {
  if (!isDiskFull(error)) return workspaceFailure(error)
  // Node names the file where it can; workspaces may be on a disk of their own.
  const folder = error instanceof Error && 'path' in error ? dirname(String(error.path)) : stateDir
  return new TaskFailure('disk_full', noRoom(folder), { cause: error })
}

/** Its folder stays until its end was told. */
async function endUnstarted(context: DirectTaskContext, failure: unknown, signal: AbortSignal): Promise<void> {
  // As long as it takes: nothing runs of what could not be started.
  if (await endPersistently(context, undefined, { signal, limitMs: Infinity })) await noteFailure(context, failure)
}
