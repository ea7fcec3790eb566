/**
 * How people and supervisors stop a program: SIGINT, SIGTERM or SIGHUP once, politely, and again when they have no patience left.
 *
 * One Ctrl-C reaches a program several times: the terminal sends it to the whole process group, and npm passes it on as well. What follows the
 * first within a moment is therefore the same keypress.
 */
export interface StopSignals extends Disposable {
  /** Aborted by the first signal. */
  readonly first: AbortSignal
  /** Aborted by the second: stop at once. */
  readonly second: AbortSignal
  /** The first one's name. */
  readonly signalName: (typeof stopSignals)[number] | undefined
}

const samePressMs = 400

/** 128 + SIGINT, as shells report it. */
const interrupted = 130

const stopSignals = ['SIGINT', 'SIGTERM', 'SIGHUP'] as const

export function onStopSignals(): StopSignals {
  const first = new AbortController()
  const second = new AbortController()
  let firstAt = 0
  let signalName: StopSignals['signalName']
  const onSignal = (name: NodeJS.Signals) => {
    if (!first.signal.aborted) {
      signalName = stopSignals.find((known) => known === name)
      firstAt = performance.now()
      first.abort(new Error('stopped by a signal'))
    } else if (performance.now() - firstAt > samePressMs) {
      second.abort(new Error('stopped by a second signal'))
    }
  }
  for (const name of stopSignals) process.on(name, onSignal)
  return {
    first: first.signal,
    second: second.signal,
    get signalName() {
      return signalName
    },
    [Symbol.dispose]() {
      for (const name of stopSignals) process.off(name, onSignal)
    },
  }
}

/** For what only watches: the first Ctrl-C is its end. Answers the exit code of an interrupt where it was one, else what the work answers. */
export async function untilInterrupted(
  work: (signal: AbortSignal) => Promise<number>,
  onInterrupted = () => {},
): Promise<number> {
  const stop = new AbortController()
  const onInterrupt = () => stop.abort(new Error('interrupted'))
  process.once('SIGINT', onInterrupt)
  try {
    return await work(stop.signal)
  } catch (error) {
    if (!stop.signal.aborted) throw error
    onInterrupted()
    return interrupted
  } finally {
    process.off('SIGINT', onInterrupt)
  }
}
