import { structuredPatch } from 'diff'
import type { Colors } from '../output.ts'

/** Colours the lines of a unified diff. */
export function paintDiff(diff: string, colors: Colors): string {
  return diff.replace(/^(?!$).*$/gm, (line) => {
    if (/^(\+\+\+|---|diff |index |rename |similarity |new file|deleted file)/.test(line)) return colors.bold(line)
    if (line.startsWith('+')) return colors.green(line)
    if (line.startsWith('-')) return colors.red(line)
    return line.startsWith('@@') ? colors.cyan(line) : line
  })
}

/** More than a screen of one edit is not read while it scrolls by; `oz run diff` has all of it. */
const maxLines = 60

/** The changed lines of one file with two lines around them. */
export function diffLines(
  change: { oldText: string | null; newText: string },
  { isFull = false }: { isFull?: boolean } = {},
): string[] {
  const { hunks } = structuredPatch('a', 'b', change.oldText ?? '', change.newText, '', '', { context: 2 })
  const lines = hunks.flatMap(({ lines: hunkLines }, index) => (index === 0 ? hunkLines : ['…', ...hunkLines]))
  const shown = lines.filter((line) => !line.startsWith('\\'))
  return isFull || shown.length <= maxLines
    ? shown
    : [...shown.slice(0, maxLines), `… ${shown.length - maxLines} more lines`]
}
