import type { ErrorCode, ReportedFailureReason, TaskAssignment } from '@openoz/protocol'

/** What tasks can be run by; records and labels name it. */
export const backendNames = ['direct', 'docker'] as const
export type BackendName = (typeof backendNames)[number]

/** Those of them that `--backend` can choose in this version. */
export const availableBackendNames: readonly BackendName[] = ['direct', 'docker']

/** Names that the command line and the config file know as well; like those that are not available they answer `backend_not_available`. */
export const plannedBackendNames = ['kubernetes', 'command'] as const

/** Why a task is being stopped. `abandon` outranks the others: then nothing is reported but that it is gone. */
export type StopCause = 'cancel' | 'abandon' | 'shutdown'

/**
 * Somewhere to run an agent: check → adopt → start → observe → stop → close → finish → remove, and sweeps for what nobody answers for. A worker has one
 * backend. Everything that a later worker process needs to know of a task is on disk before it happens, so that a worker may be killed at any moment.
 */
export interface Backend {
  readonly name: BackendName
  /** Of the machine that tasks run on, as Node names them: `linux/x64`. To be read once `check` has resolved. */
  readonly platform: string
  /** What runs its containers, in words: `docker 20.10.24 linux/amd64`. undefined: nothing does. To be read once `check` has resolved. */
  readonly engine: string | undefined
  /**
   * This process first, then the dead ones of this worker whose tasks it took over; see `worker_hello`. Filled by `adopt`: to be named once that has resolved
   * and its tasks are followed.
   */
  readonly instances: readonly string[]
  /**
   * Fails early, with an AppError that an operator can act on (no program, no permission). Called before the first connection; may be
   * called again.
   */
  check(signal: AbortSignal): Promise<void>
  /** Why no task can begin here for now, as a sentence, though there may be slots: the disk is full, the engine away. undefined: one can. */
  lackOfRoom(): string | undefined
  /**
   * Makes the task's surroundings and starts its agent. Nothing of the operator's or of the task runs before `claimed` resolves. Resolves once the
   * process exists. Rejects with a TaskFailure, or with the signal's reason (a TaskStopped), and nothing runs then; `remove` is still to be called,
   * once the end is told. One call per execution.
   */
  start(assignment: TaskAssignment, reporter: StepReporter, options: StartOptions): Promise<Task>
  /**
   * Takes over the tasks of earlier processes of this worker id on this machine, wherever those were when they died: from then on they are this
   * process's tasks like those that it has started. Once after `check` and before the first hello, then whenever one may have died. Each is given once;
   * at any time one process has it. Never rejects.
   */
  adopt(reporterOf: (task: TaskRefs) => StepReporter): Promise<AdoptedTask[]>
  /** The control plane has handled a hello that named these instances and our tasks. */
  forgetInstances(named: readonly string[]): void
  /**
   * Ends and removes what nobody on this machine answers for: processes, folders, users. Needs no connection. Never rejects: what it cannot do
   * now is logged and tried by the next. Leaves tasks of live workers alone.
   */
  sweep(): Promise<void>
  /** Tries again to deliver the events of tasks whose end was told without them. Never rejects. */
  deliver(signal: AbortSignal): Promise<void>
  /** Ends what runs of an execution that is not ours to report. False when another worker on this machine answers for it. Never rejects. */
  endStray(task: TaskRefs): Promise<boolean>
  /** Removes what is left of a task whose end was told, or need not be. Never rejects. */
  remove(executionId: string): Promise<void>
  /** Lets go of everything for the next process: tasks that run go on. Nothing else may be called afterwards. */
  leave(options: { isAllTold: boolean }): Promise<void>
  /** This process ends: a sweep that is under way does not begin its next step, and none begins anew. */
  stopSweeping(): void
}

/** How long what is left to do of an ended task may take; the same for every backend. */
export interface BackendLimits {
  /** How long the control plane may be there and not take an ended agent's events, before its end is told without them. */
  deliveryTimeoutMs?: number
  /** How long what a dead agent left may take to be saved. Its lease holds meanwhile: the saver renews it. */
  savingTimeoutMs?: number
  /**
   * How long all tries at saving, or at delivering, may take together in which the connection broke. They say nothing about what was tried; but each of
   * its connections renews the lease of what ends here, and a network on which none ever lasts would keep the run from being tried again.
   */
  unsteadyTimeoutMs?: number
}

export interface StartOptions {
  /** Resolves when the control plane has handled the claim. May never. */
  claimed: Promise<void>
  signal: AbortSignal
}

/** A started agent. */
export interface Task {
  /** Its process on this machine. undefined when it has none, or has ended in the time of an earlier process. */
  readonly pid: number | undefined
  /** What it runs in, for the log: `process 4711`, `container oz-task-…`. */
  readonly place: string
  readonly workspace: string
  /** Never rejects: a crash is an exit too. Pending for ever once the backend was left. */
  readonly exited: Promise<TaskExit>
  /** After `close`: something of it could not be ended, so that it must not be called gone. */
  readonly mayRun: boolean
  /** Asks the agent, waits up to `graceMs`, then kills everything that belongs to it. Never rejects; safe to call twice and after the end. */
  stop(graceMs: number): Promise<void>
  /**
   * After `exited`, and once: ends what the agent left running and puts the end on disk. Resolves with why it was stopped, which an earlier process may
   * have decided. Nothing of the task runs then, or `mayRun` says so. Never rejects, and is pending for ever once the backend was left.
   */
  close(cause: StopCause | undefined): Promise<StopCause | undefined>
  /**
   * After `close`: saves what the agent had not saved, delivers its spool and runs the teardown command. However long the control plane is away, none of
   * it is given up for that. Resolves with what to say about the agent's end. Rejects with the signal's reason only; what is left to do is left to the
   * next process then. Call it once.
   */
  finish(options: { abandoned: AbortSignal; signal: AbortSignal }): Promise<TaskRemains>
}

export interface TaskRemains {
  /** The end of what the agent wrote, in words for people and without secrets; empty when it says nothing. */
  lastWords: string
  /** What it had changed could not be saved. */
  isLost: boolean
  /**
   * The kernel has ended processes for want of memory. `task`: the agent itself, of the memory that the task was given. `machine`: some on the machine
   * while it ran, perhaps another's.
   */
  outOfMemory?: 'task' | 'machine'
  /** What its container was limited to, where that is known. */
  memoryLimitBytes?: number
  /** What ran its container has stopped, and ended it with that. */
  isEngineStopped?: boolean
  /** The disk of the worker's own files was full when it ended: that, as a sentence. */
  fullDisk?: string
}

/** The wire's names for the execution of a task. */
export interface TaskRefs {
  task_id: string
  execution_id: string
}

/** `running`: its agent may still be at work. `ended`: it is not, and that was not told. `never_started`: it was killed with its worker on the way. */
export interface AdoptedTask {
  refs: TaskRefs
  startedAt: Date
  phase: 'running' | 'ended' | 'never_started'
  /** Rejects as `start` does, for a task that never got so far. */
  task: Promise<Task>
}

/** `signal` and `code` as a shell tells them apart: a signal is a code of 128 and more. `vanished`: gone without a word. */
export type TaskExit = { type: 'exited'; code: number } | { type: 'killed'; signal: number } | { type: 'vanished' }

/** Tells the control plane about a step of ours; becomes a bar of the run's waterfall. */
export interface StepReporter {
  started(step: TaskStep): void
  completed(step: TaskStep, detail?: string): void
  failed(step: TaskStep, detail: string): void
  /** How far a step is. May be called as often as there is something to say: what is too often is not sent. */
  progress(step: TaskStep, how: StepProgress): void
}

/** For tasks that are not ours to speak of. */
export const silentReporter: StepReporter = { started() {}, completed() {}, failed() {}, progress() {} }

export type TaskStep =
  | ('worker_setup' | 'mirror' | 'start' | 'teardown')
  | ('image_pull' | 'agent_bundle' | 'sidecars' | 'container')

export interface StepProgress {
  /** In words, where numbers do not say it. */
  text?: string
  /** Bytes; `total` only once it is known. */
  current?: number
  total?: number
}

/** Why a task could not be started, in the words of the wire. `message` is fit for the run's owner. */
export class TaskFailure extends Error {
  readonly reason: ReportedFailureReason
  readonly exitCode: number | undefined
  /** The registry's name for it, where it has one: for the worker's log. */
  readonly code: ErrorCode | undefined

  constructor(
    reason: ReportedFailureReason,
    message: string,
    options: { exitCode?: number; code?: ErrorCode; cause?: unknown } = {},
  ) {
    super(message, { cause: options.cause })
    this.name = 'TaskFailure'
    this.reason = reason
    this.exitCode = options.exitCode
    this.code = options.code
  }
}

/** The reason of the signal that stops a task while it is started. */
export class TaskStopped extends Error {
  readonly stopCause: StopCause

  constructor(stopCause: StopCause) {
    super(`stopped: ${stopCause}`)
    this.name = 'TaskStopped'
    this.stopCause = stopCause
  }
}
