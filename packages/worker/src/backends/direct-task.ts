import {
  bootClockMs,
  countOomKills,
  createMasker,
  hasOomKillSince,
  isDiskFull,
  type ProcessIdentity,
  sleep,
} from '@openoz/machine'
import { leaseLostExitCode, type ReportedFailureReason } from '@openoz/protocol'
import { fullDisk, noRoom } from '../disk-room.ts'
import { askToEnd, waitForExit } from '../shim-process.ts'
import { deliverSpool } from '../spool-delivery.ts'
import { readEnd, type TaskEndRecord, writeEnd } from '../task-end.ts'
import { watchLease } from '../task-lease.ts'
import { type StopCause, type Task, type TaskExit, TaskFailure, type TaskRemains, TaskStopped } from './backend.ts'
import { type DirectTaskContext, runTaskHook } from './direct-context.ts'
import { endPersistently } from './direct-ending.ts'
import { type LeftWork, saveLeftWork } from './direct-save.ts'
import { ownsItsWorkspace } from './direct-workspace.ts'
import { readLastWords } from './last-words.ts'

/** What is known of a task's processes when a DirectTask is made. */
export interface DirectTaskState {
  /** undefined: it never began. */
  shim: ProcessIdentity | undefined
  depth: number
  /** Of a task that had ended already. */
  end?: TaskEndRecord
}

/** How far behind the deadline of a lease we are: the shim's own guard comes first, and does without us. */
const leaseGraceMs = 1_000
const longestLookMs = 5_000

/** A started agent of the direct backend: `shim` and below. See `Task` for what may be called when. */
export class DirectTask implements Task {
  readonly pid: number | undefined
  readonly workspace: string
  readonly exited: Promise<TaskExit>
  readonly #context: DirectTaskContext
  readonly #shim: ProcessIdentity | undefined
  readonly #depth: number
  readonly #leaving: AbortSignal
  readonly #oomKillsBefore = countOomKills()
  #end: TaskEndRecord | undefined
  /** What the exit means, where we know better. */
  #verdict: TaskExit | undefined
  #isSpoolKept = false
  #mayRun = false
  /** That there was no room for its files when it ended, as a sentence. */
  #fullDisk: string | undefined

  constructor(context: DirectTaskContext, { shim, depth, end }: DirectTaskState, leaving: AbortSignal) {
    this.#context = context
    this.#shim = shim
    this.#depth = depth
    this.#end = end
    this.#leaving = leaving
    this.pid = end ? undefined : shim?.pid
    this.workspace = context.record.workspace
    this.exited = end || !shim ? Promise.resolve(end?.exit ?? { type: 'vanished' }) : this.#follow(shim)
  }

  /** Its last events could not be delivered. */
  get isSpoolKept(): boolean {
    return this.#isSpoolKept
  }

  get mayRun(): boolean {
    return this.#mayRun
  }

  async #follow(shim: ProcessIdentity): Promise<TaskExit> {
    const over = new AbortController()
    void this.#enforceLease(AbortSignal.any([over.signal, this.#leaving]))
    try {
      const exit = await waitForExit(this.#context.paths, shim, this.#leaving)
      return this.#verdict ?? exit
    } catch {
      // Left to the next process: whoever waits for the exit here waits for ever.
      if (this.#leaving.aborted) return await new Promise<never>(() => {})
      return { type: 'vanished' }
    } finally {
      over.abort()
    }
  }

  /** An agent that is frozen cannot stop itself in time, and its tools go on: see `lease-file.ts` of the agent. Never rejects. */
  async #enforceLease(signal: AbortSignal): Promise<void> {
    const { paths, log } = this.#context
    const deadline = watchLease(paths)
    while (!signal.aborted) {
      const deadlineMs = await deadline()
      const leftMs = deadlineMs === undefined ? longestLookMs : deadlineMs + leaseGraceMs - bootClockMs()
      if (leftMs <= 0) {
        this.#verdict = { type: 'exited', code: leaseLostExitCode }
        log.warn('An agent has not stopped by the end of its lease; it is ended')
        return void (await this.stop(0))
      }
      await sleep(Math.min(Math.max(leftMs, 50), longestLookMs), signal)
    }
  }

  async stop(graceMs: number): Promise<void> {
    const { log } = this.#context
    try {
      if (graceMs > 0 && this.#shim) {
        // Below the shim, which adds one to the depth of the isolation.
        await askToEnd(this.#shim, this.#depth)
        if (await endsWithin(this.exited, graceMs)) return
      }
      await endPersistently(this.#context, this.#shim, { signal: this.#leaving })
      await endsWithin(this.exited, 5_000)
    } catch (error) {
      log.error({ error }, 'A task could not be ended')
    }
  }

  async close(cause: StopCause | undefined): Promise<StopCause | undefined> {
    const { paths, secrets } = this.#context
    const exit = await this.exited
    // Before anything is removed.
    this.#fullDisk = fullDisk(this.#context.paths.folder)
    const ranOutOfMemory = this.#end?.ran_out_of_memory ?? hasOomKillSince(this.#oomKillsBefore)
    this.#mayRun = !(await endPersistently(this.#context, this.#shim, { signal: this.#leaving }))
    // The next process finds it as we did.
    if (this.#mayRun && this.#leaving.aborted) return await new Promise<never>(() => {})
    const decided = cause === 'abandon' ? cause : (this.#end?.cause ?? cause)
    const lastWords =
      this.#end?.last_words ?? (await readLastWords(paths.log, createMasker(secrets).mask).catch(() => ''))
    await this.#note({
      version: 1,
      ended_at: new Date().toISOString(),
      ...this.#end,
      exit,
      cause: decided,
      last_words: lastWords,
      ran_out_of_memory: ranOutOfMemory,
    })
    return decided
  }

  async finish({ abandoned, signal }: { abandoned: AbortSignal; signal: AbortSignal }): Promise<TaskRemains> {
    const end = this.#end
    if (!end) throw new Error('close() comes first')
    if (this.#mayRun) {
      // In folders that something still writes to we have no business: the rest is for the sweep.
      this.#isSpoolKept = true
      return this.#remains(end, { isLost: false })
    }
    const left = end.left ?? (await this.#save(abandoned, signal))
    if (!abandoned.aborted) await this.#note({ ...end, left })
    await this.#deliver(abandoned, signal)
    // In the folder of a newer execution it has no business.
    if (!this.#end?.is_torn_down && (await ownsItsWorkspace(this.#context))) {
      await tearDown(this.#context, signal)
      await this.#note({ ...(this.#end ?? end), is_torn_down: true })
    }
    signal.throwIfAborted()
    return this.#remains(end, { isLost: left === 'lost' })
  }

  #remains(end: TaskEndRecord, { isLost }: { isLost: boolean }): TaskRemains {
    const { last_words: lastWords, ran_out_of_memory: ranOutOfMemory } = end
    return { lastWords, isLost, ranOutOfMemory, ...(this.#fullDisk === undefined ? {} : { fullDisk: this.#fullDisk }) }
  }

  /** Of an execution that is over nothing would be taken. What fails for want of a connection is tried until there is one. */
  async #save(abandoned: AbortSignal, signal: AbortSignal): Promise<LeftWork> {
    const { link, savingTimeoutMs, unsteadyTimeoutMs } = this.#context
    const stop = AbortSignal.any([abandoned, signal])
    const spentMs = { held: 0, broke: 0, away: 0 }
    for (;;) {
      if (abandoned.aborted) return 'none'
      signal.throwIfAborted()
      const { result, link: connection, ms } = await link.during(() => saveLeftWork(this.#context, stop))
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
    const { paths, log, token, dialer, link, deliveryTimeoutMs, unsteadyTimeoutMs } = this.#context
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
    const { isWritten } = await noteEnd(this.#context, end)
    if (!isWritten) this.#fullDisk ??= noRoom(this.#context.paths.folder)
  }
}

/** For a task whose agent never ran: its end, so that the next process of this worker can tell it too. Never rejects. */
export async function noteFailure(context: DirectTaskContext, failure: unknown): Promise<void> {
  const known = failure instanceof TaskFailure ? failure : undefined
  await noteEnd(context, {
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
async function noteEnd({ paths, log }: DirectTaskContext, end: TaskEndRecord): Promise<{ isWritten: boolean }> {
  try {
    await writeEnd(paths, end)
    return { isWritten: true }
  } catch (error) {
    log.error({ error }, 'The end of a task could not be written down; a worker that is killed now does not report it')
    return { isWritten: !isDiskFull(error) }
  }
}

/** The end was told, and the spool could not be delivered: what is left is for sweeps. */
export async function noteReported(context: Pick<DirectTaskContext, 'paths' | 'log'>): Promise<void> {
  // One that was fenced off has none: it was never ours to report.
  const end = (await readEnd(context.paths)) ?? {
    version: 1,
    last_words: '',
    ran_out_of_memory: false,
    is_torn_down: true,
    ended_at: new Date().toISOString(),
  }
  await writeEnd(context.paths, { ...end, is_reported: true })
}

async function tearDown(context: DirectTaskContext, signal: AbortSignal): Promise<void> {
  const { teardownCommand, reporter, log } = context
  if (teardownCommand === undefined) return
  reporter.started('teardown')
  const { problem, output } = await runTaskHook(context, { command: teardownCommand, signal })
  if (problem === undefined) return reporter.completed('teardown')
  log.warn({ problem }, 'The teardown command failed')
  reporter.failed('teardown', createMasker(context.secrets).mask(`The teardown command failed: ${problem}.\n${output}`))
}

async function endsWithin(exited: Promise<TaskExit>, ms: number): Promise<boolean> {
  const limit = new AbortController()
  const hasEnded = await Promise.race([exited.then(() => true), sleep(ms, limit.signal).then(() => false)])
  limit.abort()
  return hasEnded
}
