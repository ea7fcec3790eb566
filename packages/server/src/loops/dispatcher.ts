import { endIdleInTheWay, type Offer, offerNextRun, type WorkerConnection } from '../domain/assignments.ts'
import type { Ctx, Topic } from '../domain/context.ts'
import { listWorkersWithRuns } from '../store/queue.ts'
import { type Loop, startLoop } from './loop.ts'

/**
 * Brings waiting runs to workers: for the connections of this server that have a free slot, claims the oldest run each may take and sends it.
 *
 * A claim that finds nothing costs as much as one that finds something, so nobody is asked on the off chance. What is claimed for is `wanted`:
 * a team and the worker host that its waiting runs name, empty for those that name none. A hint says so of a new run. Slots that became free,
 * and every poll all of them, are looked up first, in one query however many they are; a single freed slot claims at once.
 *
 * Servers do not know of each other: the claim itself (`skip locked`) keeps two of them from taking the same run.
 */

/** A connection as the dispatcher sees it. */
export interface Slot extends WorkerConnection {
  /** Executions that were offered on it or are running there. */
  active: number
  hasFreeSlot(): boolean
  /** It would take work, but every slot is taken. */
  isFull(): boolean
  /** Sends the assignment; false when the socket is closed. */
  send(offer: Offer): boolean
}

type Worker = Pick<Slot, 'teamId' | 'workerId'>

export interface Dispatcher extends Omit<Loop, 'wake'> {
  /** A slot of this worker may have become free. */
  wake(worker: Worker): void
}

/** Hints bring work at once; this is for the one that was lost. */
const pollMs = 2_000
/** Between two looks for agents at rest: they have a second to leave. */
const idleLookMs = 500

export function startDispatcher(ctx: Ctx, slots: () => Iterable<Slot>, signal: AbortSignal): Dispatcher {
  /** Something waits there, or may: team and worker host. */
  const wanted = new Set<string>()
  /** Workers with a slot that became free, by the same key. */
  const freed = new Map<string, Worker>()
  /** Workers that found nothing, although what names nobody waits: drained a moment ago, or another server was faster. */
  const idle = new Set<string>()
  let lookedAtAllAt = Number.NEGATIVE_INFINITY
  let lookedForIdleAt = Number.NEGATIVE_INFINITY

  async function dispatch(): Promise<void> {
    let wasAnyAsked = true
    while (wasAnyAsked && !signal.aborted) {
      wasAnyAsked = await offerRound()
      await makeRoom()
    }
  }

  /** What was not taken may be waiting for a slot in which an agent only rests. */
  async function makeRoom(): Promise<void> {
    if (signal.aborted || performance.now() - lookedForIdleAt < idleLookMs) return
    const full = [...slots()].filter((slot) => slot.isFull())
    if (full.length === 0) return
    lookedForIdleAt = performance.now()
    await endIdleInTheWay(
      ctx,
      full.map(({ id }) => id),
    )
  }

  /**
   * Asks each worker id at most once, the least loaded first, so that work is spread and nobody who is faster keeps another from its turn. What
   * becomes wanted meanwhile is taken up at once.
   */
  async function offerRound(): Promise<boolean> {
    const asked = new Set<string>()
    while (!signal.aborted) {
      await lookAtFreed()
      const slot = leastLoaded(asked)
      if (slot) {
        asked.add(keyOf(slot))
        await offerTo(slot)
      } else {
        // Nobody here can take it. Whoever becomes able to says so.
        if (asked.size === 0) {
          wanted.clear()
          idle.clear()
        }
        break
      }
    }
    return asked.size > 0
  }

  async function lookAtFreed(): Promise<void> {
    // Hints that never cease must not keep the poll from its turn.
    if (performance.now() - lookedAtAllAt >= pollMs) {
      lookedAtAllAt = performance.now()
      for (const slot of slots()) if (slot.hasFreeSlot()) freed.set(keyOf(slot), slot)
      idle.clear()
    } else if (freed.size === 1) {
      for (const key of freed.keys()) wanted.add(key)
      freed.clear()
    }
    if (freed.size === 0) return
    const workers = [...freed.values(), ...unnamedOnce(freed.values())]
    freed.clear()
    await look(workers)
  }

  async function look(workers: Worker[]): Promise<void> {
    for (const worker of await listWorkersWithRuns(ctx.db, workers)) wanted.add(keyOf(worker))
  }

  function leastLoaded(asked: Set<string>): Slot | undefined {
    let least: Slot | undefined
    for (const slot of slots())
      if (!asked.has(keyOf(slot)) && isWanted(slot) && slot.hasFreeSlot() && !(least && least.active <= slot.active))
        least = slot
    return least
  }

  function isWanted(slot: Slot): boolean {
    const key = keyOf(slot)
    return wanted.has(key) || (wanted.has(`${slot.teamId} `) && !idle.has(key))
  }

  async function offerTo(slot: Slot): Promise<void> {
    // Before the claim: what a hint adds while the claim is under way, the claim may not have seen.
    const unnamed = { teamId: slot.teamId, workerId: '' }
    const keys = [keyOf(slot), keyOf(unnamed)].filter((key) => wanted.delete(key))
    const offer = await offerNextRun(ctx, slot)
    if (offer) {
      // There may be more of it.
      for (const key of keys) wanted.add(key)
      // A socket that closed meanwhile: the sweeper withdraws offers of connections that are gone.
      if (!slot.send(offer)) ctx.log.debug({ runId: offer.runId }, 'offer could not be sent')
    } else if (keys.includes(keyOf(unnamed))) {
      // What names nobody would have been for this one: the others are asked for it only if some is still there.
      idle.add(keyOf(slot))
      await look([unnamed])
    }
  }

  const loop = startLoop({ name: 'dispatcher', everyMs: pollMs, log: ctx.log, signal, work: dispatch })
  const unsubscribe = ctx.hints.subscribe('queue ', (topic: Topic) => {
    const key = topic.slice('queue '.length)
    wanted.add(key)
    if (key.endsWith(' ')) idle.clear()
    loop.wake()
  })
  signal.addEventListener('abort', unsubscribe, { once: true })
  return {
    ended: loop.ended,
    wake(worker) {
      freed.set(keyOf(worker), worker)
      loop.wake()
    },
  }
}

function keyOf({ teamId, workerId }: Worker): string {
  return `${teamId} ${workerId}`
}

/** What names no worker is waited for under an empty id, by each team. */
function unnamedOnce(workers: Iterable<Worker>): Worker[] {
  return [...new Set(Array.from(workers, ({ teamId }) => teamId))].map((teamId) => ({ teamId, workerId: '' }))
}
