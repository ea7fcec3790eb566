const unitMs = { ms: 1, s: 1000, m: 60_000, h: 3_600_000, d: 86_400_000, w: 604_800_000 }

const part = /(\d+(?:\.\d+)?)\s*(ms|[smhdw])/g
const duration = /^(?:\s*\d+(?:\.\d+)?\s*(?:ms|[smhdw]))+\s*$/

/**
 * How people write durations, everywhere: parts of a number and a unit (ms, s, m, h, d, w), added up, with or without spaces between them.
 * `500ms`, `45m`, `1h 30m`, `1h30m`, `1.5h`, `2d`, `0s`. Answers milliseconds as a whole number, and undefined for what is no duration or
 * too long to be one; how that is said is its caller's.
 */
export function parseDuration(text: string): number | undefined {
  if (!duration.test(text)) return undefined
  const sum = [...text.matchAll(part)].reduce(
    (total, [, count, unit]) => total + Number(count) * unitMs[unit as keyof typeof unitMs],
    0,
  )
  const ms = Math.round(sum)
  return Number.isSafeInteger(ms) ? ms : undefined
}
