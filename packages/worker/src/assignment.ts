import type { TaskAssignment, WorkerMessage } from '@openoz/protocol'
import type { Logger } from 'pino'
import type { AdoptedTask, Backend, StepReporter, Task, TaskRefs, TaskStep } from './backends/backend.ts'
import { outcomeMessage, outcomeOf, type StopCause, type TaskEnd, type TaskOutcome } from './task-outcome.ts'

/**
 * One assignment, from claim to outcome: claimed → starting → running → finishing → reported.
 *
 * It reports exactly one outcome, and stops in ways that must not be confused:
 * - cancel: the user changed their mind. The agent heard of it on its own channel first; what is left of it is ended now, and the outcome
 *   is CANCELLED.
 * - abandon: the execution is over in the database and another may own the run. It is ended, and nothing is reported.
 * - shutdown: this worker stops. The agent is asked first; the outcome is `graceful_shutdown`, which the server retries elsewhere.
 * The first cause counts, but abandon outranks the others. A stop that comes during the start ends the start.
 */
export interface AssignmentContext {
  backend: Backend
  log: Logger
  send: (message: WorkerMessage) => void
  onStarted: (task: { pid: number; workspace: string }) => void
  /** Time between asking and killing. */
  graceMs: number
}

export interface Assignment {
  readonly taskId: string
  readonly executionId: string
  /** Never rejects. The outcome has been handed to the connection by then. */
  readonly ended: Promise<TaskOutcome>
  /** May be called any number of times, at any moment. */
  stop(cause: StopCause, options?: { atOnce?: boolean }): void
}

export function runAssignment(context: AssignmentContext, assignment: TaskAssignment): Assignment {
  const { task_id, execution_id } = assignment
  const refs = { task_id, execution_id }
  context.send({ type: 'task_claimed', data: refs })
  return follow(context, refs, async (signal) => {
    const task = await context.backend.start(assignment, createStepReporter(context.send, refs), signal)
    context.onStarted(task)
    return task
  })
}

/** The same from `running` on, for an agent that an earlier process of this worker has started; its claim was told then. */
export function resumeAssignment(context: AssignmentContext, { refs, task }: AdoptedTask): Assignment {
  return follow(context, refs, async () => task)
}

type StartTask = (signal: AbortSignal) => Promise<Task>

function follow(context: AssignmentContext, refs: TaskRefs, start: StartTask): Assignment {
  const { task_id: taskId, execution_id: executionId } = refs
  const state: AssignmentState = { stopping: new AbortController(), killing: new AbortController(), cause: undefined }
  const ended = live(context, start, state).then((outcome) => {
    const message = outcomeMessage(refs, outcome)
    if (message) context.send(message)
    return outcome
  })
  return {
    taskId,
    executionId,
    ended,
    stop(cause, { atOnce = false } = {}) {
      if (state.cause === undefined || cause === 'abandon') state.cause = cause
      state.stopping.abort(new Error(`stopped: ${cause}`))
      if (atOnce) state.killing.abort()
    },
  }
}

interface AssignmentState {
  stopping: AbortController
  killing: AbortController
  cause: StopCause | undefined
}

async function live(context: AssignmentContext, start: StartTask, state: AssignmentState): Promise<TaskOutcome> {
  let end: TaskEnd
  try {
    end = await startAndWait(context, start, state)
  } catch (failure) {
    if (!state.stopping.signal.aborted) context.log.warn({ error: failure }, 'A task could not be started')
    end = { failure }
  }
  return outcomeOf(end, state.cause)
}

async function startAndWait(
  { graceMs }: AssignmentContext,
  start: StartTask,
  state: AssignmentState,
): Promise<TaskEnd> {
  const task = await start(state.stopping.signal)

  const stop = () => {
    void task.stop(state.killing.signal.aborted ? 0 : graceMs)
  }
  const kill = () => {
    void task.stop(0)
  }
  state.stopping.signal.addEventListener('abort', stop, { once: true })
  state.killing.signal.addEventListener('abort', kill, { once: true })
  // The signal may have come between the end of the start and now.
  if (state.stopping.signal.aborted) stop()
  const exit = await task.exited
  state.stopping.signal.removeEventListener('abort', stop)

  const isAbandoned = state.cause === 'abandon'
  const remains = await task.finish({ isAbandoned, signal: state.killing.signal })
  state.killing.signal.removeEventListener('abort', kill)
  return { exit, ...remains }
}

export function createStepReporter(send: AssignmentContext['send'], { task_id, execution_id }: TaskRefs): StepReporter {
  const startedAt = new Map<TaskStep, number>()
  const report = (step: TaskStep, status: 'started' | 'completed' | 'failed', detail?: string) => {
    const began = startedAt.get(step)
    const duration = began === undefined ? {} : { duration_ms: Math.round(performance.now() - began) }
    const words = detail === undefined ? {} : { detail: detail.slice(0, 65_536) }
    send({ type: 'task_step', data: { task_id, execution_id, step, status, ...duration, ...words } })
  }
  return {
    started(step) {
      report(step, 'started')
      startedAt.set(step, performance.now())
    },
    completed: (step, detail) => report(step, 'completed', detail),
    failed: (step, detail) => report(step, 'failed', detail),
  }
}
