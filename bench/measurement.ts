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
}

export interface Benchmark {
  name: string
  run(): Promise<Measurement[]>
}

/** Latencies in ms, from any number of samples. */
export function percentile(samples: number[], p: number): number {
  const sorted = [...samples].sort((a, b) => a - b)
  return sorted[Math.min(sorted.length - 1, Math.ceil((p / 100) * sorted.length) - 1)] ?? Number.NaN
}

export function round(value: number): number {
  return value >= 100 ? Math.round(value) : Math.round(value * 100) / 100
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
