import { identifyProcess } from '@openoz/machine'
import type { TaskAssignment, WorkerMessage } from '@openoz/protocol'
import type { Logger } from 'pino'
import { aborted } from './aborted.ts'
import {
  type AdoptedTask,
  type Backend,
  type StepReporter,
  type StopCause,
  type Task,
  TaskFailure,
  type TaskRefs,
  type TaskStep,
  TaskStopped,
} from './backends/backend.ts'
import { outcomeMessage, outcomeOf, type TaskEnd, type TaskOutcome, untoldOutcomeOf } from './task-outcome.ts'

/**
 * One assignment, from claim to the last file: claimed → starting → running → finishing → told → gone.
 *
 * Finishing begins when no process of the task is left: its slot is free then, and `task_finishing` makes the control plane wait for its end. The end is
 * on disk before anything else is done, and stays until the control plane has handled the report; so whenever this process is killed, the next one goes
 * on from there (`resumeAssignment`).
 *
 * It reports exactly one outcome, and stops in ways that must not be confused:
 * - cancel: the user changed their mind. The agent heard of it on its own channel first and had its time; what is left of it is killed now, and the
 *   outcome is CANCELLED.
 * - abandon: the execution is over in the database and another may own the run. It is killed now, and nothing is said but that it is gone. After a
 *   goodbye it often comes just before our own report: of an agent that has ended by then, the log and the metrics keep how.
 * - shutdown: this worker stops. The agent is asked first; the outcome is `graceful_shutdown`, which the server retries elsewhere.
 * The first cause counts, but abandon outranks the others. A stop that comes during the start ends the start.
 */
export interface AssignmentContext {
  backend: Backend
  log: Logger
  send: (message: WorkerMessage) => void
  /** Sends, and resolves when the control plane has handled it; that may be never. */
  deliver: (message: WorkerMessage) => Promise<void>
  onStarted: (task: Task) => void
  /** Nothing of the task runs any more. */
  onGone: () => void
  /** Time between asking and killing, when this worker stops. */
  graceMs: number
  /** Aborted when this process ends: what is not done by then is left to the next one. */
  leaving: AbortSignal
  /** An earlier execution of the run, until nothing is left of it here. */
  former?: Promise<void>
}

/** What a hello says of it. `unnamed`: nothing, so that the control plane takes it for lost with the worker that had it. */
export type AssignmentPhase = 'running' | 'finishing' | 'unnamed'

export interface Assignment {
  readonly taskId: string
  readonly executionId: string
  readonly phase: AssignmentPhase
  /** Its agent has been started: from then on another process can take it over. */
  readonly hasStarted: boolean
  /** No agent of it runs any more: there is nothing to be stopped. */
  readonly hasExited: boolean
  /** It has ended, and that has been handed to the connection: its run may begin anew. */
  readonly isTold: boolean
  /** Never rejects. The outcome has been handed to the connection by then. */
  readonly ended: Promise<TaskOutcome>
  /** Never rejects. Nothing is left of it, or it is left to the next process. */
  readonly done: Promise<void>
  /** May be called any number of times, at any moment. */
  stop(cause: StopCause, options?: { atOnce?: boolean }): void
}

export function runAssignment(context: AssignmentContext, assignment: TaskAssignment): Assignment {
  const { task_id, execution_id } = assignment
  const refs = { task_id, execution_id }
  const claimed = context.deliver({ type: 'task_claimed', data: refs })
  return follow(context, refs, { phase: 'running', isTakenOver: false }, async (signal) => {
    await context.former
    const reporter = createStepReporter(context.send, refs)
    const task = await context.backend.start(assignment, reporter, { claimed, signal })
    context.onStarted(task)
    return task
  })
}

/** The same from where an earlier process of this worker was when it died; its claim was told then. */
export function resumeAssignment(context: AssignmentContext, { refs, task, phase }: AdoptedTask): Assignment {
  const phases = { running: 'running', ended: 'finishing', never_started: 'unnamed' } as const
  return follow(context, refs, { phase: phases[phase], isTakenOver: phase === 'running' }, () => task)
}

type StartTask = (signal: AbortSignal) => Promise<Task>

interface AssignmentState extends Beginning {
  hasStarted: boolean
  /** How its agent was stopped, if it was; undefined until it has exited, and where it was abandoned before. */
  endedBy: { cause: StopCause | undefined } | undefined
  isTold: boolean
  /** Nothing of it runs any more. */
  isGone: boolean
  /** `task_gone` was sent. */
  isGoneTold: boolean
  cause: StopCause | undefined
  stopping: AbortController
  killing: AbortController
  abandoned: AbortController
}

interface Beginning {
  phase: AssignmentPhase
  /** Its agent was started by an earlier process of this worker, which did not see it end. */
  isTakenOver: boolean
}

function follow(context: AssignmentContext, refs: TaskRefs, beginning: Beginning, start: StartTask): Assignment {
  const state: AssignmentState = {
    ...beginning,
    hasStarted: false,
    endedBy: undefined,
    isTold: false,
    isGone: false,
    isGoneTold: false,
    cause: undefined,
    stopping: new AbortController(),
    killing: new AbortController(),
    abandoned: new AbortController(),
  }
  const told = live(context, refs, start, state).then((outcome) => {
    const message = outcomeMessage(refs, outcome)
    const handled = message ? context.deliver(message) : Promise.resolve()
    if (state.cause === 'abandon' && outcome.result !== 'left' && state.isGone) tellGone(context, refs, state)
    state.isTold = true
    return { outcome, handled }
  })
  return {
    taskId: refs.task_id,
    executionId: refs.execution_id,
    get phase() {
      return state.phase
    },
    get hasStarted() {
      return state.hasStarted
    },
    get hasExited() {
      return state.endedBy !== undefined
    },
    get isTold() {
      return state.isTold
    },
    ended: told.then(({ outcome }) => outcome),
    done: told.then(async ({ outcome, handled }) => {
      if (outcome.result === 'left') return
      const isHandled = await Promise.race([handled.then(() => true), aborted(context.leaving).then(() => false)])
      // Said again by the next process, from what is on disk.
      if (isHandled) await context.backend.remove(refs.execution_id)
    }),
    stop(cause, { atOnce = false } = {}) {
      if (state.cause === undefined || cause === 'abandon') state.cause = cause
      // The agent had its time when it was to be cancelled, and none when it may not go on.
      if (atOnce || cause !== 'shutdown') state.killing.abort()
      if (cause === 'abandon') state.abandoned.abort()
      // Whatever of its end is still to be done: the control plane waits for the word that nothing of it runs.
      if (cause === 'abandon' && state.isGone) tellGone(context, refs, state)
      state.stopping.abort(new TaskStopped(cause))
    },
  }
}

async function live(
  context: AssignmentContext,
  refs: TaskRefs,
  start: StartTask,
  state: AssignmentState,
): Promise<TaskOutcome> {
  let end: TaskEnd
  let isFreed = false
  const onGone = (mayRun: boolean) => {
    if (isFreed) return
    isFreed = true
    state.isGone = !mayRun
    context.onGone()
  }
  try {
    const task = await start(state.stopping.signal)
    state.hasStarted = true
    const isFoundDead = state.isTakenOver && isGoneAlready(task)
    const exit = await untilExit(context, task, state)
    if (state.cause !== 'abandon') state.endedBy = { cause: state.cause }
    const decided = await task.close(state.cause)
    if (state.endedBy) state.endedBy.cause = decided ?? state.endedBy.cause
    // What came while it was closed counts too.
    if (state.cause !== 'abandon') state.cause = decided ?? state.cause
    if (state.phase === 'running') {
      state.phase = 'finishing'
      if (state.cause !== 'abandon') context.send({ type: 'task_finishing', data: refs })
    }
    onGone(task.mayRun)
    if (state.cause === 'abandon') {
      state.abandoned.abort()
      if (state.isGone) tellGone(context, refs, state)
    }
    const remains = await task.finish({ abandoned: state.abandoned.signal, signal: context.leaving })
    end = { exit, isFoundDead, ...remains }
  } catch (failure) {
    if (state.phase === 'running') state.phase = 'finishing'
    // Nothing runs of what could not be started.
    onGone(false)
    if (context.leaving.aborted && failure === context.leaving.reason) {
      return { result: 'left', message: 'This worker process ends; the next one goes on.' }
    }
    if (failure instanceof TaskStopped) state.cause ??= failure.stopCause
    else {
      const code = failure instanceof TaskFailure ? failure.code : undefined
      context.log.warn({ error: failure, code }, 'A task could not be started')
    }
    end = { failure }
  }
  if (state.cause === 'abandon' && state.endedBy && 'exit' in end) return untoldOutcomeOf(end, state.endedBy.cause)
  return outcomeOf(end, state.cause)
}

/** Its process was gone when we took it over. */
function isGoneAlready({ pid }: Task): boolean {
  return pid !== undefined && identifyProcess(pid) === undefined
}

async function untilExit({ graceMs }: AssignmentContext, task: Task, state: AssignmentState) {
  const stop = () => {
    void task.stop(state.killing.signal.aborted ? 0 : graceMs)
  }
  const kill = () => {
    void task.stop(0)
  }
  state.stopping.signal.addEventListener('abort', stop, { once: true })
  state.killing.signal.addEventListener('abort', kill, { once: true })
  try {
    // The signal may have come between the end of the start and now.
    if (state.stopping.signal.aborted) stop()
    return await task.exited
  } finally {
    state.stopping.signal.removeEventListener('abort', stop)
    state.killing.signal.removeEventListener('abort', kill)
  }
}

function tellGone(context: AssignmentContext, refs: TaskRefs, state: AssignmentState): void {
  if (state.isGoneTold) return
  state.isGoneTold = true
  context.send({ type: 'task_gone', data: refs })
}

/** Between two words of how far a step is: as long at least, and a tenth of what it has taken so far; so a step of an hour has some 60. */
const progressEveryMs = 2_000

export function createStepReporter(send: AssignmentContext['send'], { task_id, execution_id }: TaskRefs): StepReporter {
  const startedAt = new Map<TaskStep, number>()
  const progressAt = new Map<TaskStep, number>()
  const wordsOf = (detail: string | undefined) => (detail === undefined ? {} : { detail: detail.slice(0, 65_536) })
  const report = (step: TaskStep, status: 'started' | 'completed' | 'failed', detail?: string) => {
    const began = startedAt.get(step)
    const duration = began === undefined ? {} : { duration_ms: Math.round(performance.now() - began) }
    send({ type: 'task_step', data: { task_id, execution_id, step, status, ...duration, ...wordsOf(detail) } })
  }
  return {
    progress(step, { text, current, total }) {
      const now = performance.now()
      const pauseMs = Math.max(progressEveryMs, (now - (startedAt.get(step) ?? now)) / 10)
      if (now - (progressAt.get(step) ?? Number.NEGATIVE_INFINITY) < pauseMs) return
      progressAt.set(step, now)
      const progress = current === undefined ? {} : { progress: { current, total, unit: 'bytes' } }
      send({
        type: 'task_step',
        data: { task_id, execution_id, step, status: 'progress', ...wordsOf(text), ...progress },
      })
    },
    started(step) {
      report(step, 'started')
      startedAt.set(step, performance.now())
    },
    completed: (step, detail) => report(step, 'completed', detail),
    failed: (step, detail) => report(step, 'failed', detail),
  }
}
