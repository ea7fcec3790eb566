import type { IncomingMessage } from 'node:http'
import type { Duplex } from 'node:stream'
import {
  AppError,
  type ServerMessage,
  type WorkerMessage,
  workerCloseCodes,
  workerMessage,
  workerProtocolHeader,
  workerProtocolVersion,
  workerSocketPath,
} from '@openoz/protocol'
import { v7 as uuidv7 } from 'uuid'
import { type WebSocket, WebSocketServer } from 'ws'
import { type Actor, authenticate } from '../domain/actors.ts'
import {
  claimAssignment,
  type Offer,
  rejectAssignment,
  reportEnd,
  reportStep,
  resumeExecutions,
  type Verdict,
} from '../domain/assignments.ts'
import type { Ctx } from '../domain/context.ts'
import { withdraw } from '../domain/leases.ts'
import { assertMay } from '../domain/permissions.ts'
import { toProblem } from '../http/problems.ts'
import type { Slot } from '../loops/dispatcher.ts'
import { type Loop, startLoop } from '../loops/loop.ts'
import { renewWorkerLeases, takeCancellationsToSend } from '../store/executions.ts'
import {
  deleteWorkerConnection,
  insertWorkerConnection,
  touchWorkerConnections,
  updateWorkerStatus,
} from '../store/workers.ts'

/**
 * Workers' sockets of this server. A connection is: upgraded after its key was checked → (ours: `worker_hello`) → present, offered to, heard →
 * closed. Its messages are handled one after the other, in order. What a message means is decided in `domain/assignments.ts`.
 *
 * The open socket is the worker's sign of life: every 5 s the server pings, and while pongs come, renews what the worker holds.
 */

const presenceMs = 5_000
/** Three missed pongs. */
const silentMs = 20_000
/** Ours say hello at once; the rest is a slow network. */
const helloMs = 10_000
/** After a rejection the connection is left alone this long, or until a task of it ends. */
const rejectedPauseMs = 5_000
/** A frame is an assignment's answer or a short report; details are cut by the worker. */
const maxFrameBytes = 1024 * 1024
/** Time that an agent has to end politely before its worker is told to end it. */
const cancelGraceSeconds = 10

export interface WorkerSockets {
  /** Takes over an HTTP upgrade; answers an HTTP error when it may not. */
  upgrade(request: IncomingMessage, socket: Duplex, head: Buffer): Promise<void>
  slots(): Iterable<Slot>
  count(): number
  loops: Loop[]
  /** No new offers, and every worker is told that this server goes. */
  close(): Promise<void>
}

export function createWorkerSockets(ctx: Ctx, wakeDispatcher: () => void, signal: AbortSignal): WorkerSockets {
  const server = new WebSocketServer({ noServer: true, maxPayload: maxFrameBytes, perMessageDeflate: false })
  const connections = new Map<string, Connection>()

  async function upgrade(request: IncomingMessage, socket: Duplex, head: Buffer): Promise<void> {
    // A peer that resets while its key is looked up is no error of ours.
    socket.on('error', () => socket.destroy())
    try {
      const actor = await authenticate(ctx, bearerToken(request.headers.authorization))
      assertMay(actor, 'worker.connect')
      const workerId = new URL(request.url ?? '/', 'http://localhost').searchParams.get('worker_id') ?? ''
      checkWorkerId(actor, workerId)
      if (signal.aborted) throw new AppError('server_draining')
      server.handleUpgrade(request, socket, head, (webSocket) => {
        const speaksOurs = request.headers[workerProtocolHeader] === String(workerProtocolVersion)
        open(webSocket, actor, workerId, speaksOurs)
      })
    } catch (error) {
      refuseUpgrade(ctx, socket, error)
    }
  }

  function open(socket: WebSocket, actor: Actor, workerId: string, speaksOurs: boolean): void {
    const connection = new Connection(ctx, socket, { teamId: actor.teamId, workerId, speaksOurs }, wakeDispatcher)
    connections.set(connection.id, connection)
    socket.on('close', () => {
      connections.delete(connection.id)
      connection.gone().catch((error: Error) => ctx.log.warn({ error: error.message, workerId }, 'could not tidy up'))
    })
  }

  const presence = startLoop({
    name: 'worker presence',
    everyMs: presenceMs,
    log: ctx.log,
    signal,
    async work() {
      const present: Connection[] = []
      for (const connection of connections.values()) if (connection.ping()) present.push(connection)
      if (present.length === 0) return
      const ids = present.map((connection) => connection.id)
      const known = await touchWorkerConnections(ctx.db, ids)
      await renewWorkerLeases(ctx.db, ids)
      // Removed as stale while this server or the database was away: written again.
      for (const connection of present) if (!known.includes(connection.id)) await connection.register()
    },
  })
  const cancellations = startLoop({
    name: 'cancellations',
    everyMs: 1_000,
    log: ctx.log,
    signal,
    async work() {
      const ids = [...connections.keys()]
      if (ids.length === 0) return
      for (const found of await takeCancellationsToSend(ctx.db, ids, cancelGraceSeconds))
        connections.get(found.connectionId)?.sendCancellation(found.runId, found.executionId)
    },
  })
  const unsubscribe = ctx.hints.subscribe('cancellations', () => cancellations.wake())
  signal.addEventListener('abort', unsubscribe, { once: true })

  return {
    upgrade,
    slots: () => connections.values(),
    count: () => connections.size,
    loops: [presence, cancellations],
    async close() {
      const closed = [...connections.values()].map((connection) => connection.drain())
      await Promise.all(closed)
    },
  }
}

class Connection implements Slot {
  readonly id = uuidv7()
  readonly teamId: string
  readonly workerId: string
  readonly speaksOurs: boolean
  readonly #ctx: Ctx
  readonly #socket: WebSocket
  readonly #wakeDispatcher: () => void
  /** Executions offered on this socket or running there. */
  readonly #executions = new Map<string, { runId: string; isClaimed: boolean }>()
  #maxConcurrentTasks = 0
  #isDraining = false
  #isReady = false
  #pausedUntil = 0
  #lastHeard = Date.now()
  #work: Promise<void> = Promise.resolve()
  #about = { backend: 'unknown', platform: 'unknown', version: 'unknown', host: 'unknown' }
  readonly #helloTimer: NodeJS.Timeout | undefined

  constructor(
    ctx: Ctx,
    socket: WebSocket,
    who: { teamId: string; workerId: string; speaksOurs: boolean },
    wakeDispatcher: () => void,
  ) {
    this.teamId = who.teamId
    this.workerId = who.workerId
    this.speaksOurs = who.speaksOurs
    this.#ctx = ctx
    this.#socket = socket
    this.#wakeDispatcher = wakeDispatcher
    socket.on('error', (error) => ctx.log.debug({ error: error.message, workerId: who.workerId }, 'worker socket'))
    socket.on('pong', () => this.#heard())
    socket.on('ping', () => this.#heard())
    socket.on('message', (data) => {
      this.#heard()
      this.#enqueue(() => this.#receive(data.toString()))
    })
    if (who.speaksOurs) this.#helloTimer = setTimeout(() => this.#violation('it did not say worker_hello'), helloMs)
    else this.#enqueue(() => this.#ready([]))
  }

  get active(): number {
    return this.#executions.size
  }

  hasFreeSlot(): boolean {
    const hasRoom = this.#maxConcurrentTasks === 0 || this.active < this.#maxConcurrentTasks
    return this.#isReady && !this.#isDraining && hasRoom && Date.now() >= this.#pausedUntil && this.#isOpen()
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

  /** Pings, or closes a socket that has been silent; answers whether it is alive. */
  ping(): boolean {
    if (!this.#isReady) return false
    if (Date.now() - this.#lastHeard > silentMs) {
      this.#socket.terminate()
      return false
    }
    this.#socket.ping()
    return true
  }

  async register(): Promise<void> {
    await insertWorkerConnection(this.#ctx.db, {
      id: this.id,
      serverId: this.#ctx.serverId,
      teamId: this.teamId,
      workerId: this.workerId,
      maxConcurrentTasks: this.#maxConcurrentTasks,
      ...this.#about,
    })
  }

  /** The socket closed: what was offered and not claimed goes back to the queue, what runs goes on. */
  async gone(): Promise<void> {
    clearTimeout(this.#helloTimer)
    this.#isReady = false
    await this.#work
    this.#ctx.log.info({ workerId: this.workerId, connectionId: this.id }, 'worker disconnected')
    await deleteWorkerConnection(this.#ctx.db, this.id)
    for (const [executionId, { runId, isClaimed }] of this.#executions)
      if (!isClaimed) await withdraw(this.#ctx, runId, executionId, 'its connection closed before it answered')
  }

  async drain(): Promise<void> {
    this.#isDraining = true
    await this.#work
    const closed = new Promise<void>((resolve) => this.#socket.once('close', () => resolve()))
    this.#socket.close(workerCloseCodes.draining, 'this server is stopping')
    const timer = setTimeout(() => this.#socket.terminate(), 1_000)
    await closed
    clearTimeout(timer)
  }

  #isOpen(): boolean {
    return this.#socket.readyState === this.#socket.OPEN
  }

  #heard(): void {
    this.#lastHeard = Date.now()
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
    if ('problem' in message) return this.#violation(message.problem)
    if (this.speaksOurs && !this.#isReady && message.type !== 'worker_hello')
      return this.#violation(`it sent ${message.type} before worker_hello`)
    await this.#handle(message)
  }

  async #handle(message: WorkerMessage): Promise<void> {
    const ctx = this.#ctx
    switch (message.type) {
      case 'worker_hello': {
        const { backend, platform, version, host, max_concurrent_tasks, running } = message.data
        this.#about = { backend, platform, version, host }
        this.#maxConcurrentTasks = max_concurrent_tasks
        return this.#ready(running)
      }
      case 'task_claimed': {
        const verdict = await claimAssignment(ctx, this, message.data)
        this.#act(verdict, message.data.task_id)
        const known = verdict.executionId && this.#executions.get(verdict.executionId)
        if (known) known.isClaimed = true
        return
      }
      case 'task_rejected':
        this.#pausedUntil = Date.now() + rejectedPauseMs
        return this.#forget(await rejectAssignment(ctx, this, message.data, message.data.reason), false)
      case 'task_step':
        return this.#act(await reportStep(ctx, this, message.data), message.data.task_id)
      case 'task_completed':
      case 'task_failed':
        return this.#forget(await reportEnd(ctx, this, message), true)
      case 'worker_status':
        this.#isDraining = message.data.draining
        await updateWorkerStatus(ctx.db, this.id, message.data)
        return this.#wakeDispatcher()
      case 'heartbeat':
        return
      default:
        return message satisfies never
    }
  }

  async #ready(running: { task_id: string; execution_id: string }[]): Promise<void> {
    clearTimeout(this.#helloTimer)
    await this.register()
    for (const over of await resumeExecutions(this.#ctx, this, running))
      this.#sendMessage({ type: 'task_superseded', data: over })
    for (const { task_id, execution_id } of running)
      this.#executions.set(execution_id, { runId: task_id, isClaimed: true })
    this.#isReady = true
    this.#ctx.log.info(
      { workerId: this.workerId, connectionId: this.id, backend: this.#about.backend, running: running.length },
      'worker connected',
    )
    this.#wakeDispatcher()
  }

  /** A worker that speaks ours is told to end what is over; the reference's worker is told to cancel it. */
  #act(verdict: Verdict, runId: string): void {
    if (verdict.verdict !== 'superseded' || verdict.executionId === undefined) return
    if (this.speaksOurs)
      this.#sendMessage({
        type: 'task_superseded',
        data: { task_id: runId, execution_id: verdict.executionId },
      })
    else this.#sendMessage({ type: 'task_cancellation', data: { task_id: runId } })
  }

  #forget(verdict: Verdict, isEnd: boolean): void {
    if (verdict.executionId !== undefined) this.#executions.delete(verdict.executionId)
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

function parseMessage(text: string): WorkerMessage | { problem: string } {
  let json: unknown
  try {
    json = JSON.parse(text)
  } catch {
    return { problem: 'the frame is not JSON' }
  }
  const parsed = workerMessage.safeParse(json)
  if (parsed.success) return parsed.data
  const issue = parsed.error.issues[0]
  return { problem: `${issue?.path.join('.') || 'message'}: ${issue?.message ?? 'does not fit'}` }
}

function checkWorkerId(actor: Actor, workerId: string): void {
  if (workerId === '' || workerId.length > 255 || workerId.startsWith('warp'))
    throw new AppError('worker_id_reserved', { workerId })
  if (actor.kind === 'worker' && actor.workerId !== null && actor.workerId !== workerId)
    throw new AppError('worker_key_other_worker', { allowed: actor.workerId, workerId })
}

export function bearerToken(header: string | undefined): string | undefined {
  return /^Bearer\s+(\S+)$/i.exec(header ?? '')?.[1]
}

function refuseUpgrade(ctx: Ctx, socket: Duplex, error: unknown): void {
  const problem = toProblem(ctx.log, error, ctx.publicUrl, workerSocketPath)
  const body = JSON.stringify(problem)
  socket.end(
    [
      `HTTP/1.1 ${problem.status} ${problem.title}`,
      'Connection: close',
      'Content-Type: application/problem+json',
      `Content-Length: ${Buffer.byteLength(body)}`,
      '',
      body,
    ].join('\r\n'),
  )
}
