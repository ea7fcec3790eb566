/**
 * Whether the control plane can be reached, as the worker's connection knows it. What must not be given up for want of a connection asks here: a
 * try that failed while the link was down, or broke, says nothing about what was tried.
 */
export class Link {
  #isUp = false
  #breaks = 0
  readonly #waiting = new Set<() => void>()

  get isUp(): boolean {
    return this.#isUp
  }

  set(isUp: boolean): void {
    if (this.#isUp && !isUp) this.#breaks += 1
    this.#isUp = isUp
    if (isUp) for (const wake of [...this.#waiting]) wake()
  }

  /** At once when it is up. Resolves too when the signal is aborted. */
  up(signal: AbortSignal): Promise<void> {
    if (this.#isUp || signal.aborted) return Promise.resolve()
    return new Promise((resolve) => {
      const done = () => {
        this.#waiting.delete(done)
        signal.removeEventListener('abort', done)
        resolve()
      }
      this.#waiting.add(done)
      signal.addEventListener('abort', done, { once: true })
    })
  }

  /** How long `work` took, and whether the link was up all the while (`held`), never (`away`), or now and then (`broke`). */
  async during<T>(work: () => Promise<T>): Promise<{ result: T; link: 'held' | 'broke' | 'away'; ms: number }> {
    const [wasUp, breaks, startedAt] = [this.#isUp, this.#breaks, performance.now()]
    const result = await work()
    const hasBroken = this.#breaks !== breaks
    const link = wasUp && !hasBroken ? 'held' : wasUp || hasBroken || this.#isUp ? 'broke' : 'away'
    return { result, link, ms: performance.now() - startedAt }
  }
}
