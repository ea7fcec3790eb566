import { setTimeout as sleep } from 'node:timers/promises'

/** Asks until the answer fits, and says what the last one was if it never does. */
export async function until<T>(
  ask: () => T | Promise<T>,
  fits: (answer: T) => boolean = Boolean,
  { timeoutMs = 10_000, everyMs = 15 } = {},
): Promise<T> {
  const deadline = performance.now() + timeoutMs
  for (;;) {
    const answer = await ask()
    if (fits(answer)) return answer
    if (performance.now() > deadline)
      throw new Error(`not within ${timeoutMs} ms; the last answer was ${JSON.stringify(answer)}`)
    await sleep(everyMs)
  }
}

/** What a socket or a stream brought, in order, to be waited for. */
export class Inbox<T> {
  readonly items: T[] = []
  #taken = 0

  push(item: T): void {
    this.items.push(item)
  }

  /** The next one that was not taken yet. */
  async next(timeoutMs = 10_000): Promise<T> {
    await until(() => this.items.length > this.#taken, Boolean, { timeoutMs, everyMs: 5 })
    return this.items[this.#taken++] as T
  }

  /** How many wait to be taken. */
  get waiting(): number {
    return this.items.length - this.#taken
  }
}
