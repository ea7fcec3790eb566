/**
 * The work of each item, in their order, with at most `count` at a time. Rejects with the first failure, once everything that was begun has
 * ended: nothing goes on that the caller does not know of.
 */
export async function inGroups<T, R>(count: number, items: readonly T[], work: (item: T) => Promise<R>): Promise<R[]> {
  const results: R[] = []
  const failures: unknown[] = []
  const waiting = items.entries()
  const one = async () => {
    for (const [index, item] of waiting) {
      try {
        results[index] = await work(item)
      } catch (error) {
        failures.push(error)
      }
    }
  }
  await Promise.all(Array.from({ length: count }, one))
  if (failures.length > 0) throw failures[0]
  return results
}
