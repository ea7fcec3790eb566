import type { createDialer } from '@openoz/machine'
import type { ExecutionRef, ServerMessage, TaskAssignment, WorkerMessage } from '@openoz/protocol'
import type { Logger } from 'pino'
import { aborted } from './aborted.ts'
import {
  type Assignment,
  type AssignmentContext,
  createStepReporter,
  resumeAssignment,
  runAssignment,
} from './assignment.ts'
import type { Backend } from './backends/backend.ts'
import { Connection } from './connection.ts'
import { watchRoom } from './disk-room.ts'
import type { Link } from './link.ts'
import type { WorkerMetrics } from './metrics.ts'
import { drainNotice, Slots } from './slots.ts'
import { createSweeper, type Sweeper } from './sweeper.ts'
import { endTasks, leftBehind } from './task-ending.ts'
import { isAssignmentFailure, type TaskOutcome } from './task-outcome.ts'
import { createTeamNotice, type TeamNotice } from './team-notice.ts'
import { type WorkerHello, workerHello } from './worker-hello.ts'
import type { DrainMode, RunWorkerOptions } from './worker-options.ts'
import type { WorkerTiming } from './worker-timing.ts'

/**
 * The worker between its connection and its backend. It owns the assignments and the slots, and decides what is taken, what is told, and what
 * becomes of both when it ends. `run-worker.ts` makes one, and answers for it.
 *
 * working → ending (`wait` → `leave` → `stop`, only ever more urgent) → over
 */
interface WorkerParts {
  options: RunWorkerOptions
  dialer: ReturnType<typeof createDialer>
  backend: Backend
  link: Link
  metrics: WorkerMetrics
  times: WorkerTiming
}

export class Worker {
  readonly #parts: WorkerParts
  readonly #log: Logger
  readonly #connection: Connection
  readonly #slots: Slots
  /** By execution, until nothing is left of them. */
  readonly #assignments = new Map<string, Assignment>()
  /** Executions that hold a slot. */
  readonly #occupying = new Set<string>()
  readonly #lackOfRoom: () => string | undefined
  /** Something changed that only a hello can say. */
  #mustRenew = false
  /** How it ends; undefined while it works. Only ever becomes more urgent. */
  #mode: DrainMode | undefined
  /** Aborted when there is something to look at for whoever waits for the end. */
  #changed = new AbortController()
  /** What is not done by then is left to the next process. */
  readonly #leaving = new AbortController()
  readonly #sweeper: Sweeper
  readonly #team: TeamNotice
  /** What a hello names: only those of which all tasks are followed by now. */
  #instances: readonly string[] = []
  #oneShotExecution: string | undefined
  #exitCode = 0
  /** Whether the control plane has handled all that it must know from us. */
  #isAllTold = true

  constructor(parts: WorkerParts) {
    const { options, dialer, backend, link, metrics, times } = parts
    this.#parts = parts
    this.#log = options.log
    this.#lackOfRoom = watchRoom(() => backend.lackOfRoom(), options.log)
    this.#slots = new Slots(options.maxConcurrentTasks, () => this.#tellStatus())
    this.#team = createTeamNotice(options, dialer)
    this.#sweeper = createSweeper({
      work: () => this.#sweepOnce(),
      log: options.log,
      signal: this.#leaving.signal,
    })
    this.#connection = new Connection({
      dialer,
      workerId: options.workerId,
      apiKey: options.apiKey,
      webSocketUrl: options.webSocketUrl,
      log: options.log,
      timing: times.connection,
      hello: () => this.#hello(),
      onMessage: (message) => this.#receive(message),
      onOpen: () => this.#onOpen(),
      onHello: ({ data }) => backend.forgetInstances(data.instances ?? []),
      onBroken: (problem, reason) => {
        link.set(false)
        metrics.setConnected(false)
        metrics.countReconnect(reason)
        options.onEvent?.({ type: 'disconnected', problem })
      },
    })
  }

  /**
   * Before the first hello, which names what runs here, so that the control plane's word about it comes to this connection; and in every sweep, since
   * another process of this worker may have died meanwhile.
   */
  async adopt(): Promise<void> {
    const { backend } = this.#parts
    const send = (message: WorkerMessage) => this.#connection.send(message)
    for (const adopted of await backend.adopt((refs) => createStepReporter(send, refs))) {
      const { task_id: runId, execution_id: executionId } = adopted.refs
      const log = this.#log.child({ runId, executionId })
      log.info({ phase: adopted.phase }, 'A task outlived its worker process; taken over')
      // A worker of one task has one; what it found goes on beside it.
      if (adopted.phase === 'running' && !this.#parts.options.oneShot) this.#occupy(executionId)
      this.#follow(resumeAssignment(this.#assignmentContext(runId, executionId), adopted), adopted.startedAt.getTime())
      this.#mustRenew = true
    }
    if (backend.instances.length > this.#instances.length) this.#mustRenew = true
    this.#instances = [...backend.instances]
  }

  async run(): Promise<number> {
    const { options, times } = this.#parts
    this.#isAllTold = false
    const onStop = () => this.#endAs(options.drain)
    const onStopNow = () => {
      this.#endAs('stop')
      this.#stopAll({ atOnce: true })
    }
    const onLeave = () => this.#endAs('leave')
    options.signal.addEventListener('abort', onStop, { once: true })
    options.stopNow?.addEventListener('abort', onStopNow, { once: true })
    options.leave?.addEventListener('abort', onLeave, { once: true })
    const sweeping = setInterval(() => this.#sweeper.sweep(), times.sweepEveryMs)
    const connected = new AbortController()
    let refusal: unknown
    const connection = this.#connection.run(connected.signal).catch((error: unknown) => {
      refusal = error
      this.#wake()
    })
    this.#sweeper.sweep()
    try {
      if (options.stopNow?.aborted) onStopNow()
      else if (options.signal.aborted) onStop()
      else if (options.leave?.aborted) onLeave()
      // A refusal ends it like a stop; nothing can be told then.
      while (!refusal && !this.#mayEnd()) await aborted(this.#changed.signal)
      if (refusal) {
        const problem = refusal instanceof Error ? refusal.message : 'unknown error'
        this.#log.error({ problem }, 'The control plane refused this worker')
        this.#endAs('stop')
        await this.#endTasks(false)
        this.#isAllTold = await this.#connection.settle(0)
        return 1
      }
      await this.#endTasks(true)
      this.#isAllTold = await this.#connection.settle(options.stopNow?.aborted ? 500 : times.settleMs)
      return this.#exitCode
    } finally {
      clearInterval(sweeping)
      options.signal.removeEventListener('abort', onStop)
      options.stopNow?.removeEventListener('abort', onStopNow)
      options.leave?.removeEventListener('abort', onLeave)
      connected.abort()
      await connection
    }
  }

  /** Whatever it still does is left to the next process. */
  async end(): Promise<{ isAllTold: boolean }> {
    this.#leaving.abort(leftBehind())
    await Promise.all(
      [...this.#assignments.values()].filter(({ phase }) => phase !== 'running').map(({ done }) => done),
    )
    this.#parts.backend.stopSweeping()
    await this.#sweeper.settled()
    return { isAllTold: this.#isAllTold }
  }

  #mayEnd(): boolean {
    // What has ended has limits of its own, for a control plane that does not come back.
    if (this.#mode === 'wait') return [...this.#assignments.values()].every(({ phase }) => phase !== 'running')
    return this.#mode !== undefined
  }

  #endTasks(canTell: boolean): Promise<void> {
    const { options, link, times } = this.#parts
    return endTasks({
      assignments: () => [...this.#assignments.values()],
      mode: () => this.#mode,
      isHurried: () => options.stopNow?.aborted ?? false,
      isPatient: () => this.#mode === 'wait' || (options.oneShot && this.#mode !== 'stop'),
      changed: () => aborted(this.#changed.signal),
      link,
      times,
      canTell,
      leaving: this.#leaving,
    })
  }

  #wake(): void {
    this.#changed.abort()
    this.#changed = new AbortController()
  }

  #hello(): WorkerHello {
    const { options, backend } = this.#parts
    this.#mustRenew = false
    const assignments = [...this.#assignments.values()]
    return workerHello({ options, backend, instances: this.#instances, assignments })
  }

  #onOpen(): void {
    const { options, metrics, link } = this.#parts
    link.set(true)
    metrics.setConnected(true)
    options.onEvent?.({ type: 'connected' })
    if (this.#slots.active > 0 || this.#slots.isDraining) this.#tellStatus()
    if (!this.#slots.isDraining) {
      this.#log.info('Listening for tasks')
      void this.#team.tell()
      options.onEvent?.({ type: 'listening' })
    }
    this.#sweeper.sweep()
  }

  #receive(message: ServerMessage): void {
    switch (message.type) {
      case 'task_assignment':
        this.#offer(message.data)
        break
      case 'task_cancellation':
        this.#stopTask(message.data, 'cancel')
        break
      case 'task_superseded':
        if (!this.#stopTask(message.data, 'abandon')) void this.#endStray(message.data)
        break
      case 'worker_drain':
        if (this.#slots.drainByOperator(message.data.draining)) this.#log.info(drainNotice(message.data.draining))
        break
      default:
        message satisfies never
    }
  }

  #offer(assignment: TaskAssignment): void {
    const { options, metrics } = this.#parts
    const { task_id: taskId, execution_id: executionId } = assignment
    // Told twice, for instance around a broken connection: it was claimed before, and the claim is on its way.
    if (this.#assignments.has(executionId)) return
    const former = [...this.#assignments.values()].filter((other) => other.taskId === taskId)
    const slot = former.some(({ isTold }) => !isTold)
      ? { taken: false as const, reason: 'an earlier execution of this run is still ending here', isFull: false }
      : this.#slots.take(this.#lackOfRoom())
    if (!slot.taken) {
      if (slot.isFull) metrics.countRejectedAtCapacity()
      this.#log.info({ runId: taskId, executionId, reason: slot.reason }, 'Task rejected')
      this.#connection.send({
        type: 'task_rejected',
        data: { task_id: taskId, execution_id: executionId, reason: slot.reason },
      })
      options.onEvent?.({ type: 'task_rejected', taskId, executionId, reason: slot.reason })
      return
    }
    this.#occupying.add(executionId)
    this.#claim(
      assignment,
      Promise.all(former.map(({ done }) => done)).then(() => {}),
    )
  }

  #claim(assignment: TaskAssignment, former: Promise<void>): void {
    const { options, metrics } = this.#parts
    const { task_id: taskId, execution_id: executionId } = assignment
    metrics.countClaimed()
    this.#log.info({ runId: taskId, executionId }, 'Task claimed')
    options.onEvent?.({ type: 'task_claimed', taskId, executionId })
    if (options.oneShot) this.#oneShotExecution = executionId
    this.#follow(runAssignment({ ...this.#assignmentContext(taskId, executionId), former }, assignment), Date.now())
    if (options.oneShot) this.#slots.drain()
  }

  #assignmentContext(taskId: string, executionId: string): AssignmentContext {
    const { options, backend, times } = this.#parts
    const log = this.#log.child({ runId: taskId, executionId })
    return {
      backend,
      log,
      send: (message) => this.#connection.send(message),
      deliver: (message) => this.#connection.deliver(message),
      graceMs: times.graceMs,
      leaving: this.#leaving.signal,
      onStarted: ({ pid = 0, place, workspace }) => {
        log.info({ place, workspace }, 'Task started')
        options.onEvent?.({ type: 'task_started', taskId, executionId, pid, place, workspace })
        this.#wake()
      },
      onGone: () => {
        if (this.#occupying.delete(executionId)) this.#slots.release()
        // It is still saved, delivered and told; how long that may take is the same for every end.
        if (executionId === this.#oneShotExecution) this.#endAs('leave')
        this.#wake()
      },
    }
  }

  #occupy(executionId: string): void {
    this.#occupying.add(executionId)
    this.#slots.occupy()
  }

  /** Until nothing is left of it. `sinceMs` is a wall clock time: it may lie in the life of an earlier process. */
  #follow(assignment: Assignment, sinceMs: number): void {
    const { executionId } = assignment
    this.#assignments.set(executionId, assignment)
    void assignment.ended.then((outcome) =>
      this.#onEnded(assignment, outcome, Math.max(0, Date.now() - sinceMs) / 1000),
    )
    void assignment.done.then(() => {
      this.#assignments.delete(executionId)
      this.#wake()
    })
  }

  #onEnded({ taskId, executionId }: Assignment, outcome: TaskOutcome, seconds: number): void {
    const { options, metrics } = this.#parts
    const { result, message, reason } = outcome
    if (result !== 'abandoned' && result !== 'left') metrics.countEnded(result, seconds)
    if (reason !== undefined) metrics.countFailure(isAssignmentFailure(reason) ? 'assignment' : 'backend', reason)
    this.#log.info({ runId: taskId, executionId, result, reason }, 'Task ended')
    options.onEvent?.({ type: 'task_ended', taskId, executionId, result, message })
    // An execution may be over in the database before its agent is: what counts here is how that ended.
    if (executionId === this.#oneShotExecution) this.#exitCode = outcome.endedWell ? 0 : 1
    this.#wake()
  }

  /** False: we do not have it. Cancellations of such come late, or are another worker's of the same id. */
  #stopTask(
    { task_id, execution_id }: { task_id: string; execution_id?: string },
    cause: 'cancel' | 'abandon',
  ): boolean {
    const found = [...this.#assignments.values()].filter(
      ({ taskId, executionId }) => taskId === task_id && (execution_id === undefined || execution_id === executionId),
    )
    for (const assignment of found) {
      const fields = { runId: task_id, executionId: assignment.executionId, cause }
      if (assignment.hasExited) this.#log.debug(fields, 'Task has ended already; its report is not waited for')
      else this.#log.info(fields, 'Task is to be ended')
      assignment.stop(cause)
    }
    return found.length > 0
  }

  /** Something of it may still run here that nobody follows. */
  async #endStray(refs: ExecutionRef): Promise<void> {
    if (await this.#parts.backend.endStray(refs)) this.#connection.send({ type: 'task_gone', data: refs })
  }

  #tellStatus(): void {
    const { active, isDraining } = this.#slots
    this.#parts.metrics.setActive(active)
    this.#connection.send({ type: 'worker_status', data: { active, draining: isDraining } })
  }

  #endAs(mode: DrainMode): void {
    const urgency: readonly (DrainMode | undefined)[] = [undefined, 'wait', 'leave', 'stop']
    if (urgency.indexOf(mode) <= urgency.indexOf(this.#mode)) return
    this.#mode = mode
    this.#slots.drain()
    this.#parts.options.onEvent?.({ type: 'draining' })
    const log = (words: string) => this.#log.info({ active: this.#slots.active }, words)
    switch (mode) {
      case 'wait':
        log('Stopping: no new tasks; this worker ends when those that run have ended')
        break
      case 'leave':
        log('Leaving: running tasks go on, for the next process of this worker')
        // Half of it would be lost: nobody can take over a setup command.
        for (const assignment of this.#assignments.values()) {
          if (assignment.phase === 'running' && !assignment.hasStarted) assignment.stop('shutdown')
        }
        break
      case 'stop':
        log('Stopping: no new tasks; running ones are ended')
        this.#stopAll({ atOnce: false })
        break
      default:
        mode satisfies never
    }
    this.#wake()
  }

  #stopAll({ atOnce }: { atOnce: boolean }): void {
    for (const assignment of this.#assignments.values()) assignment.stop('shutdown', { atOnce })
  }

  /** What this machine can do by itself always, what needs the control plane while there is a connection. */
  async #sweepOnce(): Promise<void> {
    const { backend, link } = this.#parts
    if (this.#mode === undefined) await this.adopt()
    if (this.#mustRenew && link.isUp) this.#connection.renew()
    await backend.sweep()
    if (link.isUp) await backend.deliver(this.#leaving.signal)
  }
}
