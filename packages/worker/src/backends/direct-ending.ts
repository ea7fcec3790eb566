import { endProcessTree, type ProcessIdentity, type ProcessInfo, type ProcessSelection, sleep } from '@openoz/machine'
import { marksOf } from '../installation.ts'
import { isUserOurs } from '../task-users.ts'
import type { DirectTaskContext } from './direct-context.ts'

/**
 * The end of everything that a task has started. What a task left running would go on beside its run's next execution, and root's worker removes
 * folders that it could still change: so nobody calls a task gone, and nobody removes its files, before this has found nothing.
 */
export type EndingContext = Pick<DirectTaskContext, 'record' | 'log' | 'installationId'>

/** What SIGKILL has not ended by then is in the middle of something uninterruptible, and runs nothing of its own when it wakes. */
const endingMs = 60_000
const longestPauseMs = 5_000

/**
 * Ends all processes of a task: below the shim, with its marks, of its user. Frozen ones too. Resolves with those that could not be ended, other than
 * what another user's rights keep from us. Rejects when the processes of this machine cannot be read.
 */
export async function endEverything(
  { record, log, installationId }: EndingContext,
  shim: ProcessIdentity | undefined,
): Promise<ProcessInfo[]> {
  const { uid } = record
  const selection: ProcessSelection = { marker: marksOf(installationId, record.execution_id) }
  if (shim) selection.root = shim
  const isOurs = () => uid !== undefined && isUserOurs(uid, installationId)
  const hadUser = await isOurs()
  let { survivors } = await endProcessTree(hadUser ? { ...selection, uid } : selection, 0)
  // Once more without what has carried our own marks: a task may have dressed one of its processes as another installation’s.
  if (!hadUser && (await isOurs())) ({ survivors } = await endProcessTree({ ...selection, uid }, 0))
  if (survivors.length > 0) log.error({ pids: survivors.map(({ pid }) => pid) }, 'Processes of a task cannot be ended')
  return survivors.filter(canBeSignalled)
}

/** Tries again, for a while. False: something may still run. Never rejects. */
export async function endPersistently(
  context: EndingContext,
  shim: ProcessIdentity | undefined,
  { signal, limitMs = endingMs }: { signal?: AbortSignal; limitMs?: number } = {},
): Promise<boolean> {
  const deadline = performance.now() + limitMs
  for (let pauseMs = 200; ; pauseMs = Math.min(pauseMs * 2, longestPauseMs)) {
    try {
      if ((await endEverything(context, shim)).length === 0) return true
    } catch (error) {
      context.log.error({ error }, 'A task could not be ended; tried again')
    }
    if (signal?.aborted || performance.now() + pauseMs > deadline) return false
    await sleep(pauseMs, signal)
  }
}

/** A program of another user (`sudo`) is not ours to end, however long we try. */
function canBeSignalled({ pid }: ProcessInfo): boolean {
  try {
    return process.kill(pid, 0)
  } catch {
    return false
  }
}
