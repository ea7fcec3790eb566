/** `45m`, `10s`, `1h 30m`, `0s`, `1.5h`: parts of a number and a unit, the largest first or not. The agent reads the same text. */
const duration = /^\d+(\.\d+)?\s*(ms|s|m|h|d)(\s*\d+(\.\d+)?\s*(ms|s|m|h|d))*$/

export function isDuration(text: string): boolean {
  return duration.test(text.trim())
}
