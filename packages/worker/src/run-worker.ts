import { hostname } from 'node:os'
import { createDialer } from '@openoz/machine'
import { createApiClient, type ServerMessage, type TaskAssignment, type WorkerMessage } from '@openoz/protocol'
import { workerProtocolVersion } from '@openoz/protocol/schemas'
import type { Logger } from 'pino'
import manifest from '../package.json' with { type: 'json' }
import {
  type Assignment,
  type AssignmentContext,
  createStepReporter,
  resumeAssignment,
  runAssignment,
} from './assignment.ts'
import type { Backend } from './backends/backend.ts'
import { createDirectBackend } from './backends/direct.ts'
import { Connection, type ConnectionTiming } from './connection.ts'
import { createWorkerMetrics, type WorkerMetrics } from './metrics.ts'
import { Slots } from './slots.ts'
import type { TaskOutcome } from './task-outcome.ts'
import type { RunWorkerOptions } from './worker-options.ts'

/**
 * A worker from start to stop: check the backend, take over what an earlier process left running, connect, sweep, take tasks while there are
 * slots, and on the way out end and report what runs. Nothing here listens on the network.
 *
 * Resolves with the exit code: 0 after a stop that was asked for (with `oneShot`: when the task succeeded), 1 when the control plane
 * refused this worker for good, or the one task failed. Rejects with an AppError when it cannot start. After `leave` it still watches the
 * agents that it has left: the caller ends the process.
 */
export async function runWorker(options: RunWorkerOptions, timing: Partial<WorkerTiming> = {}): Promise<number> {
  hideKey(options.apiKey)
  const times = { ...defaultTiming, ...timing }
  const { log, signal } = options
  const dialer = createDialer({ serverUrl: options.serverUrl, env: options.env })
  const metrics = await createWorkerMetrics({ ...options, version: manifest.version })
  const stopSweeping = new AbortController()
  let worker: Worker | undefined
  try {
    const { deliveryTimeoutMs, savingTimeoutMs } = times
    const backend = createDirectBackend({ worker: options, dialer, log, deliveryTimeoutMs, savingTimeoutMs })
    await backend.check(signal)
    worker = new Worker({ options, dialer, backend, metrics, times, stopSweeping: stopSweeping.signal })
    await worker.adopt()
    return await worker.run()
  } finally {
    stopSweeping.abort()
    await worker?.swept
    await metrics.shutdown()
    await dialer.close()
  }
}

export interface WorkerTiming {
  connection: Partial<ConnectionTiming>
  /** Between the SIGTERM of a cancellation and the kill. The agent heard of the cancellation 10 s before, on its own channel. */
  graceMs: number
  deliveryTimeoutMs: number
  savingTimeoutMs: number
  /** How long a stopping worker tries to tell its outcomes. */
  settleMs: number
  sweepEveryMs: number
}

const defaultTiming: WorkerTiming = {
  connection: {},
  graceMs: 5_000,
  deliveryTimeoutMs: 30_000,
  savingTimeoutMs: 120_000,
  settleMs: 5_000,
  sweepEveryMs: 600_000,
}

interface WorkerParts {
  options: RunWorkerOptions
  dialer: ReturnType<typeof createDialer>
  backend: Backend
  metrics: WorkerMetrics
  times: WorkerTiming
  stopSweeping: AbortSignal
}

class Worker {
  /** The sweep under way, if any. Never rejects. */
  swept: Promise<void> = Promise.resolve()
  readonly #parts: WorkerParts
  readonly #log: Logger
  readonly #connection: Connection
  readonly #slots: Slots
  /** By execution. */
  readonly #assignments = new Map<string, Assignment>()
  readonly #ending = new Set<Promise<void>>()
  readonly #stopped = new AbortController()
  #isSweeping = false
  #isConnected = false
  #hasToldTeam = false
  #isLeaving = false
  #exitCode = 0

  constructor(parts: WorkerParts) {
    const { options, dialer, metrics, times } = parts
    this.#parts = parts
    this.#log = options.log
    this.#slots = new Slots(options.maxConcurrentTasks, () => this.#tellStatus())
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
      onBroken: (problem, reason) => {
        this.#isConnected = false
        metrics.setConnected(false)
        metrics.countReconnect(reason)
        options.onEvent?.({ type: 'disconnected', problem })
      },
    })
  }

  /** Before the first hello, which names what runs here: so the control plane's word about it comes to this connection. */
  async adopt(): Promise<void> {
    const { options, backend } = this.#parts
    // Its one task is one that it was given.
    if (options.oneShot) return
    const send = (message: WorkerMessage) => this.#connection.send(message)
    for (const adopted of await backend.adopt((refs) => createStepReporter(send, refs))) {
      const { task_id: runId, execution_id: executionId } = adopted.refs
      const log = this.#log.child({ runId, executionId })
      log.info({ pid: adopted.task.pid }, 'An agent outlived its worker process; taken over')
      this.#slots.occupy()
      this.#follow(resumeAssignment(this.#assignmentContext(runId, executionId), adopted), adopted.startedAt.getTime())
    }
  }

  async run(): Promise<number> {
    const { options, times } = this.#parts
    const onStop = () => this.#drain()
    const onStopNow = () => this.#stopAll({ atOnce: true })
    const onLeave = () => this.#leave()
    options.signal.addEventListener('abort', onStop, { once: true })
    options.stopNow?.addEventListener('abort', onStopNow, { once: true })
    options.leave?.addEventListener('abort', onLeave, { once: true })
    const sweeping = setInterval(() => this.#sweep(), times.sweepEveryMs)
    const connected = new AbortController()
    const connection = this.#connection.run(connected.signal)
    try {
      if (options.signal.aborted) onStop()
      else if (options.leave?.aborted) onLeave()
      // Ends with a refusal; a stop is what normally ends the wait.
      await Promise.race([connection, aborted(this.#stopped.signal)])
      if (this.#isLeaving) await this.#connection.settle(times.settleMs)
      // Unless a stop came meanwhile.
      if (this.#isLeaving) return this.#exitCode
      await this.#endAll()
      await this.#connection.settle(options.stopNow?.aborted ? 500 : times.settleMs)
      return this.#exitCode
    } catch (error) {
      const problem = error instanceof Error ? error.message : 'unknown error'
      this.#log.error({ problem }, 'The control plane refused this worker')
      this.#stopAll({ atOnce: false })
      await this.#endAll()
      return 1
    } finally {
      clearInterval(sweeping)
      options.signal.removeEventListener('abort', onStop)
      options.stopNow?.removeEventListener('abort', onStopNow)
      options.leave?.removeEventListener('abort', onLeave)
      connected.abort()
      await connection.catch(() => {})
    }
  }

  #hello(): Extract<WorkerMessage, { type: 'worker_hello' }> {
    const { options, backend } = this.#parts
    const running = [...this.#assignments.values()]
    return {
      type: 'worker_hello',
      data: {
        protocol: workerProtocolVersion,
        version: manifest.version,
        backend: backend.name,
        platform: `${process.platform}/${process.arch}`,
        host: hostname().slice(0, 255),
        max_concurrent_tasks: options.maxConcurrentTasks,
        running: running.map(({ taskId, executionId }) => ({ task_id: taskId, execution_id: executionId })),
      },
    }
  }

  #onOpen(): void {
    const { options, metrics } = this.#parts
    this.#isConnected = true
    metrics.setConnected(true)
    options.onEvent?.({ type: 'connected' })
    if (this.#slots.active > 0 || this.#slots.isDraining) this.#tellStatus()
    if (!this.#slots.isDraining) {
      this.#log.info('Listening for tasks')
      void this.#tellTeam()
      options.onEvent?.({ type: 'listening' })
    }
    this.#sweep()
  }

  /** Runs of another team never come here, and a control plane does not say so to that team: this line shows whose they are. */
  async #tellTeam(): Promise<void> {
    if (this.#hasToldTeam) return
    const { options, dialer } = this.#parts
    try {
      const { team_names: teams } = await createApiClient({ fetch: dialer.fetch, apiKey: options.apiKey }).whoami()
      this.#hasToldTeam = true
      this.#log.info({ workerId: options.workerId, teams }, 'Takes runs of the team of its key only')
    } catch {
      // A word for the operator, which is not worth a warning when it cannot be said.
    }
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
        this.#stopTask(message.data, 'abandon')
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
    const former = [...this.#assignments.values()].find((other) => other.taskId === taskId)
    const slot = former
      ? { taken: false as const, reason: 'an earlier execution of this run is still ending here', isFull: false }
      : this.#slots.take()
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
    this.#claim(assignment)
  }

  #claim(assignment: TaskAssignment): void {
    const { options, metrics } = this.#parts
    const { task_id: taskId, execution_id: executionId } = assignment
    metrics.countClaimed()
    this.#log.info({ runId: taskId, executionId }, 'Task claimed')
    options.onEvent?.({ type: 'task_claimed', taskId, executionId })
    this.#follow(runAssignment(this.#assignmentContext(taskId, executionId), assignment), Date.now())
    if (options.oneShot) this.#slots.drain()
  }

  #assignmentContext(taskId: string, executionId: string): AssignmentContext {
    const { options, backend, times } = this.#parts
    const log = this.#log.child({ runId: taskId, executionId })
    return {
      backend,
      log,
      send: (message) => this.#connection.send(message),
      graceMs: times.graceMs,
      onStarted: ({ pid, workspace }) => {
        log.info({ pid, workspace }, 'Task started')
        options.onEvent?.({ type: 'task_started', taskId, executionId, pid, workspace })
      },
    }
  }

  /** Until its outcome. `sinceMs` is a wall clock time: it may lie in the life of an earlier process. */
  #follow(assignment: Assignment, sinceMs: number): void {
    this.#assignments.set(assignment.executionId, assignment)
    const ending = assignment.ended.then((outcome) =>
      this.#onEnded(assignment, outcome, Math.max(0, Date.now() - sinceMs) / 1000),
    )
    this.#ending.add(ending)
    void ending.finally(() => this.#ending.delete(ending))
  }

  #onEnded({ taskId, executionId }: Assignment, outcome: TaskOutcome, seconds: number): void {
    const { options, metrics } = this.#parts
    const { result, message, reason } = outcome
    this.#assignments.delete(executionId)
    if (result !== 'abandoned') metrics.countEnded(result, seconds)
    if (reason !== undefined) metrics.countFailure(isAssignmentFailure(reason) ? 'assignment' : 'backend', reason)
    this.#log.info({ runId: taskId, executionId, result, reason }, 'Task ended')
    options.onEvent?.({ type: 'task_ended', taskId, executionId, result, message })
    this.#slots.release()
    if (options.oneShot) {
      this.#exitCode = result === 'succeeded' ? 0 : 1
      this.#stopped.abort()
    }
  }

  /** Cancellations of tasks that we do not have come late, or are another worker's of the same id. */
  #stopTask({ task_id, execution_id }: { task_id: string; execution_id?: string }, cause: 'cancel' | 'abandon'): void {
    const found = [...this.#assignments.values()].filter(
      ({ taskId, executionId }) => taskId === task_id && (execution_id === undefined || execution_id === executionId),
    )
    for (const assignment of found) {
      this.#log.info({ runId: task_id, executionId: assignment.executionId, cause }, 'Task is to be ended')
      assignment.stop(cause)
    }
  }

  #tellStatus(): void {
    const { active, isDraining } = this.#slots
    this.#parts.metrics.setActive(active)
    this.#connection.send({ type: 'worker_status', data: { active, draining: isDraining } })
  }

  #drain(): void {
    const { options } = this.#parts
    this.#isLeaving = false
    this.#slots.drain()
    options.onEvent?.({ type: 'draining' })
    this.#log.info({ active: this.#slots.active }, 'Stopping: no new tasks; running ones are ended')
    this.#stopAll({ atOnce: false })
    this.#stopped.abort()
  }

  #leave(): void {
    if (this.#stopped.signal.aborted) return
    this.#isLeaving = true
    this.#slots.drain()
    this.#parts.options.onEvent?.({ type: 'draining' })
    this.#log.info({ active: this.#slots.active }, 'Leaving: running tasks go on, for the next process of this worker')
    this.#stopped.abort()
  }

  #stopAll({ atOnce }: { atOnce: boolean }): void {
    for (const assignment of this.#assignments.values()) assignment.stop('shutdown', { atOnce })
  }

  async #endAll(): Promise<void> {
    while (this.#ending.size > 0) await Promise.all(this.#ending)
  }

  /** Only with a connection: without one nothing could be delivered, and what cannot be delivered in time is given up. */
  #sweep(): void {
    if (this.#isSweeping || !this.#isConnected) return
    const { backend, stopSweeping } = this.#parts
    this.#isSweeping = true
    this.swept = backend
      .sweep(stopSweeping)
      .catch((error: unknown) => this.#log.warn({ error }, 'The sweep failed; tried again later'))
      .finally(() => {
        this.#isSweeping = false
      })
  }
}

function isAssignmentFailure(reason: string): boolean {
  return reason === 'workspace_setup' || reason === 'setup_command'
}

/** A key that was given as a flag is in our command line, which everybody on the machine can read; this overwrites it. */
function hideKey(apiKey: string): void {
  if (process.argv.some((arg) => arg.includes(apiKey))) process.title = 'oz-agent-worker'
}

function aborted(signal: AbortSignal): Promise<void> {
  return new Promise((resolve) => {
    if (signal.aborted) resolve()
    signal.addEventListener('abort', () => resolve(), { once: true })
  })
}
