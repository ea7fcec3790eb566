import { setTimeout as delay } from 'node:timers/promises'

/** Looks until there is something; fails by name after `ms`. */
export async function until<T>(
  what: string,
  look: () => T | undefined | false | Promise<T | undefined | false>,
  ms = 15_000,
): Promise<T> {
  const deadline = performance.now() + ms
  for (;;) {
    const found = await look()
    if (found !== undefined && found !== false) return found
    if (performance.now() > deadline) throw new Error(`${what} did not come within ${ms} ms`)
    await delay(10)
  }
}
