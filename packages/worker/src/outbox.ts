import type { WorkerMessage } from '@openoz/protocol'

/**
 * What the worker has to say, in order, across connections. The protocol has no answers: that a message was handled is told by the pong to a later
 * ping, which the control plane sends once everything before that ping is done with. So claims and outcomes are kept until they are confirmed, and
 * some time longer, for a database that loses its last moments when another takes its place; all that are kept are said again on the next connection.
 * The receiver takes the first.
 */
export class Outbox {
  readonly #limit: number
  readonly #keepMs: number
  #waiting: WorkerMessage[] = []
  #said: { message: WorkerMessage; write: number; at: number; isConfirmed: boolean }[] = []
  #writes = 0
  /** Who waits for which message to be confirmed. */
  readonly #confirmations = new Map<WorkerMessage, () => void>()

  /** 256 as in the reference; two minutes outlast the time in which the control plane gives up on its database. */
  constructor({ limit = 256, keepMs = 120_000 }: { limit?: number; keepMs?: number } = {}) {
    this.#limit = limit
    this.#keepMs = keepMs
  }

  /** Never refuses. Past the limit the oldest message that may be lost goes; claims and outcomes are as many as there are tasks. */
  push(message: WorkerMessage): void {
    // Only the newest status is true.
    if (message.type === 'worker_status') this.#waiting = this.#waiting.filter(({ type }) => type !== 'worker_status')
    this.#waiting.push(message)
    if (this.#waiting.length <= this.#limit) return
    const droppable = this.#waiting.findIndex((candidate) => !mustArrive(candidate))
    if (droppable >= 0) this.#waiting.splice(droppable, 1)
  }

  /** The next message to write, or undefined. */
  take(): WorkerMessage | undefined {
    const message = this.#waiting.shift()
    if (message === undefined) return undefined
    this.#writes += 1
    if (mustArrive(message)) {
      this.#forgetOld()
      this.#said.push({ message, write: this.#writes, at: performance.now(), isConfirmed: false })
    }
    return message
  }

  /** How many messages were taken so far: what a ping carries and its pong confirms. */
  get writes(): number {
    return this.#writes
  }

  /** Resolves when the control plane has handled this claim, end or `task_gone`; on whichever connection. Call it before the message is pushed. */
  confirmed(message: WorkerMessage): Promise<void> {
    return new Promise((resolve) => this.#confirmations.set(message, resolve))
  }

  confirm(writes: number): void {
    for (const said of this.#said) {
      if (said.write > writes) continue
      said.isConfirmed = true
      this.#confirmations.get(said.message)?.()
      this.#confirmations.delete(said.message)
    }
  }

  /** The connection is gone: what it may have swallowed is said again, before what waits. */
  reopen(): void {
    this.#forgetOld()
    this.#waiting = [...this.#said.map(({ message }) => message), ...this.#waiting]
    this.#said = []
  }

  /** Whether everything that must arrive has. */
  get isSettled(): boolean {
    return this.#said.every(({ isConfirmed }) => isConfirmed) && !this.#waiting.some(mustArrive)
  }

  #forgetOld(): void {
    const oldest = performance.now() - this.#keepMs
    this.#said = this.#said.filter(({ isConfirmed, at }) => !isConfirmed || at > oldest)
  }
}

function mustArrive({ type }: WorkerMessage): boolean {
  return type === 'task_claimed' || type === 'task_completed' || type === 'task_failed' || type === 'task_gone'
}
