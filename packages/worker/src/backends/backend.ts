import type { FailureReason, TaskAssignment } from '@openoz/protocol'

/** What `--backend` can choose in this version. */
export const backendNames = ['direct'] as const
export type BackendName = (typeof backendNames)[number]

/** Names that the command line and the config file know, and that answer `backend_not_available`. */
export const plannedBackendNames = ['docker', 'kubernetes', 'command'] as const

/**
 * Somewhere to run an agent: check → start → observe → stop → finish, and a sweep for what an earlier worker process left.
 * A worker has one backend. Everything that a later worker process needs to know of a task is on disk before `start` resolves.
 */
export interface Backend {
  readonly name: BackendName
  /**
   * Fails early, with an AppError that an operator can act on (no program, no permission). Called before the first connection; may be
   * called again.
   */
  check(signal: AbortSignal): Promise<void>
  /**
   * Makes the task's surroundings and starts its agent. Resolves once the process exists. Rejects with a TaskFailure, or with the
   * signal's reason, and leaves nothing behind then. One call per execution.
   */
  start(assignment: TaskAssignment, reporter: StepReporter, signal: AbortSignal): Promise<Task>
  /**
   * Takes over the agents that outlived an earlier worker process of this worker id on this machine, also those that have ended since: from
   * then on they are this process's tasks like those that it has started. Call it once, after `check` and before the first sweep. Never rejects.
   */
  adopt(reporterOf: (task: TaskRefs) => StepReporter): Promise<AdoptedTask[]>
  /**
   * Ends and removes what dead worker processes left: processes, spools (delivered first), folders. Never rejects: what it cannot do now
   * is logged and tried at the next start. Leaves tasks of live workers alone.
   */
  sweep(signal: AbortSignal): Promise<void>
}

/** A started agent. */
export interface Task {
  readonly pid: number
  readonly workspace: string
  /** Never rejects: a crash is an exit too. */
  readonly exited: Promise<TaskExit>
  /** Asks the agent, waits up to `graceMs`, then kills everything that belongs to it. Never rejects; safe to call twice and after the end. */
  stop(graceMs: number): Promise<void>
  /**
   * After `exited`: ends what the agent left running, saves what it had not saved and delivers its spool (up to a limit, unless
   * `isAbandoned`), runs the teardown command, removes the folders. Resolves with what to say about the agent's end. Never rejects. Call
   * it once.
   */
  finish(options: { isAbandoned: boolean; signal: AbortSignal }): Promise<TaskRemains>
}

export interface TaskRemains {
  /** The end of what the agent wrote, in words for people and without secrets; empty when it says nothing. */
  lastWords: string
  /** What it had changed could not be saved. */
  isLost: boolean
  /** The kernel has ended processes while it ran, because memory ran out. */
  ranOutOfMemory: boolean
}

/** The wire's names for the execution of a task. */
export interface TaskRefs {
  task_id: string
  execution_id: string
}

export interface AdoptedTask {
  refs: TaskRefs
  startedAt: Date
  task: Task
}

/** `signal` and `code` as a shell tells them apart: a signal is a code of 128 and more. `vanished`: gone without a word. */
export type TaskExit = { type: 'exited'; code: number } | { type: 'killed'; signal: number } | { type: 'vanished' }

/** Tells the control plane about a step of ours; becomes a bar of the run's waterfall. */
export interface StepReporter {
  started(step: TaskStep): void
  completed(step: TaskStep, detail?: string): void
  failed(step: TaskStep, detail: string): void
}
export type TaskStep = 'worker_setup' | 'mirror' | 'start' | 'teardown'

/** Why a task could not be started, in the words of the wire. `message` is fit for the run's owner. */
export class TaskFailure extends Error {
  readonly reason: FailureReason
  readonly exitCode: number | undefined

  constructor(reason: FailureReason, message: string, options: { exitCode?: number; cause?: unknown } = {}) {
    super(message, { cause: options.cause })
    this.name = 'TaskFailure'
    this.reason = reason
    this.exitCode = options.exitCode
  }
}
