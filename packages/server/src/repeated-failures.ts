/**
 * What fails again and again is said once, and then once a minute: a database that is away fails every loop every few seconds, for as long as it is
 * away. A failure that has not been seen for that long is a new one.
 */
export class RepeatedFailures {
  readonly #quietMs: number
  readonly #saidAt = new Map<string, number>()

  constructor(quietMs = 60_000) {
    this.#quietMs = quietMs
  }

  /** Whether this failure is to be said now. */
  isDue(what: string): boolean {
    const now = performance.now()
    for (const [known, at] of this.#saidAt) if (now - at >= this.#quietMs) this.#saidAt.delete(known)
    if (this.#saidAt.has(what)) return false
    this.#saidAt.set(what, now)
    return true
  }
}
