import type { Readable } from 'node:stream'

/**
 * How a program that we started is waited for. Its end is its exit, not the end of its output: whatever it started in the background keeps
 * the pipes open for as long as it likes.
 */

/** Looks at the output without a word, after which what an ended program said counts as complete. Looks, because time passes also while nothing is read. */
const quietLooks = 5
const lookEveryMs = 10
const maxDrainMs = 1_000

/** What `exited` resolves with, or why it was not waited for any longer. `timeoutMs` undefined: no limit. */
export async function firstEnd<T>(
  exited: Promise<T>,
  { timeoutMs, signal }: { timeoutMs?: number; signal?: AbortSignal },
): Promise<T | 'stopped' | 'timed_out'> {
  const interrupted = Promise.withResolvers<'stopped' | 'timed_out'>()
  const timer = timeoutMs === undefined ? undefined : setTimeout(() => interrupted.resolve('timed_out'), timeoutMs)
  const onAbort = () => interrupted.resolve('stopped')
  signal?.addEventListener('abort', onAbort, { once: true })
  if (signal?.aborted) onAbort()
  try {
    return await Promise.race([exited, interrupted.promise])
  } finally {
    clearTimeout(timer)
    signal?.removeEventListener('abort', onAbort)
  }
}

/** The same after a kill: what survived even SIGKILL must not hold the run. */
export async function killedEnd<T>(exited: Promise<T>): Promise<T | undefined> {
  let timer: NodeJS.Timeout | undefined
  const givenUp = new Promise<undefined>((resolve) => {
    timer = setTimeout(() => resolve(undefined), maxDrainMs)
  })
  try {
    return await Promise.race([exited, givenUp])
  } finally {
    clearTimeout(timer)
  }
}

/**
 * Reads what an ended program's output still holds. Resolves with false when something keeps it open: that is read on and forgotten, since a
 * closed pipe would end a daemon with its next word, and does not keep our process alive.
 */
export async function drainOutput(outputs: readonly Readable[]): Promise<boolean> {
  let quiet = 0
  const onData = () => {
    quiet = 0
  }
  for (const output of outputs) output.on('data', onData)
  const areClosed = () => outputs.every(({ closed }) => closed)
  const deadline = performance.now() + maxDrainMs
  while (!areClosed() && quiet < quietLooks && performance.now() < deadline) {
    await nextLook(outputs)
    quiet++
  }
  for (const output of outputs) {
    output.off('data', onData)
    if (output.closed) continue
    output.removeAllListeners('data')
    output.resume()
    // A pipe of a child is a socket, which can be told not to keep the process alive; the type of `stdout` does not say so.
    if ('unref' in output && typeof output.unref === 'function') output.unref()
  }
  return areClosed()
}

/** At once when an output is closed, which is how nearly all of them end. */
function nextLook(outputs: readonly Readable[]): Promise<void> {
  return new Promise((resolve) => {
    const done = () => {
      clearTimeout(timer)
      for (const output of outputs) output.off('close', done)
      resolve()
    }
    const timer = setTimeout(done, lookEveryMs)
    for (const output of outputs) output.once('close', done)
  })
}
