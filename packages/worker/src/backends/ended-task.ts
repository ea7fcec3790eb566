import { createMasker, type Dialer, isDiskFull, sleep } from '@openoz/machine'
import type { ReportedFailureReason } from '@openoz/protocol'
import type { Logger } from 'pino'
import { fullDisk, noRoom } from '../disk-room.ts'
import type { Link } from '../link.ts'
import { deliverSpool } from '../spool-delivery.ts'
import { readEnd, type TaskEndRecord, writeEnd } from '../task-end.ts'
import type { TaskFolder } from '../task-folder.ts'
import { type StopCause, type TaskExit, TaskFailure, type TaskRemains, TaskStopped } from './backend.ts'
import { readLastWords } from './last-words.ts'

/**
 * A task from its agent's end to the report, whatever it ran in: the end is put on disk (`close`), what it had not saved is saved, its spool delivered,
 * its teardown run (`finish`). Each step that is done is noted, so that the next process of this worker goes on behind it.
 *
 * A backend's task has one; only the backend knows when nothing of the task runs any more, and calls `close` and `finish` after that.
 */
export interface EndedTaskParts {
  paths: TaskFolder
  log: Logger
  /** Of the execution; undefined: it is not there any more. */
  token?: string
  /** Never to be seen in what is reported. */
  secrets: string[]
  dialer: Dialer
  link: Link
  deliveryTimeoutMs: number
  savingTimeoutMs: number
  unsteadyTimeoutMs: number
  /** Saves what the agent had not, and leaves what is to be delivered in `paths.spool`. Never rejects. */
  save(stop: AbortSignal): Promise<SaveResult>
  /** False: its workspace belongs to a newer execution by now, where its teardown has no business. */
  ownsWorkspace(): Promise<boolean>
  /** The operator's command, if there is one. Rejects with the signal's reason only. */
  tearDown(signal: AbortSignal): Promise<void>
}

export type LeftWork = 'none' | 'saved' | 'lost'

/** `again`: the control plane was not to be reached. */
export type SaveResult = LeftWork | 'again'

/** What an agent ended with, as its backend saw it. */
export interface AgentEnd {
  exit: TaskExit
  outOfMemory?: TaskRemains['outOfMemory']
  memoryLimitBytes?: number
  isEngineStopped?: boolean
}

export class EndedTask {
  readonly #parts: EndedTaskParts
  #end: TaskEndRecord | undefined
  #isSpoolKept = false
  /** That there was no room for its files when it ended, as a sentence. */
  #fullDisk: string | undefined

  /** `end`: of a task that had ended in the time of an earlier process. */
  constructor(parts: EndedTaskParts, end: TaskEndRecord | undefined) {
    this.#parts = parts
    this.#end = end
  }

  /** Its last events could not be delivered. */
  get isSpoolKept(): boolean {
    return this.#isSpoolKept
  }

  /** Its agent has ended: to be called before anything of it is removed. */
  lookAtDisk(): void {
    this.#fullDisk = fullDisk(this.#parts.paths.folder)
  }

  /** Puts the end on disk; what an earlier process had found out of it stays. Resolves with why it was stopped. Never rejects. */
  async close(
    cause: StopCause | undefined,
    { exit, outOfMemory, memoryLimitBytes, isEngineStopped }: AgentEnd,
  ): Promise<StopCause | undefined> {
    const { paths, secrets } = this.#parts
    const decided = cause === 'abandon' ? cause : (this.#end?.cause ?? cause)
    const lastWords =
      this.#end?.last_words ?? (await readLastWords(paths.log, createMasker(secrets).mask).catch(() => ''))
    const seen = this.#end ?? {
      version: 1 as const,
      ended_at: new Date().toISOString(),
      ran_out_of_memory: outOfMemory !== undefined,
      ...(outOfMemory === 'task' ? { out_of_memory: outOfMemory } : {}),
      ...(memoryLimitBytes === undefined ? {} : { memory_limit_bytes: memoryLimitBytes }),
      ...(isEngineStopped ? { engine_stopped: true } : {}),
    }
    await this.#note({ ...seen, exit, cause: decided, last_words: lastWords })
    return decided
  }

  /**
   * See `Task.finish`. `mayRun`: something of it could not be ended. Resolves then with what there is to say, and everything else is for sweeps: in
   * folders that something still writes to nobody else has any business.
   */
  async finish({
    abandoned,
    signal,
    mayRun,
  }: {
    abandoned: AbortSignal
    signal: AbortSignal
    mayRun: boolean
  }): Promise<TaskRemains> {
    const end = this.#end
    if (!end) throw new Error('close() comes first')
    if (mayRun) {
      this.#isSpoolKept = true
      return this.#remains(end, { isLost: false })
    }
    const left = end.left ?? (await this.#save(abandoned, signal))
    if (!abandoned.aborted) await this.#note({ ...end, left })
    await this.#deliver(abandoned, signal)
    if (!this.#end?.is_torn_down && (await this.#parts.ownsWorkspace())) {
      await this.#parts.tearDown(signal)
      await this.#note({ ...(this.#end ?? end), is_torn_down: true })
    }
    signal.throwIfAborted()
    return this.#remains(end, { isLost: left === 'lost' })
  }

  #remains(end: TaskEndRecord, { isLost }: { isLost: boolean }): TaskRemains {
    return {
      lastWords: end.last_words,
      isLost,
      outOfMemory: end.out_of_memory ?? (end.ran_out_of_memory ? 'machine' : undefined),
      memoryLimitBytes: end.memory_limit_bytes,
      isEngineStopped: end.engine_stopped,
      ...(this.#fullDisk === undefined ? {} : { fullDisk: this.#fullDisk }),
    }
  }

  /** Of an execution that is over nothing would be taken. What fails for want of a connection is tried until there is one. */
  async #save(abandoned: AbortSignal, signal: AbortSignal): Promise<LeftWork> {
    const { link, savingTimeoutMs, unsteadyTimeoutMs } = this.#parts
    const stop = AbortSignal.any([abandoned, signal])
    const spentMs = { held: 0, broke: 0, away: 0 }
    for (;;) {
      if (abandoned.aborted) return 'none'
      signal.throwIfAborted()
      const { result, link: connection, ms } = await link.during(() => this.#parts.save(stop))
      signal.throwIfAborted()
      if (result === 'none' || result === 'saved') return result
      spentMs[connection] += ms
      if (connection === 'held' && result === 'lost') return 'lost'
      if (spentMs.held > savingTimeoutMs || spentMs.broke > unsteadyTimeoutMs) return 'lost'
      await link.up(stop)
      await sleep(500, stop)
    }
  }

  /** Until it is delivered, or the control plane was there for long enough and did not take it: then the end is told without. */
  async #deliver(abandoned: AbortSignal, signal: AbortSignal): Promise<void> {
    const { paths, log, token, dialer, link, deliveryTimeoutMs, unsteadyTimeoutMs } = this.#parts
    // The outcome of an execution that is over counts no more; what can be had at once is evidence, the rest is for a sweep.
    const limitMs = () => (abandoned.aborted ? Math.min(deliveryTimeoutMs, 10_000) : deliveryTimeoutMs)
    const spentMs = { held: 0, broke: 0, away: 0 }
    for (;;) {
      const timeoutMs = Math.min(Math.max(limitMs() - spentMs.held, 100), 30_000)
      const {
        result,
        link: connection,
        ms,
      } = await link.during(() => deliverSpool({ folder: paths.spool, token, dialer, log, timeoutMs, signal }))
      signal.throwIfAborted()
      if (result !== 'kept') return
      spentMs[abandoned.aborted ? 'held' : connection] += ms
      if (spentMs.held >= limitMs() || spentMs.broke > unsteadyTimeoutMs) {
        this.#isSpoolKept = true
        return void log.warn('The agent’s last events are not delivered yet; they are kept and tried again')
      }
      await sleep(200, signal)
    }
  }

  async #note(end: TaskEndRecord): Promise<void> {
    this.#end = end
    const { isWritten } = await noteEnd(this.#parts, end)
    if (!isWritten) this.#fullDisk ??= noRoom(this.#parts.paths.folder)
  }
}

type Noting = Pick<EndedTaskParts, 'paths' | 'log'>

/** For a task whose agent never ran: its end, so that the next process of this worker can tell it too. Never rejects. */
export async function noteFailure(task: Noting, failure: unknown): Promise<void> {
  const known = failure instanceof TaskFailure ? failure : undefined
  await noteEnd(task, {
    version: 1,
    failure: known && { reason: known.reason, message: known.message, exit_code: known.exitCode },
    cause: failure instanceof TaskStopped ? failure.stopCause : undefined,
    last_words: '',
    ran_out_of_memory: false,
    left: 'none',
    is_torn_down: true,
    ended_at: new Date().toISOString(),
  })
}

/** What `noteFailure` noted, as it was thrown. */
export function failureOf({ failure, cause }: TaskEndRecord): TaskFailure | TaskStopped {
  if (failure) {
    return new TaskFailure(failure.reason as ReportedFailureReason, failure.message, { exitCode: failure.exit_code })
  }
  return new TaskStopped(cause ?? 'shutdown')
}

/** Never rejects: on a full disk only a worker that is killed now would have needed it. */
async function noteEnd({ paths, log }: Noting, end: TaskEndRecord): Promise<{ isWritten: boolean }> {
  try {
    await writeEnd(paths, end)
    return { isWritten: true }
  } catch (error) {
    log.error({ error }, 'The end of a task could not be written down; a worker that is killed now does not report it')
    return { isWritten: !isDiskFull(error) }
  }
}

/** The end was told, and the spool could not be delivered: what is left is for sweeps. */
export async function noteReported({ paths }: Pick<Noting, 'paths'>): Promise<void> {
  // One that was fenced off has none: it was never ours to report.
  const end = (await readEnd(paths)) ?? {
    version: 1,
    last_words: '',
    ran_out_of_memory: false,
    is_torn_down: true,
    ended_at: new Date().toISOString(),
  }
  await writeEnd(paths, { ...end, is_reported: true })
}
