/**
 * The same value, in whose texts (keys too) no half of a surrogate pair stands alone: each becomes U+FFFD. A model may write one as `\\ud83d`, and a
 * text that is cut by its length may end in one. Providers refuse a request that has one anywhere, and with it every later one of that conversation.
 */
export function wellFormed<T>(value: T): T {
  return clean(value) as T
}

function clean(value: unknown): unknown {
  if (typeof value === 'string') return value.toWellFormed()
  if (Array.isArray(value)) return value.map(clean)
  // Bytes and the like have no texts.
  if (typeof value !== 'object' || value === null || Object.getPrototypeOf(value) !== Object.prototype) return value
  return Object.fromEntries(Object.entries(value).map(([key, item]) => [key.toWellFormed(), clean(item)]))
}
