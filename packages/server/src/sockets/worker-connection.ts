import { AppError, type ExecutionRef, type ServerMessage, type WorkerMessage } from '@openoz/protocol'
import { workerCloseCodes } from '@openoz/protocol/schemas'
import { v7 as uuidv7 } from 'uuid'
import {
  claimAssignment,
  confirmGone,
  endMissing,
  type Offer,
  rejectAssignment,
  reportEnd,
  reportFinishing,
  reportStep,
  resumeExecutions,
  type Verdict,
} from '../domain/assignments.ts'
import type { Ctx } from '../domain/context.ts'
import { withdraw } from '../domain/leases.ts'
import { storableText } from '../domain/session-log.ts'
import type { Slot } from '../loops/dispatcher.ts'
import { takeOverExecutions } from '../store/leases.ts'
import { listWorkerDrains } from '../store/worker-drains.ts'
import {
  deleteWorkerConnection,
  insertWorkerConnection,
  updateWorkerStatus,
  type WorkerTransport,
} from '../store/workers.ts'
import { parseMessage, type WorkerSocket } from './worker-frame.ts'

/**
 * One socket of a worker: (ours: `worker_hello`) → present, offered to, heard → closed. Its messages are handled one after the other, in order,
 * those too that came just before it closed. What a message means is decided in `domain/assignments.ts`.
 *
 * A pong to one of ours says that what it had written before its ping is done with: it forgets claims and outcomes by it. Work that hangs keeps
 * pongs back, and must not look like a dead path: our own pings go on (`worker-sockets.ts`).
 */

/** What a worker says that it has from before this connection. */
interface Possessions {
  running: ExecutionRef[]
  finishing?: ExecutionRef[] | undefined
  instances?: string[] | undefined
}

export interface ConnectedWorker {
  teamId: string
  keyId: string
  workerId: string
  speaksOurs: boolean
  channel: WorkerTransport
}

/** Ours say hello at once; the rest is a slow network. */
const helloMs = 10_000
/** After a rejection the connection is left alone this long, or until a task of it ends. */
const rejectedPauseMs = 5_000

export class Connection implements Slot {
  readonly id = uuidv7()
  readonly teamId: string
  readonly keyId: string
  readonly workerId: string
  readonly speaksOurs: boolean
  instance: string | null = null
  readonly #ctx: Ctx
  readonly #socket: WorkerSocket
  readonly #channel: WorkerTransport
  readonly #wakeDispatcher: () => void
  /** Executions offered on this socket or running there. */
  readonly #executions = new Map<string, { runId: string; isClaimed: boolean }>()
  /** Those of them whose processes have ended: their worker only saves and reports, and their slots are free. */
  readonly #finishing = new Set<string>()
  #maxConcurrentTasks = 0
  /** By its own word, or because its key or its server goes. */
  #isDraining = false
  /** By an operator's. */
  #isDrained = false
  /** What it believes of being drained is what we told it here, or what it said first. */
  #knowsDrain = false
  /** It may be offered to: what it said hello with is stored, and it is still there. */
  #isReady = false
  #saidHello = false
  #pausedUntil = 0
  #lastHeard = performance.now()
  #work: Promise<void> = Promise.resolve()
  #about = { backend: 'unknown', platform: 'unknown', version: 'unknown', host: 'unknown' }
  readonly #helloTimer: NodeJS.Timeout | undefined

  constructor(ctx: Ctx, socket: WorkerSocket, who: ConnectedWorker, wakeDispatcher: (who: ConnectedWorker) => void) {
    this.teamId = who.teamId
    this.keyId = who.keyId
    this.workerId = who.workerId
    this.speaksOurs = who.speaksOurs
    this.#channel = who.channel
    this.#ctx = ctx
    this.#socket = socket
    this.#wakeDispatcher = () => wakeDispatcher(who)
    socket.on('error', (error) => ctx.log.debug({ error: error.message, workerId: who.workerId }, 'worker socket'))
    socket.on('pong', () => this.#heard())
    socket.on('ping', (payload) => {
      this.#heard()
      // To the reference a pong is a sign of life, and nothing else.
      if (!who.speaksOurs) this.#socket.pong(payload)
      else this.#enqueue(async () => this.#pong(payload))
    })
    socket.on('message', (data) => {
      this.#heard()
      this.#enqueue(() => this.#receive(data.toString()))
    })
    if (who.speaksOurs) this.#helloTimer = setTimeout(() => this.#violation('it did not say worker_hello'), helloMs)
    else this.#enqueue(() => this.#ready({ running: [] }))
  }

  get active(): number {
    return this.#executions.size - this.#finishing.size
  }

  hasFreeSlot(): boolean {
    const hasRoom = this.#maxConcurrentTasks === 0 || this.active < this.#maxConcurrentTasks
    return this.#takesWork() && hasRoom && performance.now() >= this.#pausedUntil
  }

  isFull(): boolean {
    const isFull = this.#maxConcurrentTasks > 0 && this.active >= this.#maxConcurrentTasks
    return this.#takesWork() && isFull
  }

  #takesWork(): boolean {
    return this.#isReady && !this.#isDraining && !this.#isDrained && this.#isOpen()
  }

  /** An operator drains this worker id, or does so no more. Its worker is told when that changes. */
  setDrained(isDrained: boolean): void {
    if (this.#isDrained === isDrained) return
    this.#isDrained = isDrained
    this.#tellDrained()
    this.#wakeDispatcher()
  }

  #tellDrained(): void {
    this.#knowsDrain = true
    if (this.speaksOurs) this.#sendMessage({ type: 'worker_drain', data: { draining: this.#isDrained } })
  }

  /** It may come with what it was told on a connection before this one, while its drain was ended. */
  #correctDrain(believesDrained: boolean): void {
    if (this.#knowsDrain) return
    this.#knowsDrain = true
    if (believesDrained) this.#tellDrained()
  }

  send(offer: Offer): boolean {
    if (!this.#isOpen()) return false
    this.#executions.set(offer.executionId, { runId: offer.runId, isClaimed: false })
    return this.#sendMessage({ type: 'task_assignment', data: offer.assignment })
  }

  sendCancellation(runId: string, executionId: string): void {
    this.#sendMessage({
      type: 'task_cancellation',
      data: { task_id: runId, ...(this.speaksOurs ? { execution_id: executionId } : {}) },
    })
  }

  /**
   * The execution is over in the database: its worker is told to end it, the reference's worker to cancel it, and its slot is free. A worker that
   * still needs a moment for it rejects the next offer.
   */
  supersede(runId: string, executionId: string): void {
    this.#drop(executionId)
    if (this.speaksOurs)
      this.#sendMessage({ type: 'task_superseded', data: { task_id: runId, execution_id: executionId } })
    else this.#sendMessage({ type: 'task_cancellation', data: { task_id: runId } })
    this.#wakeDispatcher()
  }

  /** An execution that its worker had claimed on a connection before this one. */
  adopt(runId: string, executionId: string): void {
    this.#executions.set(executionId, { runId, isClaimed: true })
  }

  executionIds(): Iterable<string> {
    return this.#executions.keys()
  }

  /** Pings, or closes a socket that has been silent. */
  ping(): void {
    if (performance.now() - this.#lastHeard > this.#ctx.config.lease.workerSilentMs) this.#socket.terminate()
    else if (this.#isOpen()) this.#socket.ping()
  }

  isPresent(): boolean {
    return this.#isReady
  }

  /** The key was revoked or has expired. What runs goes on; nothing new is offered here. */
  refuseKey(): void {
    this.#isDraining = true
    this.#socket.close(workerCloseCodes.keyRefused, 'the key is no longer valid')
  }

  async register(): Promise<void> {
    await insertWorkerConnection(this.#ctx.db, {
      id: this.id,
      serverId: this.#ctx.serverId,
      teamId: this.teamId,
      workerId: this.workerId,
      maxConcurrentTasks: this.#maxConcurrentTasks,
      channel: this.#channel,
      ...this.#about,
    })
    await updateWorkerStatus(this.#ctx.db, this.id, { active: this.active, draining: this.#isDraining })
  }

  /** The socket closed: what was offered and not claimed goes back to the queue, what runs goes on. */
  async gone(): Promise<void> {
    clearTimeout(this.#helloTimer)
    this.#isReady = false
    await this.#work
    if (!this.#saidHello) return
    this.#ctx.log.info({ workerId: this.workerId, connectionId: this.id }, 'worker disconnected')
    await deleteWorkerConnection(this.#ctx.db, this.id)
    for (const [executionId, { runId, isClaimed }] of this.#executions)
      if (!isClaimed)
        await withdraw(
          this.#ctx,
          { runId, executionId, connectionId: this.id },
          'its connection closed before it answered',
        )
  }

  async drain(): Promise<void> {
    this.#isDraining = true
    // Asked for first: while its last message is handled the socket may close by itself, and it says so only once.
    const closed = new Promise<void>((resolve) => this.#socket.on('close', () => resolve()))
    await this.#work
    this.#socket.close(workerCloseCodes.draining, 'this server is stopping')
    const timer = setTimeout(() => this.#socket.terminate(), 1_000)
    await closed
    clearTimeout(timer)
  }

  #isOpen(): boolean {
    return this.#socket.readyState === this.#socket.OPEN
  }

  /** Not once a message before it has failed: its socket is closed then, and all of them are said again on the next. */
  #pong(payload: Buffer): void {
    if (this.#isOpen()) this.#socket.pong(payload)
  }

  #heard(): void {
    this.#lastHeard = performance.now()
  }

  /** One message after the other; an error of one does not stop the next. */
  #enqueue(work: () => Promise<void>): void {
    this.#work = this.#work.then(work).catch((error: Error) => {
      // A message that could not be handled must not be lost: the worker sends it again on its next connection.
      this.#ctx.log.warn({ error: error.message, workerId: this.workerId }, 'worker message failed; closing its socket')
      this.#socket.close(1011, 'the message could not be handled')
    })
  }

  async #receive(text: string): Promise<void> {
    const message = parseMessage(text)
    if ('problem' in message) {
      if (this.speaksOurs) return this.#violation(message.problem)
      // The reference may know messages that we do not: closing its socket would only make it send them again.
      this.#ctx.log.warn({ workerId: this.workerId, problem: message.problem }, 'worker message ignored')
      return
    }
    // Not `isReady`: what a socket said before it closed counts, although it is heard afterwards.
    if (this.speaksOurs && !this.#saidHello && message.type !== 'worker_hello')
      return this.#violation(`it sent ${message.type} before worker_hello`)
    if (this.#saidHello && message.type === 'worker_hello') return this.#violation('it said worker_hello a second time')
    await this.#handle(message)
  }

  async #handle(message: WorkerMessage): Promise<void> {
    const ctx = this.#ctx
    switch (message.type) {
      case 'worker_hello': {
        const { backend, platform, engine, version, host, max_concurrent_tasks, ...has } = message.data
        this.#about = {
          backend: storableText(backend),
          platform: storableText(platform),
          version: storableText(version),
          host: storableText(host),
        }
        this.#maxConcurrentTasks = max_concurrent_tasks
        if (engine !== undefined) this.#ctx.log.info({ workerId: this.workerId, engine }, 'worker runs containers')
        return this.#ready(has)
      }
      case 'task_claimed': {
        const verdict = await claimAssignment(ctx, this, message.data)
        this.#act(verdict, message.data.task_id)
        const known = verdict.executionId && this.#executions.get(verdict.executionId)
        if (known) known.isClaimed = true
        return
      }
      case 'task_rejected':
        this.#pausedUntil = performance.now() + rejectedPauseMs
        return this.#forget(await rejectAssignment(ctx, this, message.data, message.data.reason), false)
      case 'task_step':
        return this.#act(await reportStep(ctx, this, message.data), message.data.task_id)
      case 'task_finishing': {
        const verdict = await reportFinishing(ctx, this, message.data)
        this.#act(verdict, message.data.task_id)
        if (verdict.executionId !== undefined && this.#executions.has(verdict.executionId)) {
          this.#finishing.add(verdict.executionId)
          this.#wakeDispatcher()
        }
        return
      }
      case 'task_gone':
        return this.#forget(await confirmGone(ctx, this, message.data), true)
      case 'task_completed':
      case 'task_failed':
        return this.#forget(await reportEnd(ctx, this, message), true)
      case 'worker_status':
        this.#isDraining = message.data.draining
        this.#correctDrain(message.data.draining)
        await updateWorkerStatus(ctx.db, this.id, message.data)
        return this.#wakeDispatcher()
      case 'heartbeat':
        return
      default:
        return message satisfies never
    }
  }

  async #ready({ running, finishing = [], instances = [] }: Possessions): Promise<void> {
    clearTimeout(this.#helloTimer)
    this.#saidHello = true
    this.instance = instances[0] ?? null
    await this.register()
    const named = [...running, ...finishing]
    for (const { task_id, execution_id } of named)
      this.#executions.set(execution_id, { runId: task_id, isClaimed: true })
    for (const { execution_id } of finishing) this.#finishing.add(execution_id)
    const over = await resumeExecutions(this.#ctx, this, { running, finishing })
    for (const { task_id, execution_id } of [...over, ...(await endMissing(this.#ctx, this, { instances, named }))])
      this.supersede(task_id, execution_id)
    if (!this.speaksOurs)
      for (const { runId, executionId } of await takeOverExecutions(this.#ctx.db, [this.id]))
        this.adopt(runId, executionId)
    const drains = await listWorkerDrains(this.#ctx.db, [this.teamId])
    this.#isDrained = drains.some(({ workerId }) => workerId === this.workerId)
    // Not that it is not: workers of before drains do not know the message, and one that believes it is drained says so (`#correctDrain`).
    if (this.#isDrained) this.#tellDrained()
    this.#isReady = true
    this.#ctx.log.info(
      {
        workerId: this.workerId,
        connectionId: this.id,
        backend: this.#about.backend,
        channel: this.#channel,
        running: running.length,
        finishing: finishing.length,
      },
      'worker connected',
    )
    this.#wakeDispatcher()
  }

  #drop(executionId: string): void {
    this.#executions.delete(executionId)
    this.#finishing.delete(executionId)
  }

  #act(verdict: Verdict, runId: string): void {
    if (verdict.verdict === 'superseded' && verdict.executionId !== undefined)
      this.supersede(runId, verdict.executionId)
  }

  #forget(verdict: Verdict, isEnd: boolean): void {
    if (verdict.executionId !== undefined) this.#drop(verdict.executionId)
    if (isEnd) this.#pausedUntil = 0
    this.#wakeDispatcher()
    if (!isEnd) setTimeout(this.#wakeDispatcher, rejectedPauseMs).unref()
  }

  #violation(problem: string): void {
    const error = new AppError('worker_protocol_violation', { workerId: this.workerId, problem })
    this.#ctx.log.warn({ workerId: this.workerId }, error.message)
    this.#socket.close(workerCloseCodes.protocolViolation, problem.slice(0, 120))
  }

  #sendMessage(message: ServerMessage): boolean {
    if (!this.#isOpen()) return false
    this.#socket.send(JSON.stringify(message))
    return true
  }
}
