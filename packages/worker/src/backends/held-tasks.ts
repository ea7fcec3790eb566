import type { Dialer, FolderLock } from '@openoz/machine'
import type { Logger } from 'pino'
import { deliverSpool } from '../spool-delivery.ts'
import { readEnd } from '../task-end.ts'
import { removeTaskFolder, type TaskFolder, type TaskRecord, writeRecord } from '../task-folder.ts'
import type { Task } from './backend.ts'
import { noteReported } from './ended-task.ts'
import { WorkQueue } from './work-queue.ts'

/**
 * The tasks that this process answers for, by execution: from the first file to the last.
 *
 * held → (its end was told, or need not be) → over: `spool` | `all` → gone
 *
 * Of what is over with `spool` all that is left to do is to deliver that, which sweeps try; of `all` is left what could not be removed. Nobody sets that
 * from outside: sweeps take it for leave to deliver and remove whatever lies there, while whoever was not done yet still works in it. The ways to it are
 * `remove` (after the report), `giveUp` (with the work that goes before) and `holdTold` (found on disk as told). What is done to one task is done in turn.
 */
export interface HeldTask<C extends HeldContext> {
  lock: FolderLock
  /** Absent until its folder is complete. */
  context?: C
  task?: Pick<Task, 'mayRun'> & { readonly isSpoolKept: boolean }
  /** What goes on beside it in its folder, such as its mirrors. `stop` resolves once that touches nothing any more, and never rejects. */
  helpers?: { stop(): Promise<void> }
  /** Something of it could not be ended: its files are left alone until it is. */
  mayRun?: boolean
  /** Taken over, and its lock or its record could not be written yet. */
  isUnsettled?: boolean
  /** It is saved and delivered for another worker id; aborted when a newer execution of its run comes. */
  clearing?: AbortController
}

/** What every backend knows of a task. */
export interface HeldContext {
  record: TaskRecord
  paths: TaskFolder
  /** Of the execution, for delivering its spool. */
  token?: string
  dialer: Dialer
  log: Logger
}

export interface HeldTasksParts<C extends HeldContext> {
  log: Logger
  deliveryTimeoutMs: number
  /** Tries again to end what could not be ended. True: nothing of the task runs. May reject: then it is tried again. */
  endAgain(context: C): Promise<boolean>
  /**
   * Removes what the backend has made for the task, all but the folder with record, log and spool. Resolves with the record as it is true from then on:
   * by the time that the spool is delivered what it named may be another execution's. May reject, and is called again then.
   */
  release(context: C): Promise<TaskRecord>
  /** After its folder: what keeps its identity from being given to another task. May reject. */
  forget?(context: C): Promise<void>
}

interface Entry<C extends HeldContext> {
  held: HeldTask<C>
  over?: 'spool' | 'all'
  /** Of what is done to it. */
  queue: WorkQueue
}

/** Nobody looks for it after that, and the control plane refuses it long before. */
const longestKeptMs = 7 * 24 * 60 * 60_000

export class HeldTasks<C extends HeldContext> {
  readonly #parts: HeldTasksParts<C>
  readonly #entries = new Map<string, Entry<C>>()

  constructor(parts: HeldTasksParts<C>) {
    this.#parts = parts
  }

  has(executionId: string): boolean {
    return this.#entries.has(executionId)
  }

  get(executionId: string): HeldTask<C> | undefined {
    return this.#entries.get(executionId)?.held
  }

  all(): HeldTask<C>[] {
    return [...this.#entries.values()].map(({ held }) => held)
  }

  /** Its end was told, or need not be. */
  isOver(executionId: string): boolean {
    return this.#entries.get(executionId)?.over !== undefined
  }

  hold(executionId: string, held: HeldTask<C>): void {
    this.#entries.set(executionId, { held, queue: new WorkQueue() })
  }

  /** Whose end an earlier process has told: what is left of it is for sweeps. */
  holdTold(executionId: string, held: HeldTask<C>): void {
    this.#entries.set(executionId, { held, over: 'spool', queue: new WorkQueue() })
  }

  /** It is another process's again, or nobody's. */
  letGo(executionId: string): void {
    this.#entries.get(executionId)?.held.lock.release()
    this.#entries.delete(executionId)
  }

  /** Nothing of it is there any more, its folder neither. */
  forget(executionId: string): void {
    this.#entries.delete(executionId)
  }

  /** Removes what was made for a task, or what there is of it. What cannot be removed is tried again by the next sweep. Never rejects. */
  async remove(executionId: string): Promise<void> {
    const entry = this.#entries.get(executionId)
    if (!entry) return
    entry.over ??= entry.held.task?.isSpoolKept ? 'spool' : 'all'
    await entry.queue.run(() => this.#removeNow(executionId, entry))
  }

  /**
   * Of an execution whose end is nobody's to tell any more: does what has to be done to it first (ending, saving), which keeps sweeps away, and leaves
   * its spool to them then. Rejects as `work` does; it is over all the same. `work` must not wait for `remove`, which waits for it.
   */
  async giveUp(executionId: string, work: () => Promise<void>): Promise<void> {
    const entry = this.#entries.get(executionId)
    if (!entry) return
    try {
      await entry.queue.run(work)
    } finally {
      entry.over ??= 'spool'
      await this.remove(executionId)
    }
  }

  /** What `remove` could not do before. Never rejects. */
  async removeAgain(): Promise<void> {
    for (const [executionId, { over }] of [...this.#entries]) if (over === 'all') await this.remove(executionId)
  }

  /** Tries to deliver the spools of what is over. Never rejects. */
  async deliverKept(signal: AbortSignal): Promise<void> {
    for (const [executionId, entry] of [...this.#entries]) {
      if (entry.over !== 'spool' || !entry.held.context || signal.aborted) continue
      await entry.queue
        .run(() => this.#deliver(executionId, entry, signal))
        .catch((error: unknown) =>
          this.#parts.log.warn({ error, executionId }, 'What an ended task left could not be swept; tried again later'),
        )
    }
  }

  /** Lets go of all of them. `isAllOver`: there is none whose end is still to be told. */
  async leave(): Promise<{ isAllOver: boolean }> {
    const entries = [...this.#entries.values()]
    for (const { held } of entries) await held.helpers?.stop()
    for (const { held } of entries) held.lock.release()
    this.#entries.clear()
    return { isAllOver: entries.every(({ over }) => over !== undefined) }
  }

  async #removeNow(executionId: string, { held, over }: Entry<C>): Promise<void> {
    // Somebody before us in the queue was faster.
    if (this.#entries.get(executionId)?.held !== held) return
    await held.helpers?.stop()
    const { context } = held
    if (!context) return
    const { paths, log } = context
    try {
      if (!(await this.#isAtRest(held))) return
      const record = await this.#parts.release(context)
      if (over === 'spool') {
        await noteReported(context)
        context.record = record
        await writeRecord(paths, record)
      } else {
        await removeTaskFolder(paths, (place) =>
          log.warn({ place }, 'What the task had changed never reached the control plane; it was kept in this folder'),
        )
        await this.#parts.forget?.(context)
        this.#entries.delete(executionId)
      }
    } catch (error) {
      log.error({ error }, 'Something of a task could not be removed; the next sweep tries again')
    }
  }

  /** What could not be ended before is tried again: root must not remove folders that a task still changes. */
  async #isAtRest(held: HeldTask<C>): Promise<boolean> {
    const { context, task } = held
    held.mayRun ??= task?.mayRun
    if (context && held.mayRun) held.mayRun = !(await this.#parts.endAgain(context))
    return !held.mayRun
  }

  async #deliver(executionId: string, entry: Entry<C>, signal: AbortSignal): Promise<void> {
    const { held } = entry
    const { context } = held
    if (entry.over !== 'spool' || !context || !(await this.#isAtRest(held))) return
    const { paths, token, dialer, log, record } = context
    const timeoutMs = Math.min(this.#parts.deliveryTimeoutMs, 30_000)
    const delivery = await deliverSpool({ folder: paths.spool, token, dialer, log, timeoutMs, signal })
    if (delivery === 'kept') {
      const endedAt = (await readEnd(paths))?.ended_at ?? record.ended_at ?? record.started_at
      if (Date.now() - Date.parse(endedAt) < longestKeptMs) return
      log.warn('The last events of an ended task could not be delivered in time; given up')
    }
    entry.over = 'all'
    await this.#removeNow(executionId, entry)
    this.#parts.log.info({ delivery }, 'Swept what an ended task had left')
  }
}
