/** One line of the table: a figure, the control measured in the same run, and what was asked for. */
export interface Measurement {
  name: string
  value: number
  unit: string
  /** In words, as the architecture of the project states it. */
  target: string
  control: { name: string; value: number } | null
  /** value / control, where the target is a ratio or the control gives the scale. */
  ratio: number | null
  ok: boolean
  /** Smallest and largest value of all rounds, where there was more than one; the line itself is the round in the middle. */
  spread?: { low: number; high: number; rounds: number }
}

export interface BenchOptions {
  /** Once, and with less of everything: to see that it works. Its figures are no measurement. */
  isQuick: boolean
  /** Of steady load. */
  minutes: number
}

export interface Benchmark {
  name: string
  /** Default 3. */
  rounds?: number
  run(options: BenchOptions): Promise<Measurement[]>
}

/** What it needs is not on this machine: it is left out, and the end of the report says so. */
export class NotMeasurable extends Error {}

/** Latencies in ms, from any number of samples. */
export function percentile(samples: number[], p: number): number {
  const sorted = [...samples].sort((a, b) => a - b)
  return sorted[Math.min(sorted.length - 1, Math.ceil((p / 100) * sorted.length) - 1)] ?? Number.NaN
}

export function round(value: number): number {
  return Math.abs(value) >= 100 ? Math.round(value) : Math.round(value * 100) / 100
}

/** Compares with a control; `limit` is asked about the rounded figures' exact values. */
export function compared(
  name: string,
  unit: string,
  figures: { value: number; control: { name: string; value: number } },
  target: { words: string; isMet: (value: number, ratio: number) => boolean },
): Measurement {
  const { value, control } = figures
  const ratio = value / control.value
  return {
    name,
    value: round(value),
    unit,
    target: target.words,
    control: { name: control.name, value: round(control.value) },
    ratio: round(ratio),
    ok: target.isMet(value, ratio),
  }
}

/** A figure that nothing else on the machine could be compared with. */
export function alone(
  name: string,
  unit: string,
  value: number,
  target: { words: string; isMet: (value: number) => boolean },
): Measurement {
  return { name, value: round(value), unit, target: target.words, control: null, ratio: null, ok: target.isMet(value) }
}

/** Each line is that of the round whose value lies in the middle, whole, so that value, control and verdict belong together. */
export function middleOf(rounds: Measurement[][]): Measurement[] {
  return (rounds[0] ?? []).map((first, line) => {
    const all = rounds.map((one) => one[line] ?? first).sort((a, b) => a.value - b.value)
    const middle = all[Math.floor((all.length - 1) / 2)] ?? first
    if (all.length === 1) return middle
    const spread = { low: all[0]?.value ?? middle.value, high: all.at(-1)?.value ?? middle.value, rounds: all.length }
    return { ...middle, spread }
  })
}
