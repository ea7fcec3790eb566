import { endIdleInTheWay, type Offer, offerNextRun, type WorkerConnection } from '../domain/assignments.ts'
import type { Ctx, Topic } from '../domain/context.ts'
import { type Loop, startLoop } from './loop.ts'

/**
 * Brings waiting runs to workers: for the connections of this server that have a free slot, claims the oldest run each may take and sends it.
 *
 * A hint names the team and the worker host of a new run, so that one run wakes one worker and not all of them; every poll, all connections
 * are looked at. Servers do not know of each other: the claim itself (`skip locked`) keeps two of them from taking the same run.
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

/** Hints bring work at once; this is for the one that was lost. */
const pollMs = 2_000
/** Between two looks for agents at rest: they have a second to leave. */
const idleLookMs = 500

export function startDispatcher(ctx: Ctx, slots: () => Iterable<Slot>, signal: AbortSignal): Loop {
  const wanted = new Set<string>()
  let wantsAll = true
  let lookedAtAllAt = 0
  let lookedForIdleAt = 0

  async function dispatch(): Promise<void> {
    await offerAll()
    await makeRoom()
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

  async function offerAll(): Promise<void> {
    // Hints that never cease must not keep the poll from its turn.
    const isAll = wantsAll || performance.now() - lookedAtAllAt >= pollMs
    if (isAll) lookedAtAllAt = performance.now()
    const keys = isAll ? undefined : new Set(wanted)
    wantsAll = false
    wanted.clear()
    // One round gives each worker id at most one run; rounds go on while runs are found, so that work is spread.
    const idle = new Set<string>()
    while (!signal.aborted) {
      // Something new came: everyone is asked again, the least loaded first.
      if (wanted.size > 0) {
        wantsAll ||= isAll
        return
      }
      const candidates = candidatesFor(keys, idle)
      if (candidates.length === 0) return
      for (const slot of candidates) {
        if (!isWanted(keys, slot) || (await offerTo(slot))) continue
        idle.add(keyOf(slot))
        // What names no worker would have been for this one: the others of its team need not be asked for it.
        keys?.delete(`${slot.teamId} `)
      }
    }
  }

  /** Least loaded first, one per worker id and team, without those for whom nothing waits. */
  function candidatesFor(keys: Set<string> | undefined, idle: Set<string>): Slot[] {
    const free = [...slots()].filter((slot) => slot.hasFreeSlot()).sort((a, b) => a.active - b.active)
    const seen = new Set(idle)
    return free.filter((slot) => {
      const key = keyOf(slot)
      if (!isWanted(keys, slot) || seen.has(key)) return false
      seen.add(key)
      return true
    })
  }

  async function offerTo(slot: Slot): Promise<boolean> {
    const offer = await offerNextRun(ctx, slot)
    if (!offer) return false
    // A socket that closed meanwhile: the sweeper withdraws offers of connections that are gone.
    if (!slot.send(offer)) ctx.log.debug({ runId: offer.runId }, 'offer could not be sent')
    return true
  }

  const loop = startLoop({ name: 'dispatcher', everyMs: pollMs, log: ctx.log, signal, work: dispatch })
  const unsubscribe = ctx.hints.subscribe('queue ', (topic: Topic) => {
    wanted.add(topic.slice('queue '.length))
    loop.wake()
  })
  signal.addEventListener('abort', unsubscribe, { once: true })
  return {
    ...loop,
    /** A slot became free: look for everything. */
    wake() {
      wantsAll = true
      loop.wake()
    },
  }
}

/** Whether one of the hints is about this slot; undefined: everything is looked at. */
function isWanted(keys: Set<string> | undefined, slot: Slot): boolean {
  return keys === undefined || keys.has(keyOf(slot)) || keys.has(`${slot.teamId} `)
}

function keyOf(slot: Slot): string {
  return `${slot.teamId} ${slot.workerId}`
}
