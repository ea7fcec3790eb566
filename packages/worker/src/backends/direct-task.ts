import { bootClockMs, countOomKills, createMasker, hasOomKillSince, type ProcessIdentity, sleep } from '@openoz/machine'
import { leaseLostExitCode } from '@openoz/protocol'
import { askToEnd, waitForExit } from '../shim-process.ts'
import type { TaskEndRecord } from '../task-end.ts'
import { watchLease } from '../task-lease.ts'
import type { StopCause, Task, TaskExit, TaskRemains } from './backend.ts'
import { type DirectTaskContext, runTaskHook } from './direct-context.ts'
import { endPersistently } from './direct-ending.ts'
import { saveLeftWork } from './direct-save.ts'
import { ownsItsWorkspace } from './direct-workspace.ts'
import { EndedTask } from './ended-task.ts'

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
  readonly place: string
  readonly workspace: string
  readonly exited: Promise<TaskExit>
  readonly #context: DirectTaskContext
  readonly #ended: EndedTask
  readonly #shim: ProcessIdentity | undefined
  readonly #depth: number
  readonly #leaving: AbortSignal
  readonly #oomKillsBefore = countOomKills()
  /** What the exit means, where we know better. */
  #verdict: TaskExit | undefined
  #mayRun = false

  constructor(context: DirectTaskContext, { shim, depth, end }: DirectTaskState, leaving: AbortSignal) {
    this.#context = context
    this.#shim = shim
    this.#depth = depth
    this.#leaving = leaving
    this.#ended = new EndedTask(
      {
        ...context,
        save: (stop) => saveLeftWork(context, stop),
        ownsWorkspace: () => ownsItsWorkspace(context),
        tearDown: (signal) => tearDown(context, signal),
      },
      end,
    )
    this.pid = end ? undefined : shim?.pid
    this.place = this.pid === undefined ? 'no process' : `process ${this.pid}`
    this.workspace = context.record.workspace
    this.exited = end || !shim ? Promise.resolve(end?.exit ?? { type: 'vanished' }) : this.#follow(shim)
  }

  get isSpoolKept(): boolean {
    return this.#ended.isSpoolKept
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
    const exit = await this.exited
    this.#ended.lookAtDisk()
    const outOfMemory = hasOomKillSince(this.#oomKillsBefore) ? 'machine' : undefined
    this.#mayRun = !(await endPersistently(this.#context, this.#shim, { signal: this.#leaving }))
    // The next process finds it as we did.
    if (this.#mayRun && this.#leaving.aborted) return await new Promise<never>(() => {})
    return this.#ended.close(cause, { exit, outOfMemory })
  }

  finish({ abandoned, signal }: { abandoned: AbortSignal; signal: AbortSignal }): Promise<TaskRemains> {
    return this.#ended.finish({ abandoned, signal, mayRun: this.#mayRun })
  }
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
