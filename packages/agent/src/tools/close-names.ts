/** The names that somebody may have meant, the nearest first. */
export function closeNames(wanted: string, names: readonly string[], limit = 5): string[] {
  const allowed = Math.max(2, Math.floor(wanted.length / 3))
  return names
    .map((name) => ({ name, distance: distance(wanted.toLowerCase(), name.toLowerCase(), allowed) }))
    .filter((one) => one.distance <= allowed)
    .sort((a, b) => a.distance - b.distance || (a.name < b.name ? -1 : 1))
    .slice(0, limit)
    .map(({ name }) => name)
}

/** Same stem or one inside the other counts as near; else single changes (Levenshtein). */
function distance(a: string, b: string, enough: number): number {
  if (a === b) return 0
  if (stem(a) === stem(b) || (a.length > 3 && b.includes(a)) || (b.length > 3 && a.includes(b))) return 1
  if (Math.abs(a.length - b.length) > enough) return Number.POSITIVE_INFINITY
  let row = Array.from({ length: b.length + 1 }, (_, i) => i)
  for (let i = 1; i <= a.length; i++) {
    const next = [i]
    for (let j = 1; j <= b.length; j++) {
      const changed = (row[j - 1] ?? 0) + (a[i - 1] === b[j - 1] ? 0 : 1)
      next.push(Math.min(changed, (row[j] ?? 0) + 1, (next[j - 1] ?? 0) + 1))
    }
    row = next
  }
  return row.at(-1) ?? 0
}

function stem(name: string): string {
  return name.replace(/(?<=.)\.[^.]*$/, '')
}
