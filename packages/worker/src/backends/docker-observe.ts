import { constants } from 'node:os'
import { sleep } from '@openoz/machine'
import type { Logger } from 'pino'
import { type ContainerState, inspectContainer, listContainers } from '../engine/containers.ts'
import type { Engine } from '../engine/engine.ts'
import { followEvents } from '../engine/engine-events.ts'
import { isEndedFromOutside } from './docker-exit.ts'

/**
 * Notices the ends of containers: by the engine's events, of which there is one stream for all of them; and since events get lost, by a list every few
 * seconds and after every break. An end counts when the engine has said so of that container when asked: an engine that does not answer says nothing
 * about what it runs, which may well go on.
 */
export interface Observer {
  /**
   * Resolves when it does not run any more, or is not there any more. Pending for ever once the signal is aborted. `isAsked`: we have told it to end, so
   * that nobody has to find out who did.
   */
  watch(id: string, options: { isAsked: () => boolean; signal: AbortSignal }): Promise<SeenEnd>
  /** It did not answer when it was asked last: nothing can be begun on it. */
  readonly isEngineAway: boolean
}

export interface SeenEnd {
  /** undefined: there is no such container. */
  state: ContainerState | undefined
  /** See `SeenByUs`. */
  wasEngineAway: boolean
  wasKilled: boolean
}

interface Watched {
  id: string
  end: (seen: SeenEnd) => void
  isAsked: () => boolean
  /** When it was last known to run, on our clock. */
  ranAt: number
  isLookedAt: boolean
  /** Something happened to it while we were asking: the answer may be from before. */
  isToAskAgain: boolean
  wasKilled: boolean
}

const { SIGKILL } = constants.signals
const lookEveryMs = 5_000
/** An engine that stops tells that its containers have ended, and is gone a moment later. */
const goodbyeMs = 2_000

export interface ObserverOptions {
  engine: Engine
  /** What all of the containers have. */
  labels: string[]
  log: Logger
  signal: AbortSignal
}

/** Works until the signal is aborted. */
export function startObserver({ engine, labels, log, signal }: ObserverOptions): Observer {
  const watched = new Set<Watched>()
  let brokeAt = Number.NEGATIVE_INFINITY
  let isAway = false
  const now = () => performance.now()

  async function look(one: Watched): Promise<void> {
    one.isToAskAgain = one.isLookedAt
    if (one.isLookedAt) return
    one.isLookedAt = true
    try {
      const state = (await inspectContainer(engine, one.id, signal))?.State
      if (!watched.has(one)) return
      // `removing` has no end yet, and `created` no beginning.
      if (state && (state.Running || state.Status === 'created' || state.Status === 'removing')) {
        one.ranAt = now()
        return
      }
      watched.delete(one)
      one.end({ state, wasEngineAway: await wasAway(one, state), wasKilled: one.wasKilled })
    } catch (error) {
      if (!signal.aborted) log.debug({ error, container: one.id }, 'The engine does not say how a container is')
    } finally {
      one.isLookedAt = false
      if (one.isToAskAgain && watched.has(one) && !signal.aborted) void look(one)
    }
  }

  async function wasAway({ ranAt, isAsked }: Watched, state: ContainerState | undefined): Promise<boolean> {
    if (brokeAt >= ranAt) return true
    if (!state || isAsked() || !isEndedFromOutside(state)) return false
    const deadline = now() + goodbyeMs
    while (now() < deadline && !signal.aborted) {
      await sleep(50, signal)
      if (brokeAt >= ranAt) return true
    }
    return false
  }

  async function lookRegularly(): Promise<void> {
    while (!signal.aborted) {
      await sleep(lookEveryMs, signal)
      if (watched.size === 0 || signal.aborted) continue
      try {
        const listed = await listContainers(engine, { labels, signal })
        const running = new Set(listed.filter(({ State }) => State === 'running').map(({ Id }) => Id))
        for (const one of [...watched])
          if (running.has(one.id)) one.ranAt = now()
          else await look(one)
      } catch (error) {
        if (!signal.aborted) log.debug({ error }, 'The engine does not say what it runs')
      }
    }
  }

  const lookAtAll = () => {
    for (const one of [...watched]) void look(one)
  }

  void lookRegularly()
  void followEvents(
    engine,
    { labels, types: ['container'] },
    {
      event: ({ Action: action, Actor: { ID: id, Attributes } }) => {
        const isKill = action === 'kill' && Number(Attributes.signal) === SIGKILL
        if (isKill) for (const one of watched) if (one.id === id) one.wasKilled = true
        if (action !== 'die' && action !== 'destroy') return
        for (const one of [...watched]) if (one.id === id) void look(one)
      },
      broken: (error) => {
        brokeAt = now()
        isAway = true
        log.warn(
          { error, tasks: watched.size },
          'The engine’s events broke off; tasks are taken to go on until it answers',
        )
      },
      restored: () => {
        isAway = false
        if (brokeAt !== Number.NEGATIVE_INFINITY) log.info({ tasks: watched.size }, 'The engine answers again')
        lookAtAll()
      },
    },
    signal,
  )

  return {
    get isEngineAway() {
      return isAway
    },
    watch(id, { isAsked, signal: over }) {
      return new Promise((resolve) => {
        if (over.aborted) return
        const one: Watched = {
          id,
          end: resolve,
          isAsked,
          ranAt: now(),
          isLookedAt: false,
          isToAskAgain: false,
          wasKilled: false,
        }
        watched.add(one)
        over.addEventListener('abort', () => watched.delete(one), { once: true })
        // It may have ended before anybody watched.
        void look(one)
      })
    },
  }
}
