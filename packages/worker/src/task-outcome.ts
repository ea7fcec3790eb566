import { constants } from 'node:os'
import { describeError, leaseLostExitCode, type ReportedFailureReason, type WorkerMessage } from '@openoz/protocol'
import { type StopCause, type TaskExit, TaskFailure, type TaskRemains } from './backends/backend.ts'

export type TaskEnd = ExitedTask | { failure: unknown }

type ExitedTask = {
  exit: TaskExit
  /** A later process of its worker found it dead. */
  isFoundDead?: boolean
} & TaskRemains

export interface TaskOutcome {
  /** `left`: this process ends before it is told; the next one goes on. */
  result: 'succeeded' | 'failed' | 'cancelled' | 'abandoned' | 'left'
  message: string
  reason?: ReportedFailureReason
  exitCode?: number
  /** The agent ended well by itself, whatever became of its execution meanwhile. */
  endedWell?: boolean
  /** The execution was over in the database before this could be told: nothing is said of it. */
  isUntold?: boolean
}

/** The one table from "how it ended" to "what is told". The agent's own word, where it gave one, counts more; the server sees to that. */
export function outcomeOf(end: TaskEnd, stopCause: StopCause | undefined): TaskOutcome {
  switch (stopCause) {
    case 'abandon':
      return { result: 'abandoned', message: 'The execution is over; it was ended.', endedWell: endedWell(end) }
    case 'cancel':
      return { result: 'cancelled', message: 'The task was cancelled.' }
    case 'shutdown':
      // An agent that had just finished by itself has finished.
      if (endedWell(end)) break
      return { result: 'failed', reason: 'graceful_shutdown', message: 'The worker was stopped.', ...exitCodeOf(end) }
  }
  if ('failure' in end) return startFailure(end.failure)
  const { exit, lastWords, isLost, outOfMemory, memoryLimitBytes, isEngineStopped, isFoundDead, fullDisk } = end
  // Which of the two nobody has seen.
  const when = isFoundDead && isKilled(exit) ? ', together with its worker or while that was away' : ''
  const lost = isLost ? ' Files that it had changed since they were last saved are lost.' : ''
  // Only what SIGKILL ended: another task may have been the one that used too much.
  const why = outOfMemory && isKilled(exit) ? ` ${describeError('out_of_memory', { what: 'it' })}` : ''
  const said = lastWords === '' ? `${why}${lost}` : `${why}${lost}\n${lastWords}`
  if (isEngineStopped) {
    const message = `${describeError('engine_stopped')}${said}`
    return { result: 'failed', reason: 'container_wait', message, ...exitCodeOf(end) }
  }
  if (fullDisk !== undefined && mayBeForRoom(exit)) {
    const { exitCode } = exitCodeOf(end)
    const how = exitCode === undefined ? 'nothing could be written down of its end' : `its exit code is ${exitCode}`
    return {
      result: 'failed',
      reason: 'disk_full',
      message: `${fullDisk} The agent has ended; ${how}.${said}`,
      exitCode,
    }
  }
  // The engine says so of the task itself; of a machine nobody knows who used too much.
  if (outOfMemory === 'task' && isKilled(exit)) {
    const limit =
      memoryLimitBytes === undefined
        ? ''
        : `: its container is limited to ${Math.floor(memoryLimitBytes / 1024 ** 2)} MiB`
    return {
      result: 'failed',
      reason: 'container_oom',
      message: `The agent ran out of memory${when}${limit}.${said}`,
      ...exitCodeOf(end),
    }
  }
  switch (exit.type) {
    case 'vanished':
      return {
        result: 'failed',
        reason: 'agent_invocation',
        message: `The agent disappeared without an exit code${when}.${said}`,
        // It did run, and nothing but SIGKILL ends a shim without a word (the kernel's, out of memory, too): to be tried again elsewhere.
        exitCode: 128 + constants.signals.SIGKILL,
      }
    case 'killed': {
      const message = `The agent was ended by signal ${exit.signal}${when}.${said}`
      return { result: 'failed', reason: 'agent_invocation', message, exitCode: 128 + exit.signal }
    }
    case 'exited': {
      const { code } = exit
      if (code === 0) return { result: 'succeeded', message: 'The agent has ended.', endedWell: true }
      if (code === leaseLostExitCode) {
        const message = `The agent could not renew its lease in time and was ended.${said}`
        return { result: 'failed', reason: 'lease_lost', message, exitCode: code }
      }
      // What shells answer for a program that is missing or cannot be run.
      const couldStart = code !== 126 && code !== 127
      const message = couldStart
        ? `The agent ended with exit code ${code}${when}.${said}`
        : `The agent could not be started (exit code ${code}).${said}`
      return { result: 'failed', reason: couldStart ? 'container_exit' : 'agent_invocation', message, exitCode: code }
    }
  }
}

/** Of an execution that was over in the database once its agent had exited: how that ended, for this worker's own log and metrics. */
export function untoldOutcomeOf(end: ExitedTask, stopCause: StopCause | undefined): TaskOutcome {
  return { ...outcomeOf(end, stopCause), endedWell: endedWell(end), isUntold: true }
}

/** undefined when there is nothing to report. */
export function outcomeMessage(
  task: { task_id: string; execution_id: string },
  { result, message, reason, exitCode, isUntold }: TaskOutcome,
): WorkerMessage | undefined {
  if (isUntold) return undefined
  switch (result) {
    case 'abandoned':
    case 'left':
      return undefined
    case 'succeeded':
      return { type: 'task_completed', data: { ...task, message } }
    case 'cancelled':
      return { type: 'task_completed', data: { ...task, message, task_state: 'CANCELLED' } }
    case 'failed':
      return { type: 'task_failed', data: { ...task, message, failure_reason: reason, exit_code: exitCode } }
  }
}

function startFailure(failure: unknown): TaskOutcome {
  if (failure instanceof TaskFailure) {
    return { result: 'failed', reason: failure.reason, message: failure.message, exitCode: failure.exitCode }
  }
  const words = failure instanceof Error ? failure.message : 'unknown error'
  return { result: 'failed', reason: 'agent_invocation', message: `The agent could not be started: ${words}` }
}

/** By SIGKILL, which is also how the kernel ends what has too much memory. */
function isKilled(exit: TaskExit): boolean {
  if (exit.type === 'vanished') return true
  const { SIGKILL } = constants.signals
  return exit.type === 'killed' ? exit.signal === SIGKILL : exit.code === 128 + SIGKILL
}

/** On a full disk; what a lost lease or a missing program mean is known. */
function mayBeForRoom(exit: TaskExit): boolean {
  return exit.type !== 'exited' || ![0, leaseLostExitCode, 126, 127].includes(exit.code)
}

function endedWell(end: TaskEnd): boolean {
  return 'exit' in end && end.exit.type === 'exited' && end.exit.code === 0
}

function exitCodeOf(end: TaskEnd): { exitCode?: number } {
  if (!('exit' in end)) return {}
  if (end.exit.type === 'killed') return { exitCode: 128 + end.exit.signal }
  return end.exit.type === 'exited' ? { exitCode: end.exit.code } : {}
}

const assignmentFailures: readonly string[] = [
  ...['workspace_setup', 'setup_command', 'unschedulable'],
  ...['image_pull', 'invalid_image', 'sidecar_prep', 'volume_mount', 'container_create', 'container_start'],
]

/** Of the two phases that metrics know: before the agent was started, and then. */
export function isAssignmentFailure(reason: string): boolean {
  return assignmentFailures.includes(reason)
}
