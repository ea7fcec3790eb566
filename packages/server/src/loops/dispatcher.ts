import { type Offer, offerNextRun, type WorkerConnection } from '../domain/assignments.ts'
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
  /** Sends the assignment; false when the socket is closed. */
  send(offer: Offer): boolean
}

const pollMs = 1_000

export function startDispatcher(ctx: Ctx, slots: () => Iterable<Slot>, signal: AbortSignal): Loop {
  const wanted = new Set<string>()
  let isPoll = true

  async function dispatch(): Promise<void> {
    const all = isPoll ? undefined : new Set(wanted)
    isPoll = true
    wanted.clear()
    // One round gives each worker at most one run; rounds go on while runs are found, so that work is spread.
    let candidates = candidatesFor(all)
    while (candidates.length > 0 && !signal.aborted) {
      const busy: Slot[] = []
      for (const slot of candidates) if (await offerTo(slot)) busy.push(slot)
      candidates = busy.filter((slot) => slot.hasFreeSlot())
    }
  }

  /** Least loaded first, one per worker id and team: asking twice for the same id finds the same run. */
  function candidatesFor(keys: Set<string> | undefined): Slot[] {
    const free = [...slots()].filter((slot) => slot.hasFreeSlot()).sort((a, b) => a.active - b.active)
    const seen = new Set<string>()
    return free.filter((slot) => {
      const isWanted = keys === undefined || keys.has(`${slot.teamId} ${slot.workerId}`) || keys.has(`${slot.teamId} `)
      const key = `${slot.teamId} ${slot.workerId}`
      if (!isWanted || seen.has(key)) return false
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
    isPoll = false
    loop.wake()
  })
  signal.addEventListener('abort', unsubscribe, { once: true })
  return {
    ...loop,
    /** A slot became free: look for everything. */
    wake() {
      isPoll = true
      loop.wake()
    },
  }
}
