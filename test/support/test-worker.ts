import { once } from 'node:events'
import type { IncomingMessage } from 'node:http'
import type { ExecutionRef, Problem, ServerMessage, TaskAssignment, WorkerMessage } from '@openoz/protocol'
import { workerProtocolHeader, workerProtocolVersion, workerSocketPath } from '@openoz/protocol/schemas'
import WebSocket from 'ws'
import { Inbox } from './poll.ts'

export interface TestWorkerOptions {
  workerId?: string
  /** Speaks our additions; false: the reference messages only. */
  ours?: boolean
  /** 0: no limit. */
  maxConcurrentTasks?: number
  running?: ExecutionRef[]
  finishing?: ExecutionRef[]
  /** Its process first, then those whose tasks it took over. */
  instances?: string[]
  /** Says at once that nothing runs any more of what is over; default true. */
  answersGone?: boolean
  key?: string
}

type Assignment = Pick<TaskAssignment, 'task_id' | 'execution_id'>

/** A worker as far as its socket shows it: nothing runs. */
export class TestWorker implements AsyncDisposable {
  readonly workerId: string
  readonly assignments = new Inbox<TaskAssignment>()
  readonly cancellations = new Inbox<{ task_id: string; execution_id?: string | undefined }>()
  readonly superseded = new Inbox<ExecutionRef>()
  readonly drains = new Inbox<boolean>()
  /** Everything that came, as it came. */
  readonly frames: ServerMessage[] = []
  readonly closed: Promise<{ code: number; reason: string }>
  readonly #socket: WebSocket
  readonly #isOurs: boolean

  private constructor(
    socket: WebSocket,
    options: Required<Pick<TestWorkerOptions, 'workerId' | 'ours' | 'answersGone'>>,
  ) {
    this.#socket = socket
    this.#isOurs = options.ours
    this.workerId = options.workerId
    this.closed = new Promise((resolve) =>
      socket.on('close', (code, reason) => resolve({ code, reason: reason.toString() })),
    )
    socket.on('error', () => {})
    socket.on('message', (data) => {
      const message = JSON.parse(data.toString()) as ServerMessage
      this.frames.push(message)
      if (message.type === 'task_assignment') this.assignments.push(message.data)
      else if (message.type === 'task_cancellation') this.cancellations.push(message.data)
      else if (message.type === 'worker_drain') this.drains.push(message.data.draining)
      else {
        this.superseded.push(message.data)
        if (options.answersGone) this.gone(message.data)
      }
    })
  }

  /** Rejects with `WorkerRefused` when the server does not take the connection. */
  static async connect(url: string, key: string, options: TestWorkerOptions = {}): Promise<TestWorker> {
    const { workerId = 'w1', ours = true, maxConcurrentTasks = 1, running = [], answersGone = true } = options
    const { finishing, instances } = options
    const address = new URL(`${workerSocketPath}?worker_id=${encodeURIComponent(workerId)}`, url)
    address.protocol = 'ws:'
    const socket = new WebSocket(address, {
      headers: {
        authorization: `Bearer ${key}`,
        ...(ours ? { [workerProtocolHeader]: String(workerProtocolVersion) } : {}),
      },
    })
    const worker = new TestWorker(socket, { workerId, ours, answersGone })
    const refused = new Promise<never>((_, reject) => {
      socket.on('unexpected-response', (_request, response) => void readRefusal(response).then(reject))
      socket.once('error', reject)
    })
    refused.catch(() => {})
    await Promise.race([once(socket, 'open'), refused])
    if (ours)
      worker.send({
        type: 'worker_hello',
        data: {
          protocol: workerProtocolVersion,
          version: '0.1.0',
          backend: 'direct',
          platform: 'linux/amd64',
          host: 'test',
          max_concurrent_tasks: maxConcurrentTasks,
          running,
          ...(finishing && { finishing }),
          ...(instances && { instances }),
        },
      })
    return worker
  }

  send(message: WorkerMessage): void {
    this.sendRaw(JSON.stringify(message))
  }

  sendRaw(text: string): void {
    this.#socket.send(text)
  }

  nextAssignment(timeoutMs?: number): Promise<TaskAssignment> {
    return this.assignments.next(timeoutMs)
  }

  claim(assignment: Assignment): void {
    this.send({ type: 'task_claimed', data: { ...this.#ref(assignment), worker_id: this.workerId } })
  }

  reject(assignment: Assignment, reason = 'worker at maximum concurrency'): void {
    this.send({ type: 'task_rejected', data: { ...this.#ref(assignment), reason } })
  }

  complete(assignment: Assignment, end: { message?: string; task_state?: string } = {}): void {
    this.send({ type: 'task_completed', data: { ...this.#ref(assignment), message: '', ...end } })
  }

  fail(
    assignment: Assignment,
    end: { message?: string; failure_reason?: string; exit_code?: number; task_state?: string } = {},
  ): void {
    this.send({ type: 'task_failed', data: { ...this.#ref(assignment), message: '', ...end } })
  }

  /** Its agent's process has ended; its end is still saved and delivered. */
  finish({ task_id, execution_id }: Assignment): void {
    this.send({ type: 'task_finishing', data: { task_id, execution_id } })
  }

  gone({ task_id, execution_id }: Assignment): void {
    this.send({ type: 'task_gone', data: { task_id, execution_id } })
  }

  /** Takes what comes next. */
  async claimNext(): Promise<TaskAssignment> {
    const assignment = await this.nextAssignment()
    this.claim(assignment)
    return assignment
  }

  disconnect(): Promise<unknown> {
    this.#socket.terminate()
    return this.closed
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await this.disconnect()
  }

  #ref({ task_id, execution_id }: Assignment) {
    return { task_id, ...(this.#isOurs ? { execution_id } : {}) }
  }
}

/** The server's answer to an upgrade that it refused. */
export class WorkerRefused extends Error {
  readonly problem: Problem
  constructor(problem: Problem) {
    super(problem.detail)
    this.problem = problem
  }
}

async function readRefusal(response: IncomingMessage): Promise<Error> {
  const chunks: Buffer[] = []
  for await (const chunk of response) chunks.push(chunk as Buffer)
  const text = Buffer.concat(chunks).toString()
  return text === '' ? new Error(`HTTP ${response.statusCode}`) : new WorkerRefused(JSON.parse(text))
}
