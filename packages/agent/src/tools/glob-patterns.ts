import { matchesGlob } from 'node:path'
import { z } from 'zod'

/**
 * One pattern as models write it: without a slash it is for names in any folder, with one for paths from where the search begins; a `!` in front leaves
 * out. Braces multiply, so there is an end to them.
 */
export const globPattern = z
  .string()
  .min(1)
  .max(500)
  .refine((text) => (text.match(/\{/g)?.length ?? 0) <= 5, 'must not have more than 5 pairs of braces')
  .refine((text) => !/\{[^}]*\.\./.test(text), 'must not have ranges in braces')

/**
 * Which paths fit. Our own test and not ripgrep's `--glob`, which would bring back files that `.gitignore` leaves out. Hidden files fit as
 * all others do.
 */
export function globFilter(patterns: readonly string[]): (path: string) => boolean {
  const wanted = patterns.filter((pattern) => !pattern.startsWith('!')).map(anchored)
  const unwanted = patterns.filter((pattern) => pattern.startsWith('!')).map((pattern) => anchored(pattern.slice(1)))
  return (path) => {
    const plain = withoutDots(path)
    const fits = ({ pattern, dotless }: Anchored) =>
      matchesGlob(path, pattern) || (plain !== path && matchesGlob(plain, dotless))
    return (wanted.length === 0 || wanted.some(fits)) && !unwanted.some(fits)
  }
}

interface Anchored {
  pattern: string
  dotless: string
}

function anchored(written: string): Anchored {
  const plain = written.replace(/^\.?\//, '')
  const isAnywhere = plain === written && (!plain.includes('/') || plain.endsWith('/'))
  const pattern = `${isAnywhere ? '**/' : ''}${plain}${plain.endsWith('/') ? '**' : ''}`
  return { pattern, dotless: withoutDots(pattern) }
}

/** A leading dot is not matched by a star; a letter of nobody's is. */
function withoutDots(path: string): string {
  return path.replace(/(^|\/)\.(?=[^/])/g, '$1\uE000')
}
