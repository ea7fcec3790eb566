import type { IncomingMessage } from 'node:http'
import type { Duplex } from 'node:stream'
import { AppError } from '@openoz/protocol'
import { workerProtocolHeader, workerProtocolVersion, workerSocketPath } from '@openoz/protocol/schemas'
import { WebSocketServer } from 'ws'
import { type Actor, authenticate, type ExecutionActor } from '../domain/actors.ts'
import type { Ctx } from '../domain/context.ts'
import { afterGoodbye } from '../domain/executions.ts'
import { assertMay } from '../domain/permissions.ts'
import { requireWorkerId } from '../domain/worker-drains.ts'
import { toProblem } from '../http/problems.ts'
import { lookEveryMs, renewEveryMs } from '../lease-times.ts'
import type { Slot } from '../loops/dispatcher.ts'
import { type Loop, startLoop } from '../loops/loop.ts'
import { listUnusableKeys } from '../store/api-keys.ts'
import { listOverExecutions } from '../store/executions.ts'
import { renewWorkerLeases, takeCancellationsToSend, takeOverExecutions } from '../store/leases.ts'
import { touchPresent } from '../store/presence.ts'
import { listWorkerDrains } from '../store/worker-drains.ts'
import { createHttpChannels } from './http-channels.ts'
import { HttpWorkerSocket } from './http-worker-socket.ts'
import { type ConnectedWorker, Connection } from './worker-connection.ts'
import type { WorkerSocket } from './worker-frame.ts'

/**
 * Workers' sockets of this server: WebSockets, upgraded after their key was checked, and the plain HTTP channels of workers whose network ends
 * those. Either is a `Connection` from then on.
 *
 * The open socket is the worker's sign of life: every 5 s the server pings, and while pongs come, renews what the worker holds. By hints, and every
 * second or two without any, it tells workers what they cannot know by themselves: a cancel that the agent did not heed, an execution that is over in the
 * database, an operator who drains them.
 */

/** A frame is an assignment's answer or a short report; details are cut by the worker. */
const maxFrameBytes = 1024 * 1024
/** A cancel that its worker did not heed is sent again: the frame may have been lost with whatever was in between. */
const cancelAgainSeconds = 15

type KeyActor = Exclude<Actor, ExecutionActor>

export interface WorkerSockets {
  /** Takes over an HTTP upgrade; answers an HTTP error when it may not. */
  upgrade(request: IncomingMessage, socket: Duplex, head: Buffer): Promise<void>
  /** The stream of a plain HTTP channel. Ends with the signal, or when its reader leaves it. */
  openChannel(
    actor: Actor,
    worker: { workerId: string; speaksOurs: boolean },
    signal: AbortSignal,
  ): Promise<ReadableStream>
  slots(): Iterable<Slot>
  count(): number
  loops: Loop[]
  /** No new offers, and every worker is told that this server goes. */
  close(): Promise<void>
}

export function createWorkerSockets(
  ctx: Ctx,
  wakeDispatcher: (worker: ConnectedWorker) => void,
  signal: AbortSignal,
): WorkerSockets {
  const server = new WebSocketServer({
    noServer: true,
    maxPayload: maxFrameBytes,
    perMessageDeflate: false,
    autoPong: false,
  })
  const connections = new Map<string, Connection>()
  /** Connections that closed and are being tidied up. */
  const leaving = new Set<Promise<void>>()
  const channels = createHttpChannels(ctx, signal)
  const { lease } = ctx.config
  const presenceMs = Math.min(renewEveryMs(lease), lease.workerSilentMs / 4)
  let cancelTimer: NodeJS.Timeout | undefined
  let isClosing = false

  async function upgrade(request: IncomingMessage, socket: Duplex, head: Buffer): Promise<void> {
    // A peer that resets while its key is looked up is no error of ours.
    socket.on('error', () => socket.destroy())
    try {
      const actor = await authenticate(ctx, bearerToken(request.headers.authorization))
      assertMay(actor, 'worker.connect')
      const workerId = new URL(request.url ?? '/', 'http://localhost').searchParams.get('worker_id') ?? ''
      const key = admit(actor, workerId)
      server.handleUpgrade(request, socket, head, (webSocket) => {
        const speaksOurs = request.headers[workerProtocolHeader] === String(workerProtocolVersion)
        open(webSocket, { ...key, workerId, speaksOurs, channel: 'websocket' })
      })
    } catch (error) {
      refuseUpgrade(ctx, socket, error)
    }
  }

  async function openChannel(
    actor: Actor,
    { workerId, speaksOurs }: { workerId: string; speaksOurs: boolean },
    left: AbortSignal,
  ): Promise<ReadableStream> {
    const key = admit(actor, workerId)
    if (!speaksOurs) {
      const problem = `The plain HTTP channel takes the header \`${workerProtocolHeader}: ${workerProtocolVersion}\` only.`
      throw new AppError('invalid_request', { problem })
    }
    const socket = new HttpWorkerSocket()
    const { id } = open(socket, { ...key, workerId, speaksOurs, channel: 'http' })
    left.addEventListener('abort', () => socket.terminate(), { once: true })
    if (left.aborted) socket.terminate()
    try {
      await channels.open(id, key.keyId, socket)
    } catch (error) {
      socket.terminate()
      throw error
    }
    socket.opened(id)
    return socket.stream
  }

  /** Of whoever may not be this worker here, says why. */
  function admit(actor: Actor, workerId: string): { teamId: string; keyId: string } {
    if (actor.kind === 'execution')
      throw new AppError('not_authorized', { actor: 'An agent', action: 'connect as a worker' })
    checkWorkerId(actor, workerId)
    if (isClosing || signal.aborted) throw new AppError('server_draining')
    return { teamId: actor.teamId, keyId: actor.keyId }
  }

  function open(socket: WorkerSocket, worker: ConnectedWorker): Connection {
    const connection = new Connection(ctx, socket, worker, wakeDispatcher)
    connections.set(connection.id, connection)
    socket.on('close', () => {
      connections.delete(connection.id)
      const warn = (error: Error) =>
        ctx.log.warn({ error: error.message, workerId: worker.workerId }, 'could not tidy up')
      // In this order: an offer may have been answered just before.
      const left = channels
        .remove(connection.id)
        .catch(warn)
        .then(() => connection.gone())
        .catch(warn)
        .finally(() => leaving.delete(left))
      leaving.add(left)
    })
    return connection
  }

  // Apart from the database, which may take its time: without pings a worker takes the path for dead.
  const pings = startLoop({
    name: 'worker pings',
    everyMs: presenceMs,
    log: ctx.log,
    signal,
    async work() {
      for (const connection of connections.values()) connection.ping()
    },
  })
  const presence: Loop = startLoop({
    name: 'worker presence',
    everyMs: presenceMs,
    log: ctx.log,
    signal,
    async work() {
      const present = [...connections.values()].filter((connection) => connection.isPresent())
      if (present.length === 0) return
      const ids = present.map((connection) => connection.id)
      const known = await touchPresent(ctx.db, 'worker_connections', ids)
      await renewWorkerLeases(ctx.db, ids)
      // Removed as stale while this server or the database was away: written again.
      for (const connection of present) if (!known.includes(connection.id)) await connection.register()
      await tellDrains(present)
      // A worker may be back before its old socket is known to be closed.
      const reference = present.filter((connection) => !connection.speaksOurs).map((connection) => connection.id)
      if (reference.length > 0)
        for (const { runId, executionId, connectionId } of await takeOverExecutions(ctx.db, reference))
          connections.get(connectionId)?.adopt(runId, executionId)
      const refused = await listUnusableKeys(ctx.db, [...new Set(present.map((connection) => connection.keyId))])
      for (const connection of present) if (refused.includes(connection.keyId)) connection.refuseKey()
    },
  })
  const cancellations: Loop = startLoop({
    name: 'cancellations',
    everyMs: lookEveryMs(lease),
    log: ctx.log,
    signal,
    async work() {
      const ids = [...connections.keys()]
      if (ids.length === 0) return
      const times = {
        graceSeconds: lease.cancelGraceMs / 1000,
        againSeconds: cancelAgainSeconds,
        outageSeconds: lease.outageMs / 1000,
      }
      const { toSend, nextInMs } = await takeCancellationsToSend(ctx.db, ids, times)
      for (const found of toSend) connections.get(found.connectionId)?.sendCancellation(found.runId, found.executionId)
      // Exactly when it is due: somebody waits for it.
      clearTimeout(cancelTimer)
      if (nextInMs !== null && !signal.aborted) cancelTimer = setTimeout(() => cancellations.wake(), nextInMs)
      // What ended without its worker's word: lost, or an offer that was withdrawn.
      const holders = new Map<string, Connection>()
      for (const connection of connections.values())
        for (const executionId of connection.executionIds()) holders.set(executionId, connection)
      if (holders.size === 0) return
      for (const { runId, executionId } of await listOverExecutions(ctx.db, [...holders.keys()], afterGoodbye(ctx)))
        holders.get(executionId)?.supersede(runId, executionId)
    },
  })
  const unsubscribes = [
    ctx.hints.subscribe('cancellations', () => cancellations.wake()),
    ctx.hints.subscribe('worker-drains', () => presence.wake()),
  ]
  signal.addEventListener(
    'abort',
    () => {
      for (const unsubscribe of unsubscribes) unsubscribe()
      clearTimeout(cancelTimer)
    },
    { once: true },
  )

  async function tellDrains(present: Connection[]): Promise<void> {
    const drains = await listWorkerDrains(ctx.db, [...new Set(present.map(({ teamId }) => teamId))])
    for (const connection of present)
      connection.setDrained(
        drains.some(({ teamId, workerId }) => teamId === connection.teamId && workerId === connection.workerId),
      )
  }

  return {
    upgrade,
    openChannel,
    slots: () => connections.values(),
    count: () => connections.size,
    loops: [pings, presence, cancellations, channels.loop],
    async close() {
      isClosing = true
      await Promise.all([...connections.values()].map((connection) => connection.drain()))
      await Promise.all(leaving)
    },
  }
}

function checkWorkerId(actor: KeyActor, workerId: string): void {
  requireWorkerId(workerId)
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
