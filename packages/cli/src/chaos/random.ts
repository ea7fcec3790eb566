import { createHash } from 'node:crypto'

/** Numbers that a seed decides. */
export interface Random {
  /** From 0 up to, and without, 1. */
  next(): number
  /** A whole number, both ends included. */
  whole(from: number, to: number): number
  chance(probability: number): boolean
  /** One of them, each as often as its weight says. */
  pick<T>(choices: readonly (readonly [T, number])[]): T
  shuffled<T>(items: readonly T[]): T[]
}

/** sfc32. One stream per purpose: more numbers taken for one change nothing of another. */
export function randomStream(seed: string, purpose: string): Random {
  const digest = createHash('sha256').update(`${seed}\0${purpose}`).digest()
  let [a, b, c, count] = [digest.readInt32LE(0), digest.readInt32LE(4), digest.readInt32LE(8), 1]
  const next = () => {
    const sum = (((a + b) | 0) + count) | 0
    count = (count + 1) | 0
    a = b ^ (b >>> 9)
    b = (c + (c << 3)) | 0
    c = (((c << 21) | (c >>> 11)) + sum) | 0
    return (sum >>> 0) / 2 ** 32
  }
  for (let round = 0; round < 12; round++) next()
  const whole = (from: number, to: number) => from + Math.floor(next() * (to - from + 1))
  return {
    next,
    whole,
    chance: (probability) => next() < probability,
    pick(choices) {
      let left = next() * choices.reduce((sum, [, weight]) => sum + weight, 0)
      for (const [choice, weight] of choices) {
        left -= weight
        if (left < 0) return choice
      }
      const last = choices.at(-1)
      if (!last) throw new Error('nothing to choose from')
      return last[0]
    },
    shuffled(items) {
      const list = [...items]
      for (let at = list.length - 1; at > 0; at--) {
        const other = whole(0, at)
        const [one, two] = [list[at], list[other]]
        if (one !== undefined && two !== undefined) [list[at], list[other]] = [two, one]
      }
      return list
    },
  }
}
