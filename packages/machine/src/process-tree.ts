import { execFile } from 'node:child_process'
import { AppError } from '@openoz/protocol'
import { sleep } from './backoff.ts'
import { identifyProcess, isFromEarlierBoot, isSameProcess, type ProcessIdentity } from './process-identity.ts'
import { type ProcessInfo, takeSnapshot } from './process-list.ts'

/**
 * Finds and ends everything that belongs to a tool, a task or an execution. Called by the direct backend (a whole task), by the agent
 * (one tool call, or all that it left behind) and by the sweep after a crash.
 *
 * Tools leave their parents, their process group and their session. So a process belongs when any of these holds:
 * - it is the root, or its parent belongs (also when that parent has ended since we first saw it);
 * - it is in a process group or session that a process which belongs has led;
 * - it was started with the environment marker (a daemon that nothing else gives away);
 * - it runs as the uid, where a task has one to itself.
 *
 * Never signalled: this process, its ancestors, pid 1, and any pid whose start time is not the one that was seen.
 *
 * Platforms: all of it on Linux. macOS has no marker, uid and session (`ps` does not tell), so daemons get away there. Windows ends the
 * tree of a pid with `taskkill /T /F`, at once: there is no polite signal.
 */
export interface ProcessSelection {
  /** `NAME=value` as in the environment, e.g. `OZ_EXECUTION_ID=…`; one of several. */
  marker?: string | readonly string[]
  /** Every process of this user. Throws `option_invalid` for root and for our own user. */
  uid?: number
  /** The root of a tree. It may have ended long ago: what is left of its group and session is still found. */
  root?: ProcessIdentity
  /** The same for a pid that was started just now; use `root` for one that was stored. */
  rootPid?: number
}

export interface ProcessEnd {
  /** How many processes were seen and are gone now. */
  ended: number
  /** What even SIGKILL did not end in time: processes in uninterruptible sleep, or of users that we may not signal. */
  survivors: ProcessInfo[]
}

/** The environment variable that worker and agent give to everything they start for an execution; `NAME=id` is the marker. */
export const executionIdVariable = 'OZ_EXECUTION_ID'

/** What is alive now. */
export async function findProcesses(selection: ProcessSelection): Promise<ProcessInfo[]> {
  return createHunt(selection).look()
}

/**
 * SIGTERM to all, up to `graceMs` for them to go, SIGKILL to the rest, and again until a look finds nothing. Resolves when nothing is left,
 * or when `killTimeoutMs` after the first SIGKILL something still is; see `survivors`. Safe to call twice, and for what has ended.
 */
export async function endProcessTree(
  selection: ProcessSelection,
  graceMs: number,
  {
    killTimeoutMs = 10_000,
    platform = process.platform,
    taskkill = 'taskkill',
  }: { killTimeoutMs?: number; platform?: NodeJS.Platform; taskkill?: string } = {},
): Promise<ProcessEnd> {
  if (platform === 'win32') return endOnWindows(selection, taskkill)
  const hunt = createHunt(selection)
  if (graceMs > 0) await endPolitely(hunt, graceMs)
  return kill(hunt, killTimeoutMs)
}

/**
 * One look can miss a process: a parent that ends between listing and reading while its child is too young to be listed, or a program in the
 * middle of exec, whose environment reads as empty. In the tests, a chain of such
 * daemons got away from a single look now and then, and from this many in none of 60 tries.
 */
const emptyLooksNeeded = 5

type Hunt = ReturnType<typeof createHunt>

/** Remembers who belonged, so that children stay in the tree when their parents are gone. */
function createHunt(selection: ProcessSelection) {
  const { uid } = selection
  const markers = [selection.marker ?? []].flat()
  if (uid !== undefined && (uid === 0 || uid === process.getuid?.())) {
    throw new AppError('option_invalid', {
      option: 'uid',
      problem: `user ${uid} has processes that are not the task’s`,
    })
  }
  const root = selection.root ?? (selection.rootPid === undefined ? undefined : identifyProcess(selection.rootPid))
  /** Everyone through whom others belong, dead or alive: pid → start time. */
  const known = new Map<number, string>()
  const seen = new Set<string>()
  if (root && !isFromEarlierBoot(root)) known.set(root.pid, root.startedAt)

  async function look(): Promise<ProcessInfo[]> {
    const { all, environment, runsAs } = await takeSnapshot()
    const byPid = new Map(all.map((info) => [info.pid, info]))
    const spared = selfAndAncestors(byPid)
    const isKnown = (info: ProcessInfo | undefined) => info !== undefined && known.get(info.pid) === info.startedAt
    /** Groups and sessions carry their leader's pid, which the kernel gives to nobody else while one member is left. */
    const wasLedByKnown = (id: number) =>
      // In a group of our own may also be what a user's shell put there: `oz … | tee log`.
      known.has(id) && !spared.has(id) && (!byPid.has(id) || isKnown(byPid.get(id)))

    const belonging = new Set<ProcessInfo>()
    let size = -1
    // Each round adds the children of the round before.
    while (size !== belonging.size) {
      size = belonging.size
      for (const info of all) {
        if (belonging.has(info)) continue
        const belongs =
          isKnown(info) ||
          isKnown(byPid.get(info.ppid)) ||
          wasLedByKnown(info.pgid) ||
          (info.sid !== 0 && wasLedByKnown(info.sid)) ||
          (size === 0 && markers.some((marker) => environment(info.pid).has(marker))) ||
          (size === 0 && uid !== undefined && runsAs(info.pid, uid))
        if (!belongs) continue
        belonging.add(info)
        known.set(info.pid, info.startedAt)
      }
    }
    const found = [...belonging].filter((info) => !spared.has(info.pid))
    for (const info of found) seen.add(`${info.pid} ${info.startedAt}`)
    return found
  }

  return { look, seenCount: () => seen.size }
}

function selfAndAncestors(byPid: Map<number, ProcessInfo>): Set<number> {
  const spared = new Set([0, 1, process.pid])
  let parent = process.ppid
  while (parent > 1 && !spared.has(parent)) {
    spared.add(parent)
    parent = byPid.get(parent)?.ppid ?? 1
  }
  return spared
}

async function endPolitely(hunt: Hunt, graceMs: number): Promise<void> {
  const deadline = performance.now() + graceMs
  const asked = new Map<number, string>()
  let alive = await hunt.look()
  let pauseMs = 10
  while (alive.length > 0) {
    for (const info of alive) {
      // Once each: some programs take a second SIGTERM for impatience.
      if (asked.get(info.pid) === info.startedAt) continue
      asked.set(info.pid, info.startedAt)
      // A stopped process gets to its SIGTERM only when it continues.
      if (signal(info, 'SIGTERM')) signal(info, 'SIGCONT')
    }
    const left = deadline - performance.now()
    if (left <= 0) return
    await sleep(Math.min(pauseMs, left))
    pauseMs = Math.min(pauseMs * 1.5, 200)
    alive = alive.filter(isSameProcess)
    // A whole look costs milliseconds on a busy machine, so it is saved for when those we know of are gone.
    if (alive.length === 0) alive = await hunt.look()
  }
}

async function kill(hunt: Hunt, killTimeoutMs: number): Promise<ProcessEnd> {
  const deadline = performance.now() + killTimeoutMs
  let pauseMs = 1
  let emptyLooks = 0
  for (;;) {
    const isLastTry = performance.now() > deadline
    const alive = await freeze(hunt, deadline)
    emptyLooks = alive.length === 0 ? emptyLooks + 1 : 0
    if (emptyLooks === emptyLooksNeeded || isLastTry)
      return { ended: hunt.seenCount() - alive.length, survivors: alive }
    for (const info of alive) signal(info, 'SIGKILL')
    await sleep(pauseMs)
    pauseMs = emptyLooks > 0 ? 3 : Math.min(pauseMs * 2, 200)
  }
}

/** Stops everyone before anyone is killed: what is stopped cannot fork, so a tree that multiplies faster than we look comes to rest. */
async function freeze(hunt: Hunt, deadline: number): Promise<ProcessInfo[]> {
  const frozen = new Map<number, string>()
  for (;;) {
    const alive = await hunt.look()
    const moving = alive.filter((info) => frozen.get(info.pid) !== info.startedAt)
    if (moving.length === 0 || performance.now() > deadline) return alive
    for (const info of moving) {
      signal(info, 'SIGSTOP')
      frozen.set(info.pid, info.startedAt)
    }
  }
}

/** Whether the signal was sent. The pid could pass to another process between the check and the signal, but not within microseconds. */
function signal(info: ProcessInfo, name: NodeJS.Signals): boolean {
  if (info.pid <= 1 || info.pid === process.pid || !isSameProcess(info)) return false
  try {
    return process.kill(info.pid, name)
  } catch {
    // ESRCH: it ended. EPERM: not ours to end; it shows up as a survivor.
    return false
  }
}

/** There is no polite signal, and no start time to know a process by: the tree below the pid is ended at once. */
function endOnWindows({ rootPid, root }: ProcessSelection, taskkill: string): Promise<ProcessEnd> {
  const pid = rootPid ?? root?.pid
  if (pid === undefined || pid === process.pid) return Promise.resolve({ ended: 0, survivors: [] })
  return new Promise((resolve) => {
    execFile(taskkill, ['/T', '/F', '/PID', String(pid)], { windowsHide: true }, (error) =>
      resolve({ ended: error ? 0 : 1, survivors: [] }),
    )
  })
}
