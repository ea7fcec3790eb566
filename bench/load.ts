import { setTimeout as sleep } from 'node:timers/promises'

/** `count` pieces of work, `lanes` at a time. The first error ends it. */
export async function inLanes(lanes: number, count: number, work: (i: number) => Promise<unknown>): Promise<void> {
  let next = 0
  await Promise.all(
    Array.from({ length: Math.min(lanes, count) }, async () => {
      while (next < count) await work(next++)
    }),
  )
}

/** As much as `lanes` get done; answers how much was done a second. */
export async function forSeconds(
  seconds: number,
  lanes: number,
  work: (lane: number) => Promise<unknown>,
): Promise<number> {
  const from = performance.now()
  const until = from + seconds * 1000
  let done = 0
  await Promise.all(
    Array.from({ length: lanes }, async (_, lane) => {
      while (performance.now() < until) {
        await work(lane)
        done++
      }
    }),
  )
  return (done * 1000) / (performance.now() - from)
}

/** What is begun at its time, however long what was begun before it takes: a server that is slow is not asked less. */
export async function atRate(
  { perSecond, seconds }: { perSecond: number; seconds: number },
  work: (i: number) => Promise<unknown>,
): Promise<{ perSecond: number }> {
  const from = performance.now()
  const total = Math.round(perSecond * seconds)
  const underWay = new Set<Promise<unknown>>()
  let failure: Error | undefined
  for (let i = 0; i < total && !failure; i++) {
    const waitMs = from + (i * 1000) / perSecond - performance.now()
    if (waitMs > 0) await sleep(waitMs)
    const piece = work(i)
      .catch((error: Error) => {
        failure ??= error
      })
      .finally(() => underWay.delete(piece))
    underWay.add(piece)
  }
  await Promise.all(underWay)
  if (failure) throw failure
  return { perSecond: (total * 1000) / (performance.now() - from) }
}
