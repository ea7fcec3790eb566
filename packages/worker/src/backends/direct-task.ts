import { lchown } from 'node:fs/promises'
import {
  countOomKills,
  createMasker,
  endProcessTree,
  hasOomKillSince,
  type ProcessIdentity,
  type ProcessSelection,
  sleep,
} from '@openoz/machine'
import { removeTree } from '../folder-removal.ts'
import { askToEnd, waitForExit } from '../shim-process.ts'
import { deliverSpool } from '../spool-delivery.ts'
import { removeTaskFolder, type TaskRecord, writeRecord } from '../task-folder.ts'
import { returnTaskUser } from '../task-users.ts'
import type { Task, TaskExit, TaskRemains } from './backend.ts'
import { type DirectTaskContext, runTaskHook } from './direct-context.ts'
import { saveLeftWork } from './direct-save.ts'
import { readLastWords } from './last-words.ts'

/** A started agent of the direct backend: `shim` and below. See `Task` for what may be called when. */
export class DirectTask implements Task {
  readonly pid: number
  readonly workspace: string
  readonly exited: Promise<TaskExit>
  readonly #context: DirectTaskContext
  readonly #shim: ProcessIdentity
  readonly #depth: number
  readonly #oomKillsBefore = countOomKills()

  constructor(context: DirectTaskContext, { shim, depth }: { shim: ProcessIdentity; depth: number }) {
    this.#context = context
    this.#shim = shim
    this.#depth = depth
    this.pid = shim.pid
    this.workspace = context.record.workspace
    this.exited = waitForExit(context.paths, shim).catch((): TaskExit => ({ type: 'vanished' }))
  }

  async stop(graceMs: number): Promise<void> {
    const { log } = this.#context
    try {
      if (graceMs > 0) {
        // Below the shim, which adds one to the depth of the isolation.
        await askToEnd(this.#shim, this.#depth)
        if (await endsWithin(this.exited, graceMs)) return
      }
      await endEverything(this.#context, this.#shim)
      await endsWithin(this.exited, 5_000)
    } catch (error) {
      log.error({ error }, 'A task could not be ended')
    }
  }

  async finish({ isAbandoned, signal }: { isAbandoned: boolean; signal: AbortSignal }): Promise<TaskRemains> {
    const { paths, log, token, dialer, secrets, deliveryTimeoutMs } = this.#context
    const ranOutOfMemory = hasOomKillSince(this.#oomKillsBefore)
    try {
      await endEverything(this.#context, this.#shim)
      const lastWords = await readLastWords(paths.log, createMasker(secrets).mask)
      // Of an execution that is over nothing would be taken.
      const isLost = !isAbandoned && (await saveLeftWork(this.#context, signal)) === 'lost'
      const timeoutMs = isAbandoned ? Math.min(deliveryTimeoutMs, 10_000) : deliveryTimeoutMs
      const delivery = await deliverSpool({ folder: paths.spool, token, dialer, log, timeoutMs, signal })
      if (delivery === 'kept') log.warn('The agent’s last events are not delivered yet; they are kept and tried again')
      await tearDown(this.#context)
      await cleanUp(this.#context, { keepsSpool: delivery === 'kept' })
      return { lastWords, isLost, ranOutOfMemory }
    } catch (error) {
      log.error({ error }, 'A task could not be cleaned up')
      return { lastWords: '', isLost: false, ranOutOfMemory }
    }
  }
}

/** Ends all processes of a task: below the shim, with its marker, of its user. */
export async function endEverything(
  { record, log }: Pick<DirectTaskContext, 'record' | 'log'>,
  shim: ProcessIdentity | undefined,
): Promise<void> {
  const selection: ProcessSelection = { marker: `OZ_EXECUTION_ID=${record.execution_id}` }
  if (record.uid !== undefined) selection.uid = record.uid
  if (shim) selection.root = shim
  const { survivors } = await endProcessTree(selection, 0)
  if (survivors.length > 0) log.error({ pids: survivors.map(({ pid }) => pid) }, 'Processes of a task cannot be ended')
}

async function tearDown(context: DirectTaskContext): Promise<void> {
  const { teardownCommand, reporter, log } = context
  if (teardownCommand === undefined) return
  reporter.started('teardown')
  const { problem, output } = await runTaskHook(context, { command: teardownCommand })
  if (problem === undefined) return reporter.completed('teardown')
  log.warn({ problem }, 'The teardown command failed')
  reporter.failed('teardown', createMasker(context.secrets).mask(`The teardown command failed: ${problem}.\n${output}`))
}

/**
 * Removes what was made for a task, or what there is of it. With `keepsSpool` the record, the token and the spool stay for the sweep; the
 * record then says that the workspace is not its any more: by the time of the sweep another execution of the run may live there.
 */
export async function cleanUp(
  { record, paths, stateDir, log }: Pick<DirectTaskContext, 'record' | 'paths' | 'stateDir' | 'log'>,
  { keepsSpool = false }: { keepsSpool?: boolean } = {},
): Promise<void> {
  let isClean = true
  const attempt = async (work: () => Promise<void>) => {
    try {
      await work()
    } catch (error) {
      isClean = false
      log.error({ error }, 'Something of a task could not be removed; the next sweep tries again')
    }
  }
  const { uid, workspace, removes_workspace } = record
  if (removes_workspace) await attempt(() => removeTree(workspace))
  else log.info({ workspace }, 'The workspace is kept')
  // Its user may be a later task's: nobody but us goes in from now on.
  if (!removes_workspace && uid !== undefined) await lchown(workspace, 0, 0).catch(() => {})
  await attempt(() => removeTree(paths.agent.folder))
  await attempt(() => removeTree(paths.given))
  if (keepsSpool) {
    const ended_at = record.ended_at ?? new Date().toISOString()
    const left: TaskRecord = { ...record, removes_workspace: false, process: null, ended_at }
    if (isClean) await attempt(() => writeRecord(paths, left))
    return
  }
  if (isClean) await attempt(() => removeTaskFolder(paths))
  if (uid !== undefined && isClean) await attempt(() => returnTaskUser(stateDir, uid))
}

async function endsWithin(exited: Promise<TaskExit>, ms: number): Promise<boolean> {
  const limit = new AbortController()
  const hasEnded = await Promise.race([exited.then(() => true), sleep(ms, limit.signal).then(() => false)])
  limit.abort()
  return hasEnded
}
