/** Reading of JSON that providers write: nothing of it is promised, nothing of it may throw. */
export function field(value: unknown, ...path: string[]): unknown {
  let at = value
  for (const key of path) {
    if (typeof at !== 'object' || at === null) return undefined
    at = (at as Record<string, unknown>)[key]
  }
  return at
}

/** A positive number or nothing. */
export function numberIn(value: unknown, ...path: string[]): number | undefined {
  const found = field(value, ...path)
  return typeof found === 'number' && Number.isFinite(found) && found >= 0 ? found : undefined
}

export function textIn(value: unknown, ...path: string[]): string {
  const found = field(value, ...path)
  return typeof found === 'string' ? found : ''
}
